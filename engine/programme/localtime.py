"""Tell the local calendar day of an instant, by integer arithmetic on the zone's cached offsets.

Zones come from the pinned `tzdata` package, never from the machine, so that the same programme means the same days
everywhere.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_MS = 86_400_000
_SECOND_MS = 1000
_SPAN_BITS = 35
"""Offsets are looked up a span of 2^35 ms (398 days) at a time: a member's history touches a handful of them."""
_STEP_S = 43_200
"""No zone has changed its offset twice within half a day since 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return the names of all time zones."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="ascii").split())


@lru_cache(maxsize=64)
def local_day_function(timezone: str) -> Callable[[int], int]:
    """Return a function from an instant (ms since 1970 UTC) to the local day in `timezone` (days since 1970-01-01)."""
    zone = _load(timezone)
    spans: dict[int, tuple[list[int], list[int]]] = {}

    def local_day(at_ms: int) -> int:
        span = spans.get(at_ms >> _SPAN_BITS)
        if span is None:
            span = spans[at_ms >> _SPAN_BITS] = _offsets(zone, at_ms >> _SPAN_BITS)
        starts, offsets = span
        return (at_ms + offsets[bisect_right(starts, at_ms)]) // DAY_MS

    return local_day


def _load(timezone: str) -> ZoneInfo:
    if timezone not in zone_names():
        raise ValueError(f'there is no time zone "{timezone}"')
    path = files("tzdata") / "zoneinfo"
    for part in timezone.split("/"):
        path /= part
    with path.open("rb") as data:
        return ZoneInfo.from_file(data, key=timezone)


def _offsets(zone: ZoneInfo, span: int) -> tuple[list[int], list[int]]:
    """Return the instants within a span at which the offset changes (ms), and the offsets before and after each."""
    first_s = (span << _SPAN_BITS) // _SECOND_MS
    last_s = ((span + 1) << _SPAN_BITS) // _SECOND_MS + 1
    starts: list[int] = []
    offsets = [_offset_s(zone, first_s)]
    for at_s in range(first_s, last_s + _STEP_S, _STEP_S):
        if _offset_s(zone, at_s) != offsets[-1]:
            change_s = _change(zone, at_s - _STEP_S, at_s)
            starts.append(change_s * _SECOND_MS)
            offsets.append(_offset_s(zone, change_s))
    return starts, [offset_s * _SECOND_MS for offset_s in offsets]


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
