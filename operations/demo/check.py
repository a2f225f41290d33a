"""Compute the grocery programme's points a second time, by hand, and compare the balances with them.

Nothing here belongs to the engine: no event, no programme file, no converter of the demo's. The rules of
`examples/grocery/programme.yaml` stand below as plain arithmetic on the parquet file, in `Decimal` dollars and with the
days of New York. If the file's rules change, these must be changed by hand, too: that is their use.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NEW_YORK = ZoneInfo("America/New_York")
CENT = Decimal("0.01")
WELCOME = 100
DOLLAR_POINTS_A_DAY_MAX = 500
BIG_FROM, HUGE_FROM = 50, 100
BIG_POINTS, HUGE_POINTS = 25, 60
BIG_TIMES_A_DAY_MAX = HUGE_TIMES_A_DAY_MAX = 2

Basket = tuple[int, datetime, Decimal]
"""A household, the time in UTC, and the amount paid in dollars."""


@dataclass(slots=True)
class Day:
    """Count the purchases of one household on one local day."""

    dollar_points: int = 0
    big: int = 0
    huge: int = 0

    def points(self) -> int:
        """Return the points of the day under the daily limits."""
        return (
            min(self.dollar_points, DOLLAR_POINTS_A_DAY_MAX)
            + min(self.big, BIG_TIMES_A_DAY_MAX) * BIG_POINTS
            + min(self.huge, HUGE_TIMES_A_DAY_MAX) * HUGE_POINTS
        )


def read_baskets(transactions: Path, households: Iterable[int]) -> list[Basket]:
    """Return the baskets of `households` with the amount paid for each: sales less coupons, and never below 0."""
    from pyarrow import parquet  # noqa: PLC0415  an extra: only the demo needs it

    names = ["household_id", "basket_id", "transaction_timestamp", "sales_value", "coupon_disc"]
    wanted = set(households)
    paid: dict[int, Decimal] = defaultdict(Decimal)
    about: dict[int, tuple[int, datetime]] = {}
    for batch in parquet.ParquetFile(transactions).iter_batches(columns=names):
        columns = [column.cast("timestamp[us]") if name == names[2] else column for name, column in
                   zip(names, batch.columns, strict=True)]  # fmt: skip
        for household, basket, at, sales, coupon in zip(*(column.to_pylist() for column in columns), strict=True):
            if household in wanted:
                paid[basket] += dollars(sales) - dollars(coupon)
                about[basket] = (household, at.replace(tzinfo=UTC))
    return [(*about[basket], max(amount, Decimal(0))) for basket, amount in paid.items()]


@cache
def dollars(value: float) -> Decimal:
    """Return the value as it is printed, rounded to cents."""
    return Decimal(repr(value)).quantize(CENT)


def expected_points(baskets: Iterable[Basket]) -> dict[str, int]:
    """Return each household's points by its member_id: 100 to begin with, and those of every day."""
    days: dict[int, dict[date, Day]] = defaultdict(lambda: defaultdict(Day))
    for household, at, paid in baskets:
        day = days[household][at.astimezone(NEW_YORK).date()]
        day.dollar_points += int(paid)
        day.big += BIG_FROM <= paid < HUGE_FROM
        day.huge += paid >= HUGE_FROM
    return {
        f"household-{household}": WELCOME + sum(day.points() for day in theirs.values())
        for household, theirs in days.items()
    }


def first_difference(expected: Mapping[str, int], balances: Mapping[str, int]) -> str | None:
    """Return in a sentence the first member, by name, whose balance differs; None where all are equal."""
    for member in sorted(expected.keys() | balances.keys()):
        computed, balance = expected.get(member), balances.get(member)
        if computed != balance:
            return f"{member} has {_words(balance)} in the view and {_words(computed)} by the independent computation"
    return None


def _words(points: int | None) -> str:
    return "no balance" if points is None else f"{points:,} points"
