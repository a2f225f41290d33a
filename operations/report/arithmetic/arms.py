"""Sum up the arms of an experiment, and check that they have the sizes that the split intends.

Sources: Fabijan et al., Diagnosing Sample Ratio Mismatch, KDD 2019; Lindon and Malek, Anytime-Valid Inference for
Multinomial Count Data, NeurIPS 2022 (the check that holds at every look).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from typing import TYPE_CHECKING, NamedTuple

from operations.report.arithmetic.distributions import chi2_sf

if TYPE_CHECKING:
    from collections.abc import Sequence

SRM_ALARM_P = 0.001
"""The p below which a split has gone wrong; at 0.05 half of all alarms would be false."""

SRM_CONCENTRATION = 10_000
"""How closely the check of every look expects shares around the intended ones: as closely as 10,000 members show."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Hold the sums of one arm over its members: `y` is the metric since they entered, `x` the same before.

    Sums are whole minor units where they come from money, so that the variance is exact up to its last division.
    """

    n: int
    sum_y: float
    sum_y2: float
    sum_x: float = 0
    sum_x2: float = 0
    sum_xy: float = 0

    @property
    def mean_y(self) -> float:
        """Return the mean of the metric; for an arm with members."""
        return self.sum_y / self.n

    @property
    def mean_x(self) -> float:
        """Return the mean of the metric before; for an arm with members."""
        return self.sum_x / self.n

    def var_y(self) -> float:
        """Return the sample variance of the metric; for an arm of two members and more."""
        return max(0.0, (self.n * self.sum_y2 - self.sum_y * self.sum_y) / (self.n * (self.n - 1)))

    def var_x(self) -> float:
        """Return the sample variance of the metric before; for an arm of two members and more."""
        return max(0.0, (self.n * self.sum_x2 - self.sum_x * self.sum_x) / (self.n * (self.n - 1)))

    def cov(self) -> float:
        """Return the sample covariance of both; for an arm of two members and more."""
        return (self.n * self.sum_xy - self.sum_x * self.sum_y) / (self.n * (self.n - 1))


class Srm(NamedTuple):
    """Say whether the arms have the sizes that the split intends."""

    chi2: float | None
    """None where an arm of weight 0 has members, as the sum has no bound."""

    df: int
    p: float
    alarm: bool
    deviation_points: float
    """The treated arm's share less the intended one, in points of 100."""

    p_every_look: float
    """A p that holds however often one looks: the chance that it is ever below 0.001 without a fault is 0.001."""


def srm(counts: Sequence[int], weights: Sequence[float]) -> Srm | None:
    """Compare the arms' sizes with the intended weights, the treated arm first; None where nobody has entered.

    An arm of weight 0 with members is a leak, and an alarm at once.
    """
    total, weight = sum(counts), sum(weights)
    if not total:
        return None

    df = len(counts) - 1
    deviation = 100 * (counts[0] / total - weights[0] / weight)
    pairs = [(count, share / weight) for count, share in zip(counts, weights, strict=True) if share]
    if sum(count for count, _ in pairs) < total:
        return Srm(None, df, 0.0, alarm=True, deviation_points=deviation, p_every_look=0.0)

    chi2 = sum((count - total * share) ** 2 / (total * share) for count, share in pairs)
    p = chi2_sf(chi2, df)
    return Srm(chi2, df, p, p < SRM_ALARM_P, deviation, _p_every_look(pairs))


def _p_every_look(pairs: Sequence[tuple[int, float]]) -> float:
    """Return 1 ÷ the Bayes factor of shares drawn around the intended ones against exactly these, at most 1.

    The factor is a martingale where the split is as intended: it ever exceeds 1,000 with a chance of 1 in 1,000.
    """
    total = sum(count for count, _ in pairs)
    factor = lgamma(SRM_CONCENTRATION) - lgamma(SRM_CONCENTRATION + total)
    for count, share in pairs:
        prior = SRM_CONCENTRATION * share
        factor += lgamma(prior + count) - lgamma(prior) - count * log(share)
    return exp(-max(0.0, factor))
