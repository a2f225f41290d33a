"""Estimate by five methods how many of the points outstanding will be redeemed, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import fsum
from typing import TYPE_CHECKING, Any

from operations.report.arithmetic import reserving
from operations.report.arithmetic.lot_hazards import hazards
from operations.report.arithmetic.resampling import GROUPS_MIN, LEVEL, REPLICATES, intervals
from operations.report.liability import activity
from operations.report.liability.lot_ages import EXPIRED, REDEEMED, REVERSED, lot_ages, together
from operations.report.money import cost_of
from operations.report.periods import Every, name_of
from operations.report.redemption.vintages import run_off, vintage_cells, vintages, whole_until
from operations.report.split import UNKNOWN
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction

    from operations.report.arithmetic.lot_hazards import Hazards, Leaving
    from operations.report.arithmetic.resampling import Intervals
    from operations.report.arithmetic.reserving import Ladder
    from operations.report.frame import Frame
    from operations.report.liability.lot_ages import LotAges
    from operations.report.redemption.vintages import Vintage

METHODS = ("M1", "M2", "M3", "M4", "M5")
"""Run-off vintages, chain ladder, lot hazards, Bornhuetter-Ferguson, and lot hazards by members' activity."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold what a method says; None where it says nothing."""

    rate: float | None = None
    """The part of all points earned that will have been redeemed in the end."""

    expected: float | None = None
    """How many of the points outstanding will be redeemed."""

    workings: dict[str, Any] | None = None
    """The inputs and steps behind the numbers, as the report prints them."""

    intervals: Intervals | None = None
    """How far `rate` and `expected` may be off."""

    hazards: Hazards | None = None
    """How points leave their lots by age; of M3 alone."""


def estimates(of: Frame) -> dict[str, Estimate]:
    """Return what each method says of the points outstanding at the cut, as known."""
    known = vintages(vintage_cells(of, datetime.min.replace(tzinfo=UTC))).get(UNKNOWN, [])
    if not known:
        of.notes.append("no point was ever granted, so no method says anything of redemptions")
        return dict.fromkeys(METHODS, Estimate(workings={}))

    # with all that was redeemed by now, and by the months that are over
    at_once = [_vintage(each, (each.redeemed,)) for each in known]
    by_age = [_vintage(each, tuple(each.redeemed_by_age(whole_until(of)))) for each in known]

    # M1 and M3 say which rate M4 expects beforehand
    closed, groups = _run_off(known, at_once), lot_ages(of)
    ages = together(groups)
    leaving = ages.leaving()
    found = hazards(leaving)
    hazard = _lot_hazards(ages, leaving, found, _intervals(of, groups, ages))
    expected_rate, rate_of = (hazard.rate, "M3") if closed.rate is None else (closed.rate, "M1")
    of.notes.append(f"M4 expects the rate of {rate_of} beforehand (rho_0)")
    if closed.rate is None:
        of.notes.append("M1 says nothing: every month's points are still outstanding in part")

    ladder = reserving.chain_ladder(by_age)
    ultimate = {
        each.name: reserving.bornhuetter_ferguson(each, ladder.development[each.name], expected_rate or 0.0)
        for each in by_age
    }
    by_activity = activity.expected_redemptions(of, found)
    return {
        "M1": closed,
        "M2": Estimate(
            _rate(sum(ladder.ultimate.values()), at_once),
            reserving.expected_redemptions(at_once, ladder.ultimate),
            _ladder_workings(by_age, ladder, ultimate),
        ),
        "M3": hazard,
        "M4": Estimate(
            _rate(sum(ultimate.values()), at_once),
            reserving.expected_redemptions(at_once, ultimate),
            {"rho_0": expected_rate, "rho_0_of": rate_of},
        ),
        "M5": Estimate(
            None if by_activity is None else _rate(sum(each.redeemed for each in at_once) + by_activity, at_once),
            by_activity,
        ),
    }


