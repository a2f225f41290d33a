"""Sum amounts over rolling windows in bounded space.

A window of length d at instant t is `(t - d, t]`. Entries of metrics and challenges stay for 7 days beyond the longest
window, so that a late event finds its own window complete; entries of limits are handed on instead
(`engine.programme.rules.limits`). Up to `ENTRIES_MAX` entries are kept one by one. Beyond that the older half is merged
in pairs, each pair at its later instant. An old entry then counts a little longer than its window, never shorter, so no
limit is exceeded, and the state of the busiest member stays below some tens of kilobytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from msgspec import Struct, field

from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENTRIES_MAX = 512
"""Entries that a window keeps one by one."""
LATE_MS = 7 * 86_400_000
"""How late an event may come, in ms, and still find everything that it should."""
SLACK_MS = 4 * 86_400_000
"""How much the length of a window may vary, in ms: a month has 28 to 31 days."""
VALUES_MAX = 32
"""Values of a field that a limit counts in a member's memory; beyond this number the oldest moves to
`MemberState.ended`.
"""


def windows_with(at_ms: int, instants: Sequence[int], before: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Yield the windows `(from, end]` that contain an instant and end at it, or at one of some later instants.

    Args:
        at_ms: the instant.
        instants: the other instants, the earliest first.
        before: returns where the window begins that ends at an instant.
    """
    for end_ms in (at_ms, *instants[bisect_right(instants, at_ms) :]):
        from_ms = before(end_ms)
        if from_ms < at_ms:
            yield from_ms, end_ms


def bounded(value: int) -> int:
    """Return a sum of amounts, cut to the range of a signed 64-bit integer."""
    return max(-INT64_MAX, min(value, INT64_MAX))


class Window(Struct, array_like=True, gc=False):
    """Hold entries by instant, the earliest first; windows are stored, so fields are added at the end."""

    instants: list[int] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    """The amount of each entry."""
    times: list[int] = field(default_factory=list)
    """How often each entry counts."""
    forgotten_ms: int = 0
    """Entries up to this instant were dropped."""

    def total(self, from_ms: int, at_ms: int) -> tuple[int, int]:
        """Return the amount and the number of times within `(from_ms, at_ms]`."""
        first, end = bisect_right(self.instants, from_ms), bisect_right(self.instants, at_ms)
        return bounded(sum(self.amounts[first:end])), sum(self.times[first:end])

    def amount(self, from_ms: int, at_ms: int) -> int:
        """Return the amount within `(from_ms, at_ms]`."""
        instants = self.instants
        if not instants or from_ms >= instants[-1]:
            return 0

        # most windows end at the last entry
        if at_ms >= instants[-1]:
            inside = self.amounts if from_ms < instants[0] else self.amounts[bisect_right(instants, from_ms) :]
            total = sum(inside)
        else:
            total = sum(self.amounts[bisect_right(instants, from_ms) : bisect_right(instants, at_ms)])
        return total if -INT64_MAX <= total <= INT64_MAX else bounded(total)

    def enter(self, at_ms: int, amount: int, times: int, keep_from_ms: int) -> None:
        """Add an entry, and drop those up to `keep_from_ms`."""
        # most entries come in order, each one in lets one out
        instants = self.instants
        if instants and instants[0] <= keep_from_ms:
            if len(instants) > 1 and instants[1] > keep_from_ms:
                del instants[0], self.amounts[0], self.times[0]
                self.forgotten_ms = keep_from_ms
            else:
                self.drop(keep_from_ms)

        # an entry in order stands at the end
        if not instants or at_ms > instants[-1]:
            instants.append(at_ms)
            self.amounts.append(amount)
            self.times.append(times)
            if len(instants) > ENTRIES_MAX:
                self._merge()
            return

        # a late entry joins that of its instant, or stands between others
        place = bisect_right(instants, at_ms)
        if place and instants[place - 1] == at_ms:
            self.amounts[place - 1] = bounded(self.amounts[place - 1] + amount)
            self.times[place - 1] += times
            return
        insort(self.instants, at_ms)
        self.amounts.insert(place, amount)
        self.times.insert(place, times)
        if len(self.instants) > ENTRIES_MAX:
            self._merge()

    def take(self, at_ms: int, amount: int, times: int = 0, least: int = -INT64_MAX) -> None:
        """Subtract from the entry of an instant; a merged entry stands at a later instant.

        Nothing is subtracted for an instant whose entries were dropped, unless a late entry stands at the very instant.

        Args:
            at_ms: when it was counted.
            amount: the number to subtract from the entry's amount.
            times: the number to subtract from the entry's number of times.
            least: the entry does not fall below this. An entry that was cut to 64 bits has lost a part, so more may be
                subtracted than it holds.
        """
        place = bisect_left(self.instants, at_ms)
        if place < len(self.instants) and (at_ms > self.forgotten_ms or self.instants[place] == at_ms):
            self.amounts[place] = max(least, bounded(self.amounts[place] - amount))
            self.times[place] = max(self.times[place] - times, 0)

    def drop(self, upto_ms: int) -> None:
        """Remove the entries up to an instant for good: from then on the window answers for later instants only."""
        gone = bisect_right(self.instants, upto_ms)
        if gone:
            self.forgotten_ms = upto_ms
            del self.instants[:gone], self.amounts[:gone], self.times[:gone]

    def pop(self, upto_ms: int) -> Iterator[tuple[int, int, int]]:
        """Remove the entries up to an instant, and yield the instant, the amount and the times of each.

        The caller keeps them elsewhere, so `forgotten_ms` moves to the last of them only, and not on to `upto_ms`.
        """
        gone = bisect_right(self.instants, upto_ms)
        if gone:
            self.forgotten_ms = self.instants[gone - 1]
            yield from zip(self.instants[:gone], self.amounts[:gone], self.times[:gone], strict=True)
            del self.instants[:gone], self.amounts[:gone], self.times[:gone]

    def _merge(self) -> None:
        """Merge the older half in pairs, each pair at its later instant."""
        half = len(self.instants) // 4 * 2  # an even number, about half
        self.instants[:half] = self.instants[1:half:2]
        self.amounts[:half] = [
            bounded(one + other) for one, other in zip(self.amounts[0:half:2], self.amounts[1:half:2], strict=True)
        ]
        self.times[:half] = [one + other for one, other in zip(self.times[0:half:2], self.times[1:half:2], strict=True)]
