"""Estimate how many points will be redeemed, and what sales defer, lot by lot with pandas."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from tests.insight.points import chain_ladder, lots, redemption

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.insight.frames import Frames
    from tests.insight.orders import Orders

COST, PRICE = 1, 2
"""Of a point, in cents."""

REPLICATES = 200


class Leaving(NamedTuple):
    """Hold a row for each way in which points of a lot left for good, and one for each lot with some outstanding."""

    left: pd.DataFrame
    outstanding: pd.DataFrame


class Curve(NamedTuple):
    """Hold by age in days what is still there, and what is redeemed, of a lot of 1; the first entry is of age 0."""

    survival: np.ndarray
    redeemed: np.ndarray

    def still(self, age: pd.Series) -> pd.Series:
        """Return the part that will be redeemed of what is left at an age; 0 beyond the last one."""
        last = len(self.survival) - 1
        at = age.clip(upper=last).to_numpy()
        there = self.survival[at]
        part = np.where(there > 0, (self.redeemed[-1] - self.redeemed[at]) / np.where(there > 0, there, 1), 0)
        return pd.Series(np.where(age > last, 0, part), index=age.index)


def leaving(frames: Frames) -> Leaving:
    """Return how the points of each lot left: a restore undoes the latest capture, a reversal the latest expiry."""
    table = lots(frames)
    moves = frames.points[~frames.points["debit"].isin(["issued", "debt"]) & frames.points["lot"].isin(table.index)]
    moves = moves[~moves["credit"].isin(["active", "pending", "reserved"]) | moves["debit"].eq("spent")]
    age = (moves["day"] - moves["lot"].map(table["day"])).dt.days.clip(lower=0)
    way = moves["credit"].where(moves["credit"].isin(["spent", "expired"]), "gone")
    moves = moves.assign(age=age, way=way).sort_values(["shard", "pos"])

    # lots of which nothing came back need no second look
    came_back = moves["lot"].isin(moves[moves["debit"].isin(["spent", "expired"])]["lot"])
    of_lots = groupby(moves[came_back].sort_values(["lot", "pos"]).itertuples(), attrgetter("lot"))
    followed = [row for lot, of_lot in of_lots for row in _followed(lot, of_lot)]
    columns = ["lot", "way", "age", "amount"]
    left = pd.concat([moves[~came_back][columns], pd.DataFrame(followed, columns=columns)]).astype({"age": int})
    left["member_id"] = left["lot"].map(table["member_id"])

    still = table[table["outstanding"] > 0].rename(columns={"outstanding": "amount"})
    still = still.assign(age=(frames.cut - still["day"]).dt.days)
    return Leaving(left, still[["member_id", "month", "age", "amount"]])


def _followed(lot: str, moves: Iterable[Any]) -> Iterator[tuple[str, str, int, int]]:
    """Yield how the points of a lot left for good: the lot, the way, the age and the points."""
    stacks: dict[str, list[list[int]]] = {"spent": [], "expired": [], "gone": []}
    for move in moves:
        if move.debit not in ("spent", "expired"):
            stacks[move.way].append([move.age, move.amount])
            continue

        # undo the latest ones; what had lapsed is then reversed at the age at which it lapsed
        amount, stack = move.amount, stacks[move.debit]
        while amount:
            part = min(amount, stack[-1][1])
            stack[-1][1] -= part
            if move.debit == "expired":
                stacks["gone"].append([stack[-1][0], part])
            if not stack[-1][1]:
                stack.pop()
            amount -= part
    for way, stack in stacks.items():
        for age, amount in stack:
            yield lot, way, age, amount


def curve(left: pd.DataFrame, outstanding: pd.DataFrame) -> Curve:
    """Return the curves by age; what is outstanding was at risk at every age that it has passed."""
    ages = int(max(left["age"].max(), outstanding["age"].max() - 1)) + 1
    by_way = {way: np.bincount(rows["age"], rows["amount"], ages) for way, rows in left.groupby("way")}
    gone = sum(by_way.values(), np.zeros(ages))
    lasted = np.bincount(outstanding["age"] - 1, outstanding["amount"], ages)
    at_risk = (gone + lasted)[::-1].cumsum()[::-1]
    base = np.where(at_risk > 0, at_risk, 1)
    survival = np.concatenate([[1.0], np.cumprod(1 - gone / base)])
    return Curve(survival, np.concatenate([[0.0], np.cumsum(survival[:-1] * by_way["spent"] / base)]))


def methods(frames: Frames, lots_left: Leaving, alive: Mapping[str, float]) -> dict[str, Any]:
    """Return what each method says; `alive` is each buyer's probability to buy again."""
    vintages = redemption(frames)["vintages"]
    frame = pd.DataFrame(
        {name: {key: row[key] for key in ("earned", "redeemed", "outstanding")} for name, row in vintages.items()}
    ).T
    closed, still_open = frame[frame["outstanding"] == 0], frame[frame["outstanding"] > 0]
    rate = closed["redeemed"].sum() / closed["earned"].sum()

    # by vintages: M1, the chain ladder, and the rate of M1 for what is still to come
    ladder = chain_ladder(frames)
    later = {name: row["redeemed_by_age"] for name, row in vintages.items()}
    development = {name: np.prod(ladder["factors"][max(len(row), 1) - 1 :]) for name, row in later.items()}
    counted = {name: row[-1] if row else 0 for name, row in later.items()}
    ultimate: dict[str, dict[str, float]] = {"M2": {}, "M4": {}}
    for name, row in vintages.items():
        ultimate["M2"][name] = counted[name] * development[name]
        ultimate["M4"][name] = counted[name] + row["earned"] * rate * (1 - 1 / development[name])
    expected = {"M1": float((rate * still_open["earned"] - still_open["redeemed"]).clip(lower=0).sum())}
    for method, values in ultimate.items():
        expected[method] = float((pd.Series(values)[still_open.index] - still_open["redeemed"]).clip(lower=0).sum())

    # by lots: M3, and M5 for members who may have left
    left, outstanding = lots_left
    curves = curve(left, outstanding)
    parts = curves.still(outstanding["age"]) * outstanding["amount"]
    expected["M3"] = float(parts.sum())
    expected["M5"] = float((parts * outstanding["member_id"].map(alive).fillna(1.0)).sum())
    by_way = left.groupby("way")["amount"].sum()
    earned = frame["earned"].sum()
    return {
        "M1": {"closed_vintages": len(closed), "urr": float(rate)},
        "M3": {
            "ages": len(curves.survival) - 1, "at_risk_0": int(left["amount"].sum() + outstanding["amount"].sum()),
            "left_by": {"red": int(by_way["spent"]), "exp": int(by_way["expired"]), "rev": int(by_way["gone"])},
            "ultimate_redemption_rate": float(curves.redeemed[-1]), "expected_redemptions": expected["M3"],
            "urr_of_outstanding": expected["M3"] / int(outstanding["amount"].sum()),
        },
        "M4": {"rho_0": float(rate), "rho_0_of": "M1"},
        "urr": {
            "M1": float(rate), "M2": sum(ultimate["M2"].values()) / earned, "M3": float(curves.redeemed[-1]),
            "M4": sum(ultimate["M4"].values()) / earned, "M5": (frame["redeemed"].sum() + expected["M5"]) / earned,
        },
        "expected_redemptions": expected,
        "liability_at_cost": {name: points * COST for name, points in expected.items()}
        | {"face": float(outstanding["amount"].sum() * COST)},
    }  # fmt: skip