def methods(said: dict[str, Estimate], outstanding: int, cost: Fraction | None) -> dict[str, Any]:
    """Return the estimates as the report prints them.

    Args:
        said: by each method.
        outstanding: points at the cut.
        cost: of a point, in minor units.
    """
    return {
        **{name: each.workings for name, each in said.items() if each.workings is not None},
        "urr": {name: each.rate for name, each in said.items()},
        "expected_redemptions": {name: each.expected for name, each in said.items()},
        "liability_at_cost": {
            **{name: cost_of(each.expected, cost) for name, each in said.items()},
            "face": cost_of(outstanding, cost),
        },
        # what each percentage point of the rate is worth, over all that is outstanding
        "one_point": {
            "expected_redemptions": outstanding / 100,
            "liability_at_cost": cost_of(outstanding / 100, cost),
        },
        "interval": {name: _interval(each.intervals, cost) for name, each in said.items() if each.intervals},
    }


def _interval(found: Intervals, cost: Fraction | None) -> dict[str, Any]:
    """Return between which numbers a method's estimates lie, as the report prints it."""
    return {
        "level": LEVEL,
        "replicates": REPLICATES,
        "groups": found.groups,
        "urr": found.rate._asdict(),
        "expected_redemptions": found.expected._asdict(),
        "liability_at_cost": {bound: cost_of(points, cost) for bound, points in found.expected._asdict().items()},
    }


def _vintage(known: Vintage, redeemed_by_age: tuple[int, ...]) -> reserving.Vintage:
    name = name_of(Every.MONTH, known.month)
    return reserving.Vintage(name, known.earned, known.outstanding, redeemed_by_age)


def _rate(redeemed: float, known: Sequence[reserving.Vintage]) -> float | None:
    earned = sum(each.earned for each in known)
    return redeemed / earned if earned else None


def _run_off(known: Sequence[Vintage], at_once: Sequence[reserving.Vintage]) -> Estimate:
    """M1: the others will be redeemed as the vintages with nothing outstanding were."""
    closed = run_off(known)
    if closed.rate is None:
        return Estimate(workings={"closed_vintages": closed.vintages, "urr": None})
    rate = float(closed.rate)
    ultimate = {each.name: rate * each.earned for each in at_once}
    workings = {"closed_vintages": closed.vintages, "urr": rate}
    return Estimate(rate, reserving.expected_redemptions(at_once, ultimate), workings)


def _ladder_workings(
    by_age: Sequence[reserving.Vintage], ladder: Ladder, ultimate_m4: Mapping[str, float]
) -> dict[str, Any]:
    """M2: a vintage goes on as older ones went on at its age."""
    return {
        "factors": list(ladder.factors),
        "factor_sums": [[each.later, each.earlier] for each in ladder.factor_sums],
        "rows": {
            each.name: {
                "redeemed": each.redeemed,
                "earned": each.earned,
                "development": ladder.development[each.name],
                "ultimate": ladder.ultimate[each.name],
                "urr": ladder.ultimate[each.name] / each.earned if each.earned else None,
                "ultimate_m4": ultimate_m4[each.name],
                "redeemed_by_age": list(each.redeemed_by_age),
            }
            for each in by_age
        },
    }


def _intervals(of: Frame, groups: Sequence[LotAges], ages: LotAges) -> Intervals | None:
    """Return how far M3 may be off; None, with a note, from rollups, without numpy, or with too few members."""
    if of.rolled:
        of.notes.append(
            "M3 has no interval, as sums by days know no member; with an instant within a day as --known-at it has one"
        )
        return None
    try:
        found = intervals([group.leaving() for group in groups], ages.outstanding)
    except InputError as error:
        of.notes.append(f"M3 has no interval: {error}")
        return None
    if found is None:
        of.notes.append(f"M3 has no interval: fewer than {GROUPS_MIN} members have had points")
    return found


def _lot_hazards(ages: LotAges, leaving: Sequence[Leaving], found: Hazards, intervals: Intervals | None) -> Estimate:
    """M3: a lot goes on as points of its age in days left before it, one way or the other."""
    outstanding = sum(ages.outstanding.values())
    # an exact sum does not depend on the order of rows, so the same question has the same answer to the last digit
    expected = fsum(points * found.still_redeemed(days) for days, points in ages.outstanding.items())
    rate = found.ultimate() if leaving else None
    return Estimate(
        rate,
        expected,
        {
            "ages": len(leaving),
            "at_risk_0": leaving[0].at_risk if leaving else 0,
            "left_by": {way: sum(ages.left[way].values()) for way in (REDEEMED, EXPIRED, REVERSED)},
            "ultimate_redemption_rate": rate,
            "expected_redemptions": expected,
            "urr_of_outstanding": expected / outstanding if outstanding else None,
        },
        intervals,
        found,
    )
