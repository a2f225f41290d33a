"""Estimate which part of a lot will be redeemed from how lots left at each age: method M3, competing risks.

Points are whole numbers, ages are whole days. Source: the estimator of Aalen and Johansen 1978, with points as units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Leaving(NamedTuple):
    """Hold the points of one age: those still there when it begins, and those that leave in it, by the way out."""

    at_risk: int
    redeemed: int
    expired: int
    reversed: int


@dataclass(frozen=True, slots=True)
class Hazards:
    """Hold what follows from the ages.

    Entry `a` is of the time before age `a`, so there is one entry more than there are ages.
    """

    survival: tuple[float, ...]
    """The part of a lot that is still there."""

    cumulative: tuple[float, ...]
    """The part of a lot that is redeemed."""

    def ultimate(self) -> float:
        """Return the part of a fresh lot that will be redeemed."""
        return self.cumulative[-1]

    def still_redeemed(self, age: int) -> float:
        """Return the part that will be redeemed of what is left of a lot at an age.

        It is 0 from the age on at which no lot was ever seen.
        """
        if age >= len(self.survival) or self.survival[age] <= 0:
            return 0.0
        return (self.cumulative[-1] - self.cumulative[age]) / self.survival[age]


def hazards(ages: Sequence[Leaving]) -> Hazards:
    """Return survival and redemption from the points at each age, 0 first; an age without points changes nothing."""
    survival, cumulative = [1.0], [0.0]
    for points in ages:
        there = survival[-1]
        if points.at_risk:
            gone = points.redeemed + points.expired + points.reversed
            cumulative.append(cumulative[-1] + there * points.redeemed / points.at_risk)
            survival.append(max(0.0, there * (points.at_risk - gone) / points.at_risk))
        else:
            cumulative.append(cumulative[-1])
            survival.append(there)
    return Hazards(tuple(survival), tuple(cumulative))
