"""Convert instants to local days and times and back, by arithmetic on the zone's cached offsets.

Zones come from the pinned `tzdata` package, never from the machine, so that the same programme means the same days
everywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from calendar import isleap, monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.conditions import Duration

DAY_MS = 86_400_000
_SECOND_MS = 1000
_BLOCK_BITS = 35
"""Offsets are collected for blocks of 2^35 ms (398 days): a member's history touches a handful of blocks."""
_STEP_S = 43_200
"""No zone has changed its offset twice within half a day since 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_ZERO = date(1970, 1, 1).toordinal()
"""The proleptic day number of day 0: `date.fromordinal(day + DAY_ZERO)` is the date of a local day."""
_HALF_YEAR_DAYS = 182
"""A birthday within half a year is the nearest: the one before and the one after are a year away from it."""
_HOUR_MS = 3_600_000
_SAMPLES_MS = (-15 * _HOUR_MS, -3 * _HOUR_MS, 9 * _HOUR_MS, 15 * _HOUR_MS)
"""Where to look for offsets around a local time: they lie within 15 hours of UTC and last longer than half a day."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return the names of all time zones."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="ascii").split())


@lru_cache(maxsize=64)
def offset_function(timezone: str) -> Callable[[int], tuple[int, int, int]]:
    """Return a function from an instant to the zone's offset then, and the steady period around it, all in ms.

    An offset is steady from half a day after it began until it ends. Two instants of one steady period that lie whole
    days apart show the same time on the wall, and each local time in it comes once.
    """
    zone = _load(timezone)
    blocks: dict[int, tuple[list[int], list[tuple[int, int, int]]]] = {}

    def offset_at(at_ms: int) -> tuple[int, int, int]:
        block = blocks.get(at_ms >> _BLOCK_BITS)
        if block is None:
            block = blocks[at_ms >> _BLOCK_BITS] = _offsets(zone, at_ms >> _BLOCK_BITS)
        starts, offsets = block
        return offsets[bisect_right(starts, at_ms)]

    return offset_at


