"""Compare two arms at one look: difference, lift, and the difference with the time before taken out.

Sources: Welch 1947; Fieller 1954; Deng et al., Improving the Sensitivity of Online Controlled Experiments, WSDM 2013
(CUPED); Holm 1979. Amounts are in the units of the arms' sums.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from operations.report.arithmetic.distributions import normal_quantile, t_quantile, t_sf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operations.report.arithmetic.arms import Arm

_Name = TypeVar("_Name")

ALPHA = 0.05

MEMBERS_MIN = 2
"""The members that each arm must have: one alone has no variance."""


class Effect(NamedTuple):
    """Say by how much the treated differ from the controls; low and high bound the interval that holds at one look.

    Without any variance there is no interval and no test: their fields are None.
    """

    difference: float
    se: float
    df: float | None
    low: float | None
    high: float | None
    t: float | None
    p: float | None


class _Mean(NamedTuple):
    """Hold the variance of one arm's mean, and the arm's members."""

    variance: float
    n: int


def welch(treated: Arm, control: Arm, alpha: float = ALPHA) -> Effect | None:
    """Return the difference of the means by Welch's test; None where an arm has fewer than two members."""
    if min(treated.n, control.n) < MEMBERS_MIN:
        return None
    difference = treated.mean_y - control.mean_y
    return _effect(difference, [_Mean(arm.var_y() / arm.n, arm.n) for arm in (treated, control)], alpha)


def _effect(difference: float, means: list[_Mean], alpha: float) -> Effect:
    variance = sum(mean.variance for mean in means)
    if not variance:
        return Effect(difference, 0.0, None, None, None, None, None)

    # the shares keep the squares of tiny variances from vanishing
    df = 1 / sum((mean.variance / variance) ** 2 / (mean.n - 1) for mean in means)
    se = sqrt(variance)
    half, t = t_quantile(1 - alpha / 2, df) * se, difference / se
    return Effect(difference, se, df, difference - half, difference + half, t, 2 * t_sf(abs(t), df))


class Lift(NamedTuple):
    """Say by which part of the controls' mean the treated differ."""

    lift: float
    se: float
    low: float
    high: float


def lift(treated: Arm, control: Arm, alpha: float = ALPHA) -> Lift | None:
    """Return the relative difference by the delta method.

    None where an arm has fewer than two members, where the controls' mean is not above 0, or without any variance.
    """
    if min(treated.n, control.n) < MEMBERS_MIN or control.mean_y <= 0:
        return None
    ratio = treated.mean_y / control.mean_y
    part_t, part_c = treated.var_y() / treated.n, control.var_y() / control.n
    se = sqrt(part_t + ratio * ratio * part_c) / control.mean_y
    if not se:
        return None
    half = normal_quantile(1 - alpha / 2) * se
    return Lift(ratio - 1, se, ratio - 1 - half, ratio - 1 + half)


class Cuped(NamedTuple):
    """Say the effect once `theta` times each member's metric before, less its mean, is taken out."""

    theta: float
    effect: Effect


def cuped(treated: Arm, control: Arm, alpha: float = ALPHA) -> Cuped | None:
    """Return the effect less what the metric before explains; None where an arm has fewer than two members.

    `theta` is the covariance within the arms over the variance within them, 0 without variance.
    """
    arms = (treated, control)
    if min(arm.n for arm in arms) < MEMBERS_MIN:
        return None

    within_var = sum(arm.var_x() * (arm.n - 1) for arm in arms)
    theta = sum(arm.cov() * (arm.n - 1) for arm in arms) / within_var if within_var else 0.0

    difference = treated.mean_y - control.mean_y - theta * (treated.mean_x - control.mean_x)
    variances = [max(0.0, arm.var_y() - 2 * theta * arm.cov() + theta**2 * arm.var_x()) for arm in arms]
    means = [_Mean(variance / arm.n, arm.n) for variance, arm in zip(variances, arms, strict=True)]
    return Cuped(theta, _effect(difference, means, alpha))


def compare_ratios(treated: Arm, control: Arm, alpha: float = ALPHA) -> Effect | None:
    """Return the difference of Σy ÷ Σx between the arms by the delta method, such as of the mean amount of orders.

    None where an arm has fewer than two members, or Σx is 0 in one of them.
    """
    arms = (treated, control)
    if min(arm.n for arm in arms) < MEMBERS_MIN or not all(arm.sum_x for arm in arms):
        return None

    means = []
    for arm in arms:
        ratio = arm.sum_y / arm.sum_x
        spread = max(0.0, arm.var_y() - 2 * ratio * arm.cov() + ratio**2 * arm.var_x())
        means.append(_Mean(spread / (arm.n * arm.mean_x**2), arm.n))
    return _effect(treated.sum_y / treated.sum_x - control.sum_y / control.sum_x, means, alpha)


class Interval(NamedTuple):
    """Hold the bounds of a number at one look."""

    low: float
    high: float


def fieller(treated: Arm, control: Arm, alpha: float = ALPHA) -> Interval | None:
    """Return the interval of (difference of the means of y) ÷ (mean of x among the treated) by Fieller's method.

    It holds the ratios r for which Welch's test finds no difference between y - r x of the treated and y of the
    controls; Student's t has the degrees of freedom of that test at the ratio itself. None where an arm has fewer than
    two members, without any variance, and where the mean of x may be 0, so that the ratio has no bounds.
    """
    if min(treated.n, control.n) < MEMBERS_MIN or not treated.sum_x:
        return None
    difference, mean_x = treated.mean_y - control.mean_y, treated.mean_x
    ratio = difference / mean_x
    spread = max(0.0, treated.var_y() - 2 * ratio * treated.cov() + ratio**2 * treated.var_x())
    test = _effect(0.0, [_Mean(spread / treated.n, treated.n), _Mean(control.var_y() / control.n, control.n)], alpha)
    if test.high is None:
        return None

    # the ratios lie between the roots of a parabola, which opens upwards where x is known to have a mean
    square = (test.high / test.se) ** 2
    opening = mean_x**2 - square * treated.var_x() / treated.n
    if opening <= 0:
        return None
    middle = (difference * mean_x - square * treated.cov() / treated.n) / opening
    least = (difference**2 - square * (treated.var_y() / treated.n + control.var_y() / control.n)) / opening
    half = sqrt(max(0.0, middle**2 - least))
    return Interval(middle - half, middle + half)


def holm(p_values: Mapping[_Name, float]) -> dict[_Name, float]:
    """Return each p adjusted for their number by Holm's method: at most one false alarm in 1/alpha sets of tests."""
    adjusted: dict[_Name, float] = {}
    highest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda each: each[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = highest
    return adjusted
