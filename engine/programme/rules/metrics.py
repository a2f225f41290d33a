"""Read and update the values of metrics in the member's state, alike for compiled and interpreted programmes.

A count or a sum without a window is one integer, the last time one instant, a streak two integers; windows are bounded
by `engine.member.windows`. Sums stay within 64 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.windows import LATE_MS, Window, bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.member.state import MemberState

NO_WINDOWS: Mapping[str, Window] = {}
"""The windows of a member without any memory."""


def total_of(state: MemberState, key: str) -> int:
    """Return a count or a sum without a window."""
    if state.memory is None:
        return 0
    counter = state.memory.counters.get(key)
    return 0 if counter is None else counter[0]


def add_total(state: MemberState, key: str, by: int | None) -> None:
    """Add to a count or a sum; a missing value adds nothing."""
    if by is not None:
        counters = state.remembering().counters
        before = counters.get(key)
        counters[key] = [bounded(by if before is None else before[0] + by)]


def window_sum(state: MemberState, key: str, from_ms: int, at_ms: int) -> int:
    """Return the sum of the entries within `(from_ms, at_ms]`."""
    if state.memory is None:
        return 0
    window = state.memory.windows.get(key)
    return 0 if window is None else window.amount(from_ms, at_ms)


def add_window(state: MemberState, key: str, by: int | None, from_ms: int, at_ms: int) -> None:
    """Enter an event into a window that looks back to `from_ms`; a missing value enters nothing."""
    if by is not None:
        memory = state.memory or state.remembering()
        window = memory.windows.get(key)
        if window is None:
            window = memory.windows[key] = Window()
        window.enter(at_ms, bounded(by), 1, from_ms - LATE_MS)


def last_of(state: MemberState, key: str) -> int | None:
    """Return the latest instant that was entered, None where there is none."""
    counter = None if state.memory is None else state.memory.counters.get(key)
    return None if counter is None else counter[0]


def add_last(state: MemberState, key: str, at_ms: int) -> None:
    """Enter an instant; a late one does not replace a later one."""
    counters = state.remembering().counters
    before = counters.get(key)
    counters[key] = [at_ms if before is None else max(before[0], at_ms)]


def streak_of(state: MemberState, key: str, unit: int) -> int:
    """Return how many days, weeks or months in a row had an event, up to `unit` or the one before it.

    It is read before the event is entered.
    """
    counter = None if state.memory is None else state.memory.counters.get(key)
    if counter is None:
        return 0
    last, length = counter
    if unit > last + 1:
        return 0
    return max(0, length - max(0, last - unit))


def add_streak(state: MemberState, key: str, unit: int) -> None:
    """Enter a day, week or month; a late one changes only a streak that begins right after it, and lengthens it."""
    counters = state.remembering().counters
    last, length = counters.get(key) or [unit, 0]
    if unit > last + 1:
        counters[key] = [unit, 1]
    elif unit > last or not length:
        counters[key] = [unit, length + 1]
    elif unit == last - length:
        counters[key] = [last, length + 1]
