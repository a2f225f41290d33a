"""Estimate which part of a month's points will be redeemed from what was redeemed of earlier months, age by age.

Points are whole numbers, rates are floats. A *vintage* is all that was granted in one month; its age counts calendar
months, 0 in the month itself. Sources: Gault, Llaguno and Ménard, Loyalty Rewards and Gift Card Programs (CAS);
Bornhuetter and Ferguson 1972.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Vintage:
    """Hold a month's grants: the points earned, those outstanding, and those redeemed up to each whole age."""

    name: str
    earned: int
    outstanding: int
    redeemed_by_age: tuple[int, ...]
    """Cumulative; the last entry is the oldest age that is over."""

    @property
    def redeemed(self) -> int:
        """Return the points redeemed so far."""
        return self.redeemed_by_age[-1] if self.redeemed_by_age else 0


class FactorSums(NamedTuple):
    """Hold the two sums of a factor, over the vintages that have both ages."""

    later: int
    """Σ of the points redeemed up to the next age."""

    earlier: int
    """Σ of those redeemed up to this age."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Hold a chain ladder: the factor from each age to the next, and by vintage what follows from them."""

    factors: tuple[float, ...]
    factor_sums: tuple[FactorSums, ...]
    development: Mapping[str, float]
    """The product of the factors that a vintage has still before it."""

    ultimate: Mapping[str, float]
    """The points that will have been redeemed of a vintage in the end."""


def chain_ladder(vintages: Sequence[Vintage]) -> Ladder:
    """Return the chain ladder of method M2; a factor with a base of 0 is 1."""
    ages = max((len(vintage.redeemed_by_age) for vintage in vintages), default=0)
    sums = []
    for age in range(ages - 1):
        both = [vintage.redeemed_by_age for vintage in vintages if len(vintage.redeemed_by_age) > age + 1]
        sums.append(FactorSums(later=sum(row[age + 1] for row in both), earlier=sum(row[age] for row in both)))
    factors = tuple(each.later / each.earlier if each.earlier else 1.0 for each in sums)

    # from the oldest age back, so that each product is the one before it times one factor
    ahead = [1.0]
    for factor in reversed(factors):
        ahead.append(ahead[-1] * factor)
    development = {vintage.name: ahead[max(1, ages) - max(1, len(vintage.redeemed_by_age))] for vintage in vintages}
    ultimate = {vintage.name: vintage.redeemed * development[vintage.name] for vintage in vintages}
    return Ladder(factors, tuple(sums), development, ultimate)


def bornhuetter_ferguson(vintage: Vintage, development: float, rate: float) -> float:
    """Return the points that method M4 expects to be redeemed of a vintage in the end.

    Args:
        vintage: with the points redeemed so far.
        development: of the vintage, from the chain ladder; at 0, a vintage that lost all it had, nothing is known yet.
        rate: rho, the rate that is expected beforehand.
    """
    still_to_come = 1 - 1 / development if development else 1.0
    return vintage.redeemed + vintage.earned * rate * still_to_come


def expected_redemptions(vintages: Sequence[Vintage], ultimate: Mapping[str, float]) -> float:
    """Return the points outstanding that will be redeemed, by the points `ultimate` expects of each vintage in the end.

    Only vintages with something outstanding count, and none less than nothing.
    """
    return sum(max(0.0, ultimate[each.name] - each.redeemed) for each in vintages if each.outstanding)
