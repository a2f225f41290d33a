"""Cut time into local days, weeks, months, quarters and years, and name each as reports do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = "all"
"""The name of the period that holds all others."""


class Every(StrEnum):
    """Name a length of periods, as PostgreSQL's `date_trunc` names it."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Period(NamedTuple):
    """Hold one period: its name, and the instants of its first local midnight and of the one that ends it."""

    name: str
    start: datetime
    end: datetime


def periods(every: Every, zone: str, since: datetime, until: datetime) -> tuple[Period, ...]:
    """Return every period that overlaps the time from `since` up to `until`, also those without events.

    The first and the last one are whole periods: a reader of a part of them filters by `since` and `until`.

    Args:
        every: the length of a period.
        zone: whose midnights count, as the time-zone database names it.
        since: the first instant.
        until: the first instant that no longer belongs to it.
    """
    found = []
    first = begin_of(every, local_date(since, zone))
    for start, end in _steps(every, first):
        if midnight(start, zone) >= until:
            break
        found.append(Period(name_of(every, start), midnight(start, zone), midnight(end, zone)))
    return tuple(found)


def _steps(every: Every, first: date) -> Iterator[tuple[date, date]]:
    while True:
        following = next_begin(every, first)
        yield first, following
        first = following


def begin_of(every: Every, day: date) -> date:
    """Return the first day of the period in which `day` lies; weeks begin on Monday."""
    match every:
        case Every.DAY:
            return day
        case Every.WEEK:
            return day - timedelta(days=day.weekday())
        case Every.MONTH:
            return day.replace(day=1)
        case Every.QUARTER:
            return date(day.year, (day.month - 1) // 3 * 3 + 1, 1)
        case Every.YEAR:
            return date(day.year, 1, 1)


def next_begin(every: Every, first: date) -> date:
    """Return the first day of the period after the one that begins on `first`."""
    match every:
        case Every.DAY:
            return first + timedelta(days=1)
        case Every.WEEK:
            return first + timedelta(days=7)
        case Every.MONTH:
            return add_months(first, 1)
        case Every.QUARTER:
            return add_months(first, 3)
        case Every.YEAR:
            return add_months(first, 12)


def add_months(first: date, months: int) -> date:
    """Return the first day of the month that lies `months` after the month of `first`."""
    number = first.year * 12 + first.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def name_of(every: Every, first: date) -> str:
    """Return the name of the period that begins on `first`: 2026-03-04, 2026-W10, 2026-03, 2026-Q1 or 2026."""
    match every:
        case Every.DAY:
            return first.isoformat()
        case Every.WEEK:
            year, week, _ = first.isocalendar()
            return f"{year:04}-W{week:02}"
        case Every.MONTH:
            return f"{first.year:04}-{first.month:02}"
        case Every.QUARTER:
            return f"{first.year:04}-Q{(first.month + 2) // 3}"
        case Every.YEAR:
            return f"{first.year:04}"


def month_name(first: date) -> str:
    """Return the name of the month that begins on `first`, such as 2026-03."""
    return name_of(Every.MONTH, first)


def local_date(instant: datetime, zone: str) -> date:
    """Return the local day of an instant."""
    return instant.astimezone(ZoneInfo(zone)).date()


def midnight(day: date, zone: str) -> datetime:
    """Return the instant, in UTC, at which a local day begins; where clocks skip midnight, the first instant of it."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def midnight_after(instant: datetime, zone: str) -> datetime:
    """Return the first local midnight after `instant`, or the instant itself where it is one."""
    day = local_date(instant, zone)
    begun = midnight(day, zone)
    return begun if begun == instant else midnight(day + timedelta(days=1), zone)
