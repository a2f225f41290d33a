"""Compute how often and how much customers will buy by the published formulas, with scipy and over arrays."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import optimize
from scipy.special import betaln, gammaln, hyp2f1

if TYPE_CHECKING:
    from tests.insight.frames import Frames
    from tests.insight.orders import Orders

HOLDOUT = pd.Timedelta(weeks=13)


class Buying:
    """Compute what `clv_predicted` prints, where a model is given by its parameters."""

    def __init__(self, frames: Frames, orders: Orders) -> None:
        self.cut = frames.cut
        days = orders.orders.groupby(["member_id", "day"], as_index=False)["net"].sum()
        self.days = days[days["net"] > 0]
        self.histories = cache(self._histories)  # a search asks thousands of times

    def _histories(self, until: pd.Timestamp) -> pd.DataFrame:
        """Return a row a member: the days with orders less one, and in weeks the time of the last one and the age."""
        days = self.days[self.days["day"] < until].groupby("member_id")["day"].agg(["min", "max", "count"])
        week = pd.Timedelta(weeks=1)
        return pd.DataFrame(
            {"x": days["count"] - 1, "t_x": (days["max"] - days["min"]) / week, "age": (until - days["min"]) / week}
        )

    def counts(self) -> dict[str, int]:
        """Return the sums over all members, in days."""
        known = self.histories(self.cut)
        return {
            "members": len(known), "repeat_days": int(known["x"].sum()),
            "sum_tx_days": round(7 * known["t_x"].sum()), "sum_T_days": round(7 * known["age"].sum()),
        }  # fmt: skip

    def likelihood(self, parameters: Any, until: pd.Timestamp) -> float:
        """Return the logarithm of the likelihood of all histories up to a day under r, alpha, a and b."""
        r, alpha, a, b = parameters
        known = self.histories(until)
        x, t_x, age = (known[name].to_numpy(dtype=float) for name in ("x", "t_x", "age"))
        common = gammaln(r + x) - gammaln(r) + r * np.log(alpha) - betaln(a, b)
        stays = betaln(a, b + x) - (r + x) * np.log(alpha + age)
        leaves = np.full(len(x), -np.inf)
        came = x > 0
        leaves[came] = betaln(a + 1, b + x[came] - 1) - (r + x[came]) * np.log(alpha + t_x[came])
        return float((common + np.logaddexp(stays, leaves)).sum())

    def likeliest(self, start: Any, until: pd.Timestamp) -> Any:
        """Return the parameters of the greatest likelihood that a search from `start` finds."""
        found = optimize.minimize(
            lambda each: -self.likelihood(np.exp(each), until), np.log(start), method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-7, "maxiter": 4_000},
        )  # fmt: skip
        return np.exp(found.x)

    def alive(self, parameters: Any, until: pd.Timestamp) -> pd.Series:
        """Return each member's probability to buy again."""
        r, alpha, a, b = parameters
        known = self.histories(until)
        x = known["x"]
        odds = a / (b + x - 1).where(x > 0, 1) * ((alpha + known["age"]) / (alpha + known["t_x"])) ** (r + x)
        return (1 / (1 + odds)).where(x > 0, 1.0)

    def held_out(self, parameters: Any) -> dict[str, Any]:
        """Return the last quarter: what came, what a model of all before it expects, and the mean errors."""
        until = self.cut - HOLDOUT
        known, (r, alpha, a, b), ahead = self.histories(until), parameters, 13.0
        x, age = known["x"], known["age"]
        shrunk = ((alpha + age) / (alpha + age + ahead)) ** (r + x)
        series = hyp2f1(r + x, b + x, a + b + x - 1, ahead / (alpha + age + ahead))
        expected = (a + b + x - 1) / (a - 1) * (1 - shrunk * series) * self.alive(parameters, until)

        day = self.days["day"]
        came = self.days[day >= until].groupby("member_id").size().reindex(known.index, fill_value=0)
        quarter_before = (day >= until - HOLDOUT) & (day < until)
        before = self.days[quarter_before].groupby("member_id").size().reindex(known.index, fill_value=0)
        return {
            "holdout_days_actual": int(came.sum()), "holdout_days_expected": float(expected.sum()),
            "mae_model": float((expected - came).abs().mean()), "mae_naive": float((before - came).abs().mean()),
        }  # fmt: skip

    def spending(self, p: float, q: float, gamma: float) -> dict[str, Any]:
        """Return what Gamma-Gamma says with these parameters of the days after each member's first."""
        days = self.days.sort_values("day")
        later = days[days.duplicated("member_id")].groupby("member_id")["net"].agg(["count", "mean"])
        x, mean = later["count"].to_numpy(dtype=float), later["mean"].to_numpy() / 100
        likelihoods = (
            gammaln(p * x + q) - gammaln(p * x) - gammaln(q) + q * np.log(gamma) + (p * x - 1) * np.log(mean)
            + p * x * np.log(x) - (p * x + q) * np.log(gamma + x * mean)
        )  # fmt: skip
        correlation = float(np.corrcoef(x, mean)[0, 1])
        return {
            "gg_log_likelihood": float(likelihoods.sum()), "gg_mean": p * gamma / (q - 1),
            "expected_order_mean": float((p * (gamma + x * mean) / (p * x + q - 1)).mean()),
            "corr_x_m": correlation, "corr_ok": abs(correlation) < 0.3,
        }  # fmt: skip