class Calendar:
    """Read local days and times of one zone, and move instants by its days and months.

    `offset_at` is the zone's `offset_function`; generated code calls it directly.
    """

    __slots__ = ("offset_at", "timezone")

    def __init__(self, timezone: str) -> None:
        self.timezone = timezone
        self.offset_at = offset_function(timezone)

    def __repr__(self) -> str:
        return f"Calendar({self.timezone!r})"

    def local_day(self, at_ms: int) -> int:
        """Return the local day of an instant (ms since 1970 UTC), in days since 1970-01-01."""
        return (at_ms + self.offset_at(at_ms)[0]) // DAY_MS

    def local_time(self, at_ms: int) -> int:
        """Return the local time of an instant, in ms since 1970-01-01 00:00 on the wall."""
        return at_ms + self.offset_at(at_ms)[0]

    def instant_of(self, local_ms: int) -> int:
        """Return the instant of a local time: the first if it comes twice, and one past the gap if clocks skip it."""
        after_gap_ms = 0
        instants: list[int] = []

        # try every offset near the local time: a candidate counts if its local time is the one asked for
        for sample_ms in _SAMPLES_MS:
            candidate_ms = local_ms - self.offset_at(local_ms + sample_ms)[0]
            after_gap_ms = max(after_gap_ms, candidate_ms)
            if self.local_time(candidate_ms) == local_ms:
                instants.append(candidate_ms)

        return min(instants) if instants else after_gap_ms

    def instant_near(self, local_ms: int, offset_ms: int) -> int:
        """Return the instant of a local time, as `instant_of` does, but faster where `offset_ms` is a good guess."""
        near_offset_ms, steady_ms, until_ms = self.offset_at(local_ms - offset_ms)
        at_ms = local_ms - near_offset_ms
        if steady_ms <= at_ms < until_ms:
            return at_ms  # one offset from half a day before: no clock was changed that could repeat this time
        return self.instant_of(local_ms)

    def after(self, at_ms: int, duration: Duration) -> int:
        """Return the instant `duration` after `at_ms`."""
        return self._moved(at_ms, duration.months, duration.days, duration.ms)

    def before(self, at_ms: int, duration: Duration) -> int:
        """Return the instant `duration` before `at_ms`; a rolling window begins right after it."""
        return self._moved(at_ms, -duration.months, -duration.days, -duration.ms)

    def _moved(self, at_ms: int, months: int, days: int, ms: int) -> int:
        if ms:
            return at_ms + ms

        # days and months keep the time on the wall, whatever the clocks do in between
        offset_ms = self.offset_at(at_ms)[0]
        local_ms = at_ms + offset_ms
        moved_ms = local_ms + days * DAY_MS
        if months:
            moved_ms = _months_later(local_ms // DAY_MS, months) * DAY_MS + local_ms % DAY_MS

        return self.instant_near(moved_ms, offset_ms)


def days_to_birthday(birthday: str | None, day: int) -> int | None:
    """Return how many days lie between a local day and the nearest birthday, before or after it; None if unknown.

    Args:
        birthday: `YYYY-MM-DD` or `--MM-DD`; the year does not count. 29 February is kept on the 28th in other years.
        day: days since 1970-01-01.
    """
    if birthday is None:
        return None

    month, day_of_month = int(birthday[-5:-3]), int(birthday[-2:])
    year = date.fromordinal(day + DAY_ZERO).year
    days = abs(yearly_day(year, month, day_of_month) - day)
    if days <= _HALF_YEAR_DAYS:
        return days

    # near New Year's Eve the nearest birthday lies in the year before or after
    return min(abs(yearly_day(near, month, day_of_month) - day) for near in (year - 1, year + 1))


def yearly_day(year: int, month: int, day_of_month: int) -> int:
    """Return the local day of a date that comes back each year; 29 February is kept on the 28th in other years."""
    if month == 2 and day_of_month == 29 and not isleap(year):
        day_of_month = 28
    return date(year, month, day_of_month).toordinal() - DAY_ZERO


@lru_cache(maxsize=64)
def calendar_of(timezone: str) -> Calendar:
    """Return the calendar of a time zone."""
    return Calendar(timezone)


@lru_cache(maxsize=4096)
def month_of(day: int) -> int:
    """Return the number of a local day's month: 12 times the year, and the month from 0."""
    local = date.fromordinal(day + DAY_ZERO)
    return local.year * 12 + local.month - 1


def _months_later(day: int, months: int) -> int:
    """Return the local day `months` after (or before) another, clamped to the month's end."""
    before = date.fromordinal(day + DAY_ZERO)
    year, month = divmod(before.year * 12 + before.month - 1 + months, 12)
    clamped = min(before.day, monthrange(year, month + 1)[1])
    return date(year, month + 1, clamped).toordinal() - DAY_ZERO


def _load(timezone: str) -> ZoneInfo:
    if timezone not in zone_names():
        raise ValueError(f'there is no time zone "{timezone}"')
    path = files("tzdata") / "zoneinfo"
    for part in timezone.split("/"):
        path /= part
    with path.open("rb") as data:
        return ZoneInfo.from_file(data, key=timezone)


def _offsets(zone: ZoneInfo, block: int) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Return the instants within a block at which the offset changes (ms), and the offsets before and after each.

    With each offset comes the instant half a day after it began, and the instant at which it, or the block, ends.
    """
    # look for changes half a day at a time, then for the second of each
    first_s = (block << _BLOCK_BITS) // _SECOND_MS
    last_s = ((block + 1) << _BLOCK_BITS) // _SECOND_MS + 1
    starts: list[int] = []
    offsets = [_offset_s(zone, first_s)]
    for at_s in range(first_s, last_s + _STEP_S, _STEP_S):
        if _offset_s(zone, at_s) != offsets[-1]:
            change_s = _change(zone, at_s - _STEP_S, at_s)
            starts.append(change_s * _SECOND_MS)
            offsets.append(_offset_s(zone, change_s))

    bounds = [block << _BLOCK_BITS, *starts, (block + 1) << _BLOCK_BITS]
    return starts, [
        (offset_s * _SECOND_MS, began_ms + DAY_MS // 2, ended_ms)
        for offset_s, (began_ms, ended_ms) in zip(offsets, pairwise(bounds), strict=True)
    ]


def _change(zone: ZoneInfo, before_s: int, after_s: int) -> int:
    """Return the first second after `before_s` that has the offset of `after_s`."""
    after_offset_s = _offset_s(zone, after_s)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_s(zone, middle_s) == after_offset_s:
            after_s = middle_s
        else:
            before_s = middle_s
    return after_s


def _offset_s(zone: ZoneInfo, at_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=at_s)).astimezone(zone).utcoffset()
    if offset is None:
        raise ValueError(f"{zone.key} has no offset")
    return offset.days * 86_400 + offset.seconds
