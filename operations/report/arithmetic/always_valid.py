"""Compute intervals that hold at every look, and how many members an experiment needs.

Sources: Howard et al., Time-uniform, nonparametric, nonasymptotic confidence sequences, arXiv 1810.08240; Waudby-Smith
et al., Time-uniform central limit theory, arXiv 2103.06476 (the mixing parameter). GrowthBook's page on sequential
testing prints rho + alpha² where rho * alpha² belongs, by which nine of ten experiments without effect would show one.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING

from operations.report.arithmetic.comparison import ALPHA
from operations.report.arithmetic.distributions import normal_quantile

if TYPE_CHECKING:
    from operations.report.arithmetic.comparison import Effect

POWER = 0.8


def scale_of(effect: Effect, members: int) -> float:
    """Return v, the variance of the difference times the members in both arms: it hardly changes as members come."""
    return effect.se**2 * members


def mixing_parameter(planned: int, scale: float, alpha: float = ALPHA) -> float:
    """Return rho of the interval that holds at every look and is tightest at `planned` members in both arms.

    Args:
        planned: members in both arms at which the experiment is to be decided.
        scale: `scale_of` at an early look, kept from then on: the interval holds for a rho that is chosen once.
        alpha: the chance that the interval ever misses the true difference.
    """
    evidence = 2 * log(1 / alpha)
    return planned * scale / (evidence + log(1 + evidence))


def half_width(scale: float, members: int, rho: float, alpha: float = ALPHA) -> float | None:
    """Return half the width of the interval around the difference that holds at every look; None without a rho above 0.

    Args:
        scale: `scale_of` at this look.
        members: in both arms at this look, at least 1.
        rho: `mixing_parameter`.
        alpha: the chance that the interval ever misses the true difference.
    """
    if rho <= 0:
        return None
    spread = scale * members + rho
    return sqrt(spread * log(spread / (rho * alpha**2))) / members


def members_needed(sigma: float, delta: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the members that each arm needs, so that a difference of `delta` is seen with a probability of `power`.

    `sigma` is the standard deviation of the metric among members. None where `delta` is 0.
    """
    if not delta:
        return None
    return ceil(2 * ((normal_quantile(1 - alpha / 2) + normal_quantile(power)) * sigma / delta) ** 2)


def difference_seen(sigma: float, members: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the least difference that two arms of `members` each show with a probability of `power`."""
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * sigma * sqrt(2 / members)
