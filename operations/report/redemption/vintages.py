"""Follow the points of each vintage: what was granted in one local month, and what became of it, month by month.

A lot's vintage is the month of its grant. A reversal out of debt is of no vintage: no lot had the amount.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import MINYEAR, date
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from operations.report.movements import BURNED, ERASED, EXPIRED, MOVES
from operations.report.periods import Every, add_months, begin_of
from operations.report.rolled import lots as rolled
from operations.report.split import UNKNOWN, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from operations.report.frame import Frame


class Cell(NamedTuple):
    """Hold what happened in one local month to the points granted in another one, in points."""

    vintage: date
    month: date
    value: str
    """The value by which the report is split."""

    issued: int
    reversed: int
    """Taken back out of lots, or out of what had expired of them."""

    settled: int
    redeemed: int
    """Captured less restored."""

    expired: int
    erased: int


@dataclass(slots=True)
class Vintage:
    """Hold what became of a month's points: earned = redeemed + expired + erased + outstanding."""

    month: date
    issued: int = 0
    reversed: int = 0
    settled: int = 0
    redeemed: int = 0
    expired: int = 0
    erased: int = 0
    redeemed_in: dict[date, int] = field(default_factory=dict)
    """The points redeemed in each month, less those restored in it."""

    @property
    def earned(self) -> int:
        """Return what was issued and not taken back."""
        return self.issued - self.reversed - self.settled

    @property
    def outstanding(self) -> int:
        """Return what members still have of it."""
        return self.earned - self.redeemed - self.expired - self.erased

    def add(self, cell: Cell) -> None:
        """Add what happened in one month."""
        self.issued += cell.issued
        self.reversed += cell.reversed
        self.settled += cell.settled
        self.redeemed += cell.redeemed
        self.expired += cell.expired
        self.erased += cell.erased
        self.redeemed_in[cell.month] = self.redeemed_in.get(cell.month, 0) + cell.redeemed

    def redeemed_by_age(self, until: date) -> list[int]:
        """Return what was redeemed up to each age, in calendar months; only months that end by `until` count."""
        so_far, ages = 0, []
        for month in _months(self.month, until):
            so_far += self.redeemed_in.get(month, 0)
            ages.append(so_far)
        return ages


def vintages(cells: Iterable[Cell]) -> dict[str, list[Vintage]]:
    """Return the vintages of each value, the oldest first; months in which nothing was granted have none."""
    by_value: dict[str, dict[date, Vintage]] = {}
    for cell in cells:
        months = by_value.setdefault(cell.value, {})
        months.setdefault(cell.vintage, Vintage(cell.vintage)).add(cell)
    return {value: [months[month] for month in sorted(months)] for value, months in by_value.items()}


def vintage_cells(of: Frame, since: datetime) -> Iterator[Cell]:
    """Yield what became of the lots granted from `since` on: a cell for each vintage, month and value.

    A movement from before the grant, by an event that came late, counts in the month of the grant.
    """
    if of.rolled:
        first = date.min if since.year == MINYEAR else of.local_day(since)
        for vintage_day, month_day, *amounts in rolled.vintages(of, first):
            yield Cell(vintage_day, month_day, UNKNOWN, *map(int, amounts))
        return
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, granted AS (
            SELECT e.reward_key AS lot, e.shard, e.occurred_at AS at, {of.month("e.occurred_at")} AS vintage,
                   {by.value("e")} AS value
            FROM guerdon.reward_event e {by.joined("e", "e.occurred_at")}
            WHERE {MOVES} AND e.unit = %(unit)s AND e.debit = 'issued' AND e.occurred_at >= %(granted_since)s
        )
        SELECT g.vintage, {of.month("greatest(e.occurred_at, g.at)")}, g.value,
               sum(CASE WHEN e.debit = 'issued' THEN e.amount ELSE 0 END),
               sum(CASE WHEN e.credit = 'reversed' AND e.debit <> 'debt' THEN e.amount ELSE 0 END),
               sum(CASE WHEN e.credit = 'debt' THEN e.amount ELSE 0 END),
               sum({BURNED}), sum({EXPIRED}), sum({ERASED})
        FROM guerdon.reward_event e JOIN granted g ON g.lot = coalesce(e.lot, e.reward_key) AND g.shard = e.shard
        WHERE {MOVES} AND e.unit = %(unit)s
        GROUP BY 1, 2, 3
        """,
        granted_since=since,
        **by.parameters,
    )
    for vintage, month, value, *amounts in rows:
        yield Cell(of.local_day(vintage), of.local_day(month), value, *map(int, amounts))


class RunOff(NamedTuple):
    """Hold the sums of the vintages with nothing outstanding, in points: what became of them is final."""

    vintages: int
    earned: int
    redeemed: int
    expired: int

    @property
    def rate(self) -> Fraction | None:
        """Return the rate of method M1, redeemed ÷ earned; None where nothing was earned."""
        return Fraction(self.redeemed, self.earned) if self.earned else None


def run_off(of: Iterable[Vintage]) -> RunOff:
    """Return the sums of the vintages with nothing outstanding."""
    closed = [vintage for vintage in of if not vintage.outstanding]
    return RunOff(
        len(closed),
        sum(vintage.earned for vintage in closed),
        sum(vintage.redeemed for vintage in closed),
        sum(vintage.expired for vintage in closed),
    )


def whole_until(of: Frame) -> date:
    """Return the first day of the month in which the cut lies: the months before it are whole."""
    return begin_of(Every.MONTH, of.local_day(of.cut))


def _months(first: date, until: date) -> Iterator[date]:
    month = first
    while month < until:
        yield month
        month = add_months(month, 1)
