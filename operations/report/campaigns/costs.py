"""Reckon what campaigns cost by what the programme says of costs; a cost that it does not say is None, and never 0."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from operations.report.money import cost_per_point
from operations.report.redemption.vintages import run_off, vintage_cells, vintages
from operations.report.split import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from operations.report.frame import Frame


class Item(NamedTuple):
    """Name a gift by its sku, or a coupon by its template."""

    unit: str
    name: str


class Given(NamedTuple):
    """Hold what a campaign gave: points earned and redeemed, cash earned and paid in minor units, and how many items.

    Of gifts those count that were awarded and not taken back, of coupons those that were used, if that is known.
    """

    earned: int
    redeemed: int
    cash_earned: int
    cash_paid: int
    items: Mapping[Item, int]
    are_uses_known: bool
    """Whether the log says which of the campaign's coupons were used."""


class Cost(NamedTuple):
    """Hold a campaign's costs in minor units."""

    face: float | None
    """All points earned."""

    committed: float | None
    """As many of them as will be redeemed."""

    realised: float | None
    """The points redeemed."""

    gifts: int | None
    coupons: int | None
    total_committed: float | None
    """Points as committed, cash as earned, gifts and coupons."""

    total_realised: float | None
    """Points as redeemed, cash as paid, gifts and coupons."""


class Costs:
    """Know what a point and each item cost, and which part of the points is redeemed in the end.

    That part is method M1's: redeemed ÷ earned over the vintages with nothing outstanding, of all time, whatever part
    of it is reported.
    """

    def __init__(self, of: Frame) -> None:
        terms = of.programme.terms
        self._of_point = cost_per_point(of)
        self._of_item = {Item("gift", name): cost for name, cost in terms.costs.gifts}
        self._of_item |= {Item("coupon", name): cost for name, cost in terms.costs.coupons}

        self._rate: Fraction | None = None
        if self._of_point is None:
            return
        cells = vintage_cells(replace(of, by=None), datetime.min.replace(tzinfo=UTC))
        self._rate = run_off(vintages(cells).get(UNKNOWN, ())).rate
        if self._rate is None:
            of.notes.append("no cost is committed: of each month's points something is outstanding")

    def unknown(self, items: Iterable[Item]) -> list[str]:
        """Return the names of those items whose cost the programme does not say."""
        return sorted({f"costs.{item.unit}.{item.name}" for item in items if item not in self._of_item})

    def of(self, given: Given) -> Cost:
        """Return what was given at its cost."""
        each = self._of_point
        face = None if each is None else given.earned * each
        realised = None if each is None else given.redeemed * each
        committed = None if face is None or self._rate is None else face * self._rate
        gifts = self._items(given.items, "gift")
        coupons = self._items(given.items, "coupon") if given.are_uses_known else None

        # a campaign without points costs none, whatever one is worth
        if not given.earned and not given.redeemed:
            points_committed: Fraction | None = Fraction(0)
            points_realised: Fraction | None = Fraction(0)
        else:
            points_committed, points_realised = committed, realised
        return Cost(
            _number(face), _number(committed), _number(realised), gifts, coupons,
            total_committed=_sum(points_committed, given.cash_earned, gifts, coupons),
            total_realised=_sum(points_realised, given.cash_paid, gifts, coupons),
        )  # fmt: skip

    def _items(self, items: Mapping[Item, int], unit: str) -> int | None:
        own = {item: pieces for item, pieces in items.items() if item.unit == unit and pieces}
        if self.unknown(own):
            return None
        return sum(pieces * self._of_item[item] for item, pieces in own.items())


def _number(of: Fraction | None) -> float | None:
    return None if of is None else float(of)


def _sum(*parts: Fraction | int | None) -> float | None:
    known = [part for part in parts if part is not None]
    return float(sum(known)) if len(known) == len(parts) else None
