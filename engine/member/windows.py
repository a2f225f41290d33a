"""Keep what happened within rolling windows, bounded however often it happens.

A window at instant t of length d is `(t - d, t]`. Entries of metrics and challenges stay for 7 days beyond the longest
look back, so that a late event sees its own window; those of limits are handed on instead
(`engine.programme.rules.limits`). Up to `ENTRIES_MAX` entries are kept as they came. Beyond it the older half is merged
two by two into the later instant of each pair: what is old is then remembered a little longer than its window, never
shorter, so a limit is never passed and the state of the busiest member stays below some tens of kilobytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

from msgspec import Struct, field

from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENTRIES_MAX = 512
LATE_MS = 7 * 86_400_000
"""How long before the clock an event may lie and still find everything that it should."""
SLACK_MS = 4 * 86_400_000
"""How much one length may differ by where it is counted from: a month has 28 to 31 days."""
VALUES_MAX = 32
"""So many values of a field a limit keeps at hand for a member; the first of more makes room (`MemberState.ended`)."""


def windows_with(at_ms: int, instants: Sequence[int], before: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """Yield the windows `(from, end]` that hold an instant and end with it, or with a later one of some others.

    Args:
        at_ms: the instant.
        instants: the others, the earliest first.
        before: returns where a window begins that ends at an instant.
    """
    for end_ms in (at_ms, *instants[bisect_right(instants, at_ms) :]):
        from_ms = before(end_ms)
        if from_ms < at_ms:
            yield from_ms, end_ms


def bounded(value: int) -> int:
    """Return a sum of amounts, or the most that a signed 64-bit integer holds of it: so much can be stored."""
    return max(-INT64_MAX, min(value, INT64_MAX))


class Window(Struct, array_like=True, gc=False):
    """Hold entries by instant, the earliest first: an amount each, and how often.

    Entries up to `forgotten_ms` were dropped; fields are added at the end, as windows are stored.
    """

    instants: list[int] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    forgotten_ms: int = 0

    def total(self, from_ms: int, at_ms: int) -> tuple[int, int]:
        """Return amount and times within `(from_ms, at_ms]`."""
        first, end = bisect_right(self.instants, from_ms), bisect_right(self.instants, at_ms)
        return bounded(sum(self.amounts[first:end])), sum(self.times[first:end])

    def amount(self, from_ms: int, at_ms: int) -> int:
        """Return the amount within `(from_ms, at_ms]`; most windows end at their last entry."""
        instants = self.instants
        if not instants or from_ms >= instants[-1]:
            return 0
        if at_ms >= instants[-1]:
            inside = self.amounts if from_ms < instants[0] else self.amounts[bisect_right(instants, from_ms) :]
            total = sum(inside)
        else:
            total = sum(self.amounts[bisect_right(instants, from_ms) : bisect_right(instants, at_ms)])
        return total if -INT64_MAX <= total <= INT64_MAX else bounded(total)

    def enter(self, at_ms: int, amount: int, times: int, keep_from_ms: int) -> None:
        """Add an entry and forget those up to `keep_from_ms`; what a late event would forget is gone already."""
        instants = self.instants
        if instants and instants[0] <= keep_from_ms:
            if len(instants) > 1 and instants[1] > keep_from_ms:
                del instants[0], self.amounts[0], self.times[0]  # as most do that enter in turn: one in, one out
                self.forgotten_ms = keep_from_ms
            else:
                self.forget(keep_from_ms)
        if not instants or at_ms > instants[-1]:
            instants.append(at_ms)
            self.amounts.append(amount)
            self.times.append(times)
            if len(instants) > ENTRIES_MAX:
                self._merge()
            return
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
        """Take back from the entry of an instant (merged entries stand at a later one); what is forgotten stays so.

        An entry at the very instant came late, after the others of its time were forgotten, and gives up its own.
        `least` is what the entry cannot fall below: an entry that has reached the most that can be stored has
        forgotten what was beyond it, so that more may be taken back than it says.
        """
        place = bisect_left(self.instants, at_ms)
        if place < len(self.instants) and (at_ms > self.forgotten_ms or self.instants[place] == at_ms):
            self.amounts[place] = max(least, bounded(self.amounts[place] - amount))
            self.times[place] = max(self.times[place] - times, 0)

    def forget(self, upto_ms: int) -> None:
        """Drop the entries up to an instant."""
        gone = bisect_right(self.instants, upto_ms)
        if gone:
            self.forgotten_ms = upto_ms
            del self.instants[:gone], self.amounts[:gone], self.times[:gone]

    def let_go(self, upto_ms: int) -> Iterator[tuple[int, int, int]]:
        """Drop the entries up to an instant and yield them: instant, amount, times; the last stands for all of them."""
        gone = bisect_right(self.instants, upto_ms)
        if gone:
            self.forgotten_ms = self.instants[gone - 1]
            yield from zip(self.instants[:gone], self.amounts[:gone], self.times[:gone], strict=True)
            del self.instants[:gone], self.amounts[:gone], self.times[:gone]

    def _merge(self) -> None:
        half = len(self.instants) // 4 * 2
        self.instants[:half] = self.instants[1:half:2]
        self.amounts[:half] = [
            bounded(one + other) for one, other in zip(self.amounts[0:half:2], self.amounts[1:half:2], strict=True)
        ]
        self.times[:half] = [one + other for one, other in zip(self.times[0:half:2], self.times[1:half:2], strict=True)]
