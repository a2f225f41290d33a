"""Count what a limit lets through of a member's awards: the part of limits that both ways of judging share.

The use of the running period lies at hand in the member's state. When a later period begins, it joins the uses of ended
periods, which become pages beyond the state (`engine.store.members.uses`) and are asked for by late events and refunds
only. They are known until `refunds.window` after their period's end; whoever asks later hears that they are forgotten.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

from engine.member.state import LimitUse
from engine.member.windows import SLACK_MS, VALUES_MAX, Window, windows_with
from engine.programme.conditions import Duration
from engine.programme.interpret.facts import period_of
from engine.programme.localtime import calendar_of
from engine.programme.periods import bounds_of
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from engine.member.state import MemberState
    from engine.programme.conditions import Every
    from engine.programme.localtime import Calendar
    from engine.programme.model import LimitScope, Programme
    from engine.programme.rules.occurrence import Occurrence, UseBooks

_PERIOD = attrgetter("period")


class ForgottenUse(LimitUse, array_like=True, gc=False):
    """Stand for the use of a period that is no longer known: nothing is left of the limit in it."""

    @classmethod
    def any(cls) -> ForgottenUse:
        """Return one; each has its own, as uses are changed."""
        return cls(0, INT64_MAX, INT64_MAX)

    def record(self) -> None:
        """Enter nothing: nothing was given."""


def is_forgotten(use: object) -> bool:
    """Whether what `use` counts is no longer known."""
    return type(use) is ForgottenUse


def value_key(value: object) -> str:
    """Return the short text under which a value of a field is remembered; a missing value counts as one of its own."""
    return "" if value is None else blake2b(str(value).encode(), digest_size=9).hexdigest()


def begins_control(state: MemberState, rule_id: str) -> bool:
    """Whether this is a control member's first event of a rule, and remember that it was."""
    counters = state.remembering().counters
    key = f"control:{rule_id}"
    if key in counters:
        return False
    counters[key] = [1]
    return True


