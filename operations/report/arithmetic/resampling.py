"""Say how far estimates of method M3 may be off, by drawing members many times out of those there are.

Points of one member leave together, so members are what is drawn, and never points: an interval from points alone would
be far too narrow. Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from operations.report.arithmetic.lot_hazards import Leaving

REPLICATES = 1_000
LEVEL = 0.95
SEED = 16
"""Where the draws begin: the same members give the same interval, whenever it is asked for."""

GROUPS_MIN = 30
"""The least groups with points; the spread among fewer says too little."""


class Interval(NamedTuple):
    """Hold the bounds between which an estimate lies in `LEVEL` of all replicates."""

    low: float
    high: float


class Intervals(NamedTuple):
    """Hold the intervals of what method M3 says."""

    groups: int
    rate: Interval
    expected: Interval


def intervals(groups: Sequence[Sequence[Leaving]], outstanding: Mapping[int, int]) -> Intervals | None:
    """Return the intervals of the rate and of the expected redemptions; None with fewer than `GROUPS_MIN` groups.

    Args:
        groups: how points left, by age, of each member or of each group of members; all groups are alike by chance.
        outstanding: the points outstanding by the lots' age in days. They are known, and the same in each replicate.

    Raises:
        InputError: numpy is not installed.
    """
    if len(groups) < GROUPS_MIN:
        return None
    numpy = _numpy()

    # the points at risk, redeemed and gone, by group and age
    ages = max(len(rows) for rows in groups)
    at_risk, redeemed, gone = numpy.zeros((3, len(groups), ages))
    for group, rows in enumerate(groups):
        risk, red, exp, rev = numpy.array(rows, dtype=float).T
        at_risk[group, : len(rows)], redeemed[group, : len(rows)] = risk, red
        gone[group, : len(rows)] = red + exp + rev

    # each replicate takes every group as often as it was drawn; sums of whole numbers are exact in any order
    drawn = _drawn(numpy, len(groups))
    at_risk, redeemed, gone = drawn @ at_risk, drawn @ redeemed, drawn @ gone

    # the estimator of `lot_hazards`, over all replicates at once
    at_risk[at_risk == 0] = 1
    survival = numpy.ones((REPLICATES, ages + 1))
    cumulative = numpy.zeros((REPLICATES, ages + 1))
    numpy.cumprod(1 - gone / at_risk, axis=1, out=survival[:, 1:])
    numpy.cumsum(survival[:, :-1] * redeemed / at_risk, axis=1, out=cumulative[:, 1:])

    # what is left of a lot at the ages of those outstanding
    known = {age: points for age, points in outstanding.items() if age <= ages}
    here, there = cumulative[:, list(known)], survival[:, list(known)]
    still = numpy.divide(cumulative[:, -1:] - here, there, out=numpy.zeros_like(here), where=there > 0)
    expected = (still * numpy.array(list(known.values()), dtype=float)).sum(axis=1)
    return Intervals(len(groups), _middle(cumulative[:, -1]), _middle(expected))


def _numpy() -> Any:
    try:
        import numpy  # noqa: ICN001, PLC0415  an extra: only intervals and fits need it
    except ImportError:
        raise InputError("it needs numpy: pip install 'guerdon[analytics]'") from None
    return numpy


def _drawn(numpy: Any, groups: int) -> Any:
    """Return how often each group was drawn, by replicate; numpy promises the raw numbers of PCG64 for all releases."""
    numbers = numpy.random.PCG64(SEED).random_raw(REPLICATES * groups) % numpy.uint64(groups)
    cells = numpy.repeat(numpy.arange(REPLICATES) * groups, groups) + numbers.astype(int)
    return numpy.bincount(cells, minlength=REPLICATES * groups).reshape(REPLICATES, groups).astype(float)


def _middle(estimates: Any) -> Interval:
    """Return the interval that leaves out as many replicates below as above."""
    outside = round(REPLICATES * (1 - LEVEL) / 2)
    ordered = sorted(estimates.tolist())
    return Interval(ordered[outside - 1], ordered[-outside])
