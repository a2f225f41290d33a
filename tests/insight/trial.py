"""Compute an experiment member by member with scipy, where the report has nothing but sums."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import gammaln

if TYPE_CHECKING:
    from tests.insight.frames import Frames
    from tests.insight.orders import Orders

ARMS = ("treated", "control")
PLANNED = 2_000
FIRST_LOOK = 100
CONCENTRATION = 10_000


def members(frames: Frames, orders: Orders) -> pd.DataFrame:
    """Return a row for each member who entered by a first order of the web: arm, amounts before and since, and more."""
    entered = frames.rewards[frames.rewards["type"].eq("cohort.entered")].groupby("member_id").first()
    bought = orders.orders.sort_values(["at", "event_id"])
    first = bought[bought["channel"].eq("web")].groupby("member_id").first()
    assert set(first.index) == set(entered.index)
    assert (first["at"] == entered["at"].reindex(first.index)).all()

    # the order by which a member entered counts since; of one instant the order of the events decides
    table = pd.DataFrame({"arm": entered["item"], "at": entered["at"], "seq": entered["seq"]})
    own = bought[bought["member_id"].isin(table.index)]
    own = own.join(first[["at", "event_id"]].add_prefix("entry_"), on="member_id")
    same = own["at"].eq(own["entry_at"]) & own["event_id"].ge(own["entry_event_id"])
    is_since = same | (own["at"] > own["entry_at"])
    table["y"] = own[is_since].groupby("member_id")["net"].sum()
    table["x"] = own[~is_since].groupby("member_id")["net"].sum()
    table["refunded"] = (own["amount"] - own["net"])[is_since].groupby(own["member_id"]).sum()

    # what the log says of them since
    log_ = frames.rewards[frames.rewards["member_id"].isin(table.index)].join(
        table[["at", "seq"]].add_prefix("entry_"), on="member_id"
    )
    log_ = log_[(log_["at"] > log_["entry_at"]) | (log_["at"].eq(log_["entry_at"]) & log_["seq"].ge(log_["entry_seq"]))]
    captured, restored = (log_[log_["type"].eq(f"points.{way}")] for way in ("captured", "restored"))
    burned = captured.groupby("member_id")["amount"].sum().sub(
        restored.groupby("member_id")["amount"].sum(), fill_value=0
    )  # fmt: skip
    refused = log_[log_["type"].eq("reward.refused") & ~log_["reason"].eq("cohort_control")]
    table["points_redeemed"] = burned
    table["redemptions"] = captured.groupby("member_id")["seq"].nunique()
    table["refusals"] = refused.groupby("member_id").size()
    return table.fillna(dict.fromkeys(("y", "x", "refunded", "points_redeemed", "redemptions", "refusals"), 0))


def experiment(frames: Frames, orders: Orders) -> dict[str, Any]:
    """Return what the report has to say of the rule `tried`."""
    table = members(frames, orders)
    arms = {arm: table[table["arm"].eq(arm)] for arm in ARMS}
    treated, control = (arms[arm]["y"].to_numpy() for arm in ARMS)
    before = {arm: arms[arm]["x"].to_numpy() for arm in ARMS}
    effect = _welch(treated, control)

    # the part of each amount that the amount before explains, with one factor for both arms
    centred = [(arms[arm]["y"] - arms[arm]["y"].mean(), arms[arm]["x"] - arms[arm]["x"].mean()) for arm in ARMS]
    theta = sum(float((y * x).sum()) for y, x in centred) / sum(float((x * x).sum()) for _, x in centred)
    return {
        "salt": "trial-1", "treat": 0.5, "arms": {arm: _sums(arms[arm]) for arm in ARMS},
        "srm": _srm(len(treated), len(control)),
        "effect": {"mean_treated": float(treated.mean()), "mean_control": float(control.mean())} | effect,
        "lift": _lift(treated, control),
        "cuped": {"theta": theta} | _welch(treated - theta * before["treated"], control - theta * before["control"]),
        "always_valid": _always_valid(effect, len(treated), len(control)),
        "incremental_revenue": len(treated) * effect["difference"],
        "cost_realised": None, "iroas": None, "crossed": 0,  # coupons were issued, and nobody says which were used
        "guardrails": {
            name: {arm: float(arms[arm][name].mean()) for arm in ARMS}
            | _welch(*(arms[arm][name].to_numpy() for arm in ARMS))
            for name in ("refunded", "refusals", "redemptions", "points_redeemed")
        },
    }  # fmt: skip


def _sums(arm: pd.DataFrame) -> dict[str, int]:
    y, x = arm["y"].astype(int), arm["x"].astype(int)
    return {
        "n": len(arm), "sum_y": int(y.sum()), "sum_y2": int((y * y).sum()), "sum_x": int(x.sum()),
        "sum_x2": int((x * x).sum()), "sum_xy": int((x * y).sum()),
        "points_redeemed": int(arm["points_redeemed"].sum()),
    }  # fmt: skip


def _welch(treated: Any, control: Any) -> dict[str, float]:
    found = stats.ttest_ind(treated, control, equal_var=False)
    bounds = found.confidence_interval(0.95)
    return {
        "difference": float(treated.mean() - control.mean()),
        "se": float(np.sqrt(treated.var(ddof=1) / len(treated) + control.var(ddof=1) / len(control))),
        "df": float(found.df), "low": float(bounds.low), "high": float(bounds.high), "t": float(found.statistic),
        "p": float(found.pvalue),
    }  # fmt: skip


def _srm(treated: int, control: int) -> dict[str, Any]:
    found, total = stats.chisquare([treated, control]), treated + control
    half = CONCENTRATION / 2
    factor = gammaln(CONCENTRATION) - gammaln(CONCENTRATION + total) + total * log(2)
    factor += sum(gammaln(half + count) - gammaln(half) for count in (treated, control))
    return {
        "chi2": float(found.statistic), "df": 1, "p": float(found.pvalue), "alarm": bool(found.pvalue < 0.001),
        "deviation_points": 100 * treated / total - 50, "p_every_look": float(min(1.0, np.exp(-factor))),
    }  # fmt: skip


def _lift(treated: Any, control: Any) -> dict[str, float]:
    mean_t, mean_c = treated.mean(), control.mean()
    variance = control.var(ddof=1) * mean_t**2 / (mean_c**4 * len(control))
    variance += treated.var(ddof=1) / (mean_c**2 * len(treated))
    low, high = stats.norm.interval(0.95, loc=mean_t / mean_c - 1, scale=np.sqrt(variance))
    return {"lift": mean_t / mean_c - 1, "se": float(np.sqrt(variance)), "low": float(low), "high": float(high)}


def _always_valid(effect: dict[str, float], treated: int, control: int) -> dict[str, float] | None:
    """Return the interval of a first look, whose scale is its own."""
    if min(treated, control) < FIRST_LOOK:
        return None
    n = treated + control
    scale, alpha = n * effect["se"] ** 2, 0.05
    rho = PLANNED * scale / (2 * log(1 / alpha) + log(1 + 2 * log(1 / alpha)))
    half = float(np.sqrt((scale * n + rho) * log((scale * n + rho) / (rho * alpha**2))) / n)
    return {
        "planned": PLANNED, "half_width": half, "low": effect["difference"] - half,
        "high": effect["difference"] + half,
    }  # fmt: skip
