"""Count members by pairs of days: one on which they did something, and the one before on which they did it.

How many members did it in a time is then a sum: of the pairs whose day lies in the time, and whose day before does not.
A day that is recorded late comes between two others, and changes the pairs of both.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date


class Recorded(NamedTuple):
    """Hold a day on which a member did something, and the day on which that was recorded first."""

    day: date
    recorded_day: date


class Pair(NamedTuple):
    """Hold by how many the members with a pair of days became more or less; `previous` is None for a first day."""

    day: date
    previous: date | None
    recorded_day: date
    members: int


def pairs(known: Iterable[date], added: Iterable[Recorded]) -> Iterator[Pair]:
    """Yield what new days of one member change.

    Args:
        known: the member's days so far.
        added: other days, none twice.
    """
    days = sorted(known)
    for day, recorded_day in sorted(added, key=lambda each: (each.recorded_day, each.day)):
        place = bisect_left(days, day)
        previous = days[place - 1] if place else None
        yield Pair(day, previous, recorded_day, 1)

        # the day after it had another one before
        if place < len(days):
            yield Pair(days[place], previous, recorded_day, -1)
            yield Pair(days[place], day, recorded_day, 1)
        insort(days, day)