@dataclass(frozen=True, slots=True)
class LimitCount:
    """Find the use of one limit of a rule in the period of an event; called from generated code, too.

    `key` names the count in the member's state, and `every` its periods; `kept` says how long the use of a period is
    known after its end.
    """

    key: str
    every: Every | Duration
    kept: Duration
    calendar: Calendar

    def use(self, state: MemberState, period: int, at_ms: int, occurrence: Occurrence) -> LimitUse:
        """Return what was used in a calendar period: counted by changing it, the same object each time."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()
        newest = state.limits.get(self.key)
        if newest is not None:
            if newest.period == period:
                return newest
            if newest.period > period:
                return self._ended_use(state, self.key, period, at_ms, occurrence)
            _let_end(state, self.key, newest, at_ms)
        opened = state.limits[self.key] = LimitUse(period)
        return opened

    def value_use(self, state: MemberState, value: object, period: int, at_ms: int, occurrence: Occurrence) -> LimitUse:
        """Return what was used in a calendar period for a value of a field; all values at hand are of one period."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()
        memory, text = state.remembering(), value_key(value)
        values = memory.value_limits.setdefault(self.key, {})
        current = next(iter(values.values())).period if values else period
        if period < current:
            return self._ended_use(state, self._name(text), period, at_ms, occurrence)
        if period > current:
            for each, ended in values.items():
                _let_end(state, self._name(each), ended, at_ms)
            values.clear()
        found = values.get(text)
        if found is None and memory.crowded_out.get(self.key) == period:
            _recall(state, occurrence)
            found = _find(state, self._name(text), period)
        if found is not None:
            return found
        if len(values) >= VALUES_MAX:
            first = next(iter(values))
            _let_end(state, self._name(first), values.pop(first), self._end_ms(at_ms))
            memory.crowded_out[self.key] = period
        opened = values[text] = LimitUse(period)
        return opened

    def rolling_use(
        self, state: MemberState, at_ms: int, from_ms: int, occurrence: Occurrence
    ) -> RollingUse | ForgottenUse:
        """Return what was used since `from_ms`, itself outside; of a late event, the most of any window with it."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()
        return RollingUse(self, state, None, (from_ms, at_ms), occurrence)

    def rolling_value_use(
        self, state: MemberState, value: object, at_ms: int, from_ms: int, occurrence: Occurrence
    ) -> RollingUse | ForgottenUse:
        """Return the same for a value of a field."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()
        return RollingUse(self, state, value_key(value), (from_ms, at_ms), occurrence)

    def take_back(
        self, state: MemberState, value: str | None, at_ms: int, back: tuple[int, int], books: UseBooks
    ) -> None:
        """Give an amount and a number of times back to the period of an instant; nothing to one that is forgotten."""
        if not any(back) or self._forgets(state, at_ms):
            return
        if isinstance(self.every, Duration):
            self._take_from_window(state, value, at_ms, back, books)
            return
        period = period_of(self.every, at_ms, self.calendar)
        memory = state.memory
        if value is None:
            use = state.limits.get(self.key)
        else:
            use = None if memory is None else memory.value_limits.get(self.key, {}).get(value)
        if use is None or use.period != period:
            if state.use_pages:
                books.recall_uses(state)
            use = _find(state, self._name(value), period)
        if use is not None:
            use.take_back(*back)

    def windows(self, state: MemberState, value: str | None) -> tuple[dict[str, Window], str]:
        """Return where the window of a rolling limit lies, and under which key."""
        memory = state.remembering()
        if value is None:
            return memory.windows, self.key
        return memory.value_windows.setdefault(self.key, {}), value

    def make_room(self, state: MemberState, at_ms: int, from_ms: int) -> None:
        """Let the windows of values go that are over, and the first one where there are too many all the same."""
        memory = state.remembering()
        windows = memory.value_windows[self.key]
        for each in [each for each, window in windows.items() if not window.instants or window.instants[-1] <= from_ms]:
            self.let_end(state, each, windows.pop(each), INT64_MAX, at_ms)
        if len(windows) >= VALUES_MAX:
            first = next(iter(windows))
            window = windows.pop(first)
            last_ms = window.instants[-1]
            memory.crowded_out[self.key] = max(last_ms, memory.crowded_out.get(self.key, 0))
            self.let_end(state, first, window, INT64_MAX, self._after(last_ms))

    def let_end(self, state: MemberState, value: str | None, window: Window, upto_ms: int, ended_ms: int) -> None:
        """Let what a window has up to an instant join the uses of what has ended."""
        for instant, amount, times in window.let_go(upto_ms):
            _let_end(state, self._name(value), LimitUse(instant, amount, times), ended_ms)

    def enter_ended(self, state: MemberState, value: str | None, at_ms: int, amount: int, times: int) -> None:
        """Enter a late use of a rolling limit among those that have ended."""
        _let_end(state, self._name(value), LimitUse(at_ms, amount, times), self._after(at_ms))

    def ended(self, state: MemberState, value: str | None, occurrence: Occurrence) -> list[LimitUse]:
        """Return the uses of what has ended, the earliest first."""
        _recall(state, occurrence)
        return state.ended.get(self._name(value), [])

    def most_used(self, entries: list[LimitUse], at_ms: int) -> tuple[int, int]:
        """Return the largest amount, and number of times, of any window that holds an instant and ends with a use."""
        instants = [each.period for each in entries]
        amounts = [0, *accumulate(each.amount for each in entries)]
        times = [0, *accumulate(each.times for each in entries)]
        near = instants[: bisect_right(instants, self._after(at_ms) + SLACK_MS)]
        most = (0, 0)
        for from_ms, end_ms in windows_with(at_ms, near, self._before):
            first, end = bisect_right(instants, from_ms), bisect_right(instants, end_ms)
            most = (max(most[0], amounts[end] - amounts[first]), max(most[1], times[end] - times[first]))
        return most

    def _take_from_window(
        self, state: MemberState, value: str | None, at_ms: int, back: tuple[int, int], books: UseBooks
    ) -> None:
        """Take from the entry of an instant, or, where entries were merged, from the one that it became a part of."""
        windows, key = self.windows(state, value)
        window = windows.get(key)
        if window is not None and at_ms in window.instants:
            window.take(at_ms, *back, least=0)
            return
        if state.use_pages:
            books.recall_uses(state)
        ended = state.ended.get(self._name(value), [])
        place = bisect_left(ended, at_ms, key=_PERIOD)
        if place < len(ended) and (ended[place].period == at_ms or window is None or at_ms <= window.forgotten_ms):
            ended[place].take_back(*back)
        elif window is not None:
            window.take(at_ms, *back, least=0)

    def _name(self, value: str | None) -> str:
        """Return the name of a count among the uses of ended periods."""
        return self.key if value is None else f"{self.key}\0{value}"

    def _ended_use(self, state: MemberState, name: str, period: int, at_ms: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of an ended period, opened where nothing was used in it yet."""
        _recall(state, occurrence)
        uses = state.ended.setdefault(name, [])
        place = bisect_left(uses, period, key=_PERIOD)
        if place == len(uses) or uses[place].period != period:
            uses.insert(place, LimitUse(period, 0, 0, self._end_ms(at_ms)))
        return uses[place]

    def _forgets(self, state: MemberState, at_ms: int) -> bool:
        """Whether the use of the period of an instant is no longer known; a window ends with its event."""
        end_ms = self._end_ms(at_ms)
        return state.clock_ms > self.calendar.after(end_ms, self.kept) or end_ms <= state.uses_gone_ms

    def _end_ms(self, at_ms: int) -> int:
        return at_ms if isinstance(self.every, Duration) else bounds_of(self.every, at_ms, self.calendar)[1]

    def _before(self, at_ms: int) -> int:
        assert isinstance(self.every, Duration)  # noqa: S101  only what rolls is asked
        return self.calendar.before(at_ms, self.every)

    def _after(self, at_ms: int) -> int:
        assert isinstance(self.every, Duration)  # noqa: S101  as above
        return self.calendar.after(at_ms, self.every)


class RollingUse:
    """Count what a rolling limit has let through; used like the use of a calendar period, then recorded."""

    __slots__ = ("_before", "_count", "_span", "_state", "_value", "amount", "times")

    def __init__(
        self, count: LimitCount, state: MemberState, value: str | None, span: tuple[int, int], occurrence: Occurrence
    ) -> None:
        self._count, self._state, self._value, self._span = count, state, value, span
        self._before = self._used(occurrence)
        self.amount, self.times = self._before

    def _used(self, occurrence: Occurrence) -> tuple[int, int]:
        count, state, (from_ms, at_ms) = self._count, self._state, self._span
        windows, key = count.windows(state, self._value)
        window = windows.get(key)
        is_late = at_ms < state.clock_ms
        gone_ms = 0 if window is None else window.forgotten_ms
        if self._value is not None:
            gone_ms = max(gone_ms, state.remembering().crowded_out.get(count.key, 0))
        if not is_late and gone_ms <= from_ms:
            return (0, 0) if window is None else window.total(from_ms, at_ms)
        entries = [*count.ended(state, self._value, occurrence)]
        if window is not None:
            entries += map(LimitUse, window.instants, window.amounts, window.times)
        return count.most_used(sorted(entries, key=_PERIOD), at_ms)

    def record(self) -> None:
        """Enter what was given since, if anything was."""
        amount, times = self.amount - self._before[0], self.times - self._before[1]
        if not amount and not times:
            return
        count, state, (from_ms, at_ms) = self._count, self._state, self._span
        windows, key = count.windows(state, self._value)
        window = windows.get(key)
        is_late = at_ms < state.clock_ms
        if window is None:
            if self._value is not None:
                count.make_room(state, max(at_ms, state.clock_ms), from_ms)
            window = windows[key] = Window()
        elif is_late and at_ms <= window.forgotten_ms:
            count.enter_ended(state, self._value, at_ms, amount, times)
            return
        elif not is_late:
            count.let_end(state, self._value, window, from_ms, at_ms)
        window.enter(at_ms, amount, times, window.forgotten_ms)


def limit_count(programme: Programme, rule_id: str, scope: LimitScope) -> LimitCount:
    """Return what counts one of the limits of a programme's rule that are a member's own."""
    return LimitCount(scope.key(rule_id), scope.every, programme.terms.refunds.window, calendar_of(programme.timezone))


def kept_from_ms(programme: Programme, clock_ms: int) -> int:
    """Return an instant such that nobody can ask, at a member's clock or later, for a period that ended before it."""
    return _known_from_ms(programme, clock_ms) - SLACK_MS


def change_window(state: MemberState, before: Programme, after: Programme) -> None:
    """Take note of what was let go under another `refunds.window`: a longer one does not bring it back."""
    if before.terms.refunds.window != after.terms.refunds.window:
        state.uses_gone_ms = max(state.uses_gone_ms, _known_from_ms(before, state.clock_ms))


def _known_from_ms(programme: Programme, clock_ms: int) -> int:
    return calendar_of(programme.timezone).before(clock_ms, programme.terms.refunds.window)


def _let_end(state: MemberState, name: str, use: LimitUse, ended_ms: int) -> None:
    """Let a use join those of ended periods, where anything was used."""
    if not use.amount and not use.times:
        return
    use.ended_ms = ended_ms
    uses = state.ended.get(name)
    if uses is None:
        state.ended[name] = [use]
    elif uses[-1].period < use.period:
        uses.append(use)  # as all do that end in turn
    else:
        insort(uses, use, key=_PERIOD)


def _find(state: MemberState, name: str, period: int) -> LimitUse | None:
    uses = state.ended.get(name, [])
    place = bisect_left(uses, period, key=_PERIOD)
    return uses[place] if place < len(uses) and uses[place].period == period else None


def _recall(state: MemberState, occurrence: Occurrence) -> None:
    """Bring uses that lie beyond the state back into it."""
    if state.use_pages:
        assert occurrence.books is not None  # noqa: S101  the fold brings them where there are pages
        occurrence.books.recall_uses(state)