def interval(lots_left: Leaving) -> dict[str, tuple[float, float]]:
    """Return the interval of M3 from draws of members, each alone, by another generator than the report's."""
    left, outstanding = lots_left
    names = pd.Index(sorted({*left["member_id"], *outstanding["member_id"]}))
    chance = np.random.default_rng(1)
    rates, expected = [], []
    for _ in range(REPLICATES):
        times = np.bincount(chance.integers(0, len(names), len(names)), minlength=len(names))
        drawn = curve(*(rows.assign(amount=rows["amount"] * times[names.get_indexer(rows["member_id"])])
                        for rows in (left, outstanding)))  # fmt: skip
        rates.append(drawn.redeemed[-1])
        expected.append(float((drawn.still(outstanding["age"]) * outstanding["amount"]).sum()))
    return {
        "urr": tuple(np.quantile(rates, [0.025, 0.975])),
        "expected_redemptions": tuple(np.quantile(expected, [0.025, 0.975])),
    }


def deferral(frames: Frames, lots_left: Leaving, orders: Orders) -> dict[str, Any]:
    """Return the net of orders that brought points, by month, and which part of it belongs to the points."""
    bought, table = orders.orders.set_index("event_id"), lots(frames)
    granted = frames.points[frames.points["type"].eq("points.granted")].set_index("lot")
    table["event_id"] = granted["event_id"]
    sold = table[table["event_id"].isin(bought.index) & granted["event_id"].reindex(table.index).notna()]
    curves = curve(*lots_left)
    age = (frames.cut - sold["day"]).dt.days
    sold = sold.assign(still=curves.still(age) * sold["outstanding"], of=sold["event_id"].map(bought["month"]))
    rate, rows = float(curves.redeemed[-1]), {}
    for month in frames.months:
        own = sold[sold["of"].eq(month)]
        net = int(bought.loc[own["event_id"].unique()]["net"].sum())
        points = int(own["issued"].sum())
        alone = points * PRICE * rate
        deferred = round(net * alone / (net + alone)) if alone else 0
        redeemed, still = int(own["redeemed"].sum()), float(own["still"].sum())
        total = redeemed + round(still)
        recognised = deferred if redeemed >= total else int(deferred * redeemed / total + 0.5)
        rows[str(month)] = {
            "orders": own["event_id"].nunique(), "net": net, "points": points, "rate": rate, "goods": net - deferred,
            "deferred": deferred, "redeemed": redeemed, "expected_redemptions": still, "recognised": recognised,
            "liability": deferred - recognised,
        }  # fmt: skip
    sums = set(next(iter(rows.values()))) - {"rate"}
    return rows | {"all": {name: sum(row[name] for row in rows.values()) for name in sums}}
