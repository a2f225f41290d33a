"""Count what limits let through of a member's awards, alike for compiled and interpreted programmes.

The use of the running period is in the member's state. When a later period begins, it joins the uses of ended periods,
which become pages outside the state (`engine.store.members.uses`) that only late events and refunds read. A use is kept
until `refunds.window` after its period's end; after that it is forgotten, and limits let nothing more through.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

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


class Used(NamedTuple):
    """Say how much, and how many times, a rule gave under a limit."""

    amount: int
    times: int


class ForgottenUse(LimitUse, array_like=True, gc=False):
    """Stand for the use of a period that is forgotten: it leaves nothing of any limit."""

    @classmethod
    def any(cls) -> ForgottenUse:
        """Return a new one: callers change the uses that they get."""
        return cls(0, INT64_MAX, INT64_MAX)

    def record(self) -> None:
        """Do nothing, as nothing was given."""


def is_forgotten(use: object) -> bool:
    """Whether `use` stands for one that is forgotten."""
    return type(use) is ForgottenUse


def value_key(value: object) -> str:
    """Return a short text that stands for a value of a field in the state; a missing value has one of its own."""
    return "" if value is None else blake2b(str(value).encode(), digest_size=9).hexdigest()


@dataclass(frozen=True, slots=True)
class LimitCount:
    """Find the use of one limit of a rule in the period of an event; generated code calls it, too."""

    key: str
    """Names the count in the member's state."""

    every: Every | Duration
    """The calendar period, or the length of a rolling window."""

    window: Duration
    """How long the use of a period is kept after its end: the programme's `refunds.window`."""

    calendar: Calendar

    def use(self, state: MemberState, period: int, at_ms: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a calendar period; the caller counts by changing it, as it is always the same object."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()

        # the running period, an ended one of a late event, or the first use of a new one
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
        """Return the use of a calendar period for one value of a field.

        The state holds the uses of one period, the newest, for up to `VALUES_MAX` values.
        """
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()

        # a late event asks for an ended period; a later period ends the one before for all values
        memory, text = state.remembering(), value_key(value)
        values = memory.value_limits.setdefault(self.key, {})
        current = next(iter(values.values())).period if values else period
        if period < current:
            return self._ended_use(state, self._name(text), period, at_ms, occurrence)
        if period > current:
            for each, ended in values.items():
                _let_end(state, self._name(each), ended, at_ms)
            values.clear()

        # a value that had to make room for others in this period is among the ended ones
        use = values.get(text)
        if use is None and memory.crowded_out.get(self.key) == period:
            _recall(state, occurrence)
            use = _find(state, self._name(text), period)
        if use is not None:
            return use

        # open a use, for which the oldest value makes room where there are too many
        if len(values) >= VALUES_MAX:
            first = next(iter(values))
            _let_end(state, self._name(first), values.pop(first), self._end_ms(at_ms))
            memory.crowded_out[self.key] = period
        opened = values[text] = LimitUse(period)
        return opened

    def rolling_use(
        self, state: MemberState, at_ms: int, from_ms: int, occurrence: Occurrence
    ) -> RollingUse | ForgottenUse:
        """Return the use of the window after `from_ms`; for a late event, the largest of any window that holds it."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()
        return RollingUse(self, state, None, from_ms=from_ms, at_ms=at_ms, occurrence=occurrence)

    def rolling_value_use(
        self, state: MemberState, value: object, at_ms: int, from_ms: int, occurrence: Occurrence
    ) -> RollingUse | ForgottenUse:
        """Return the same for one value of a field."""
        if at_ms < state.clock_ms and self._forgets(state, at_ms):
            return ForgottenUse.any()
        return RollingUse(self, state, value_key(value), from_ms=from_ms, at_ms=at_ms, occurrence=occurrence)

    def take_back(self, state: MemberState, value: str | None, at_ms: int, back: Used, books: UseBooks) -> None:
        """Give a use back to the period of an instant, unless that period is forgotten."""
        if not any(back) or self._forgets(state, at_ms):
            return
        if isinstance(self.every, Duration):
            self._take_from_window(state, value, at_ms, back, books)
            return

        # the running period, or an ended one
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
        """Return the dictionary that holds the window of a rolling limit, and its key there."""
        memory = state.remembering()
        if value is None:
            return memory.windows, self.key
        return memory.value_windows.setdefault(self.key, {}), value

    def make_room(self, state: MemberState, at_ms: int, from_ms: int) -> None:
        """Remove the windows of values that are over, and the oldest one if there are still too many."""
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
        """Move the entries of a window up to an instant to the uses of ended periods."""
        for instant, amount, times in window.pop(upto_ms):
            _let_end(state, self._name(value), LimitUse(instant, amount, times), ended_ms)

    def enter_ended(self, state: MemberState, value: str | None, at_ms: int, amount: int, times: int) -> None:
        """Enter a late use of a rolling limit among the ended ones."""
        _let_end(state, self._name(value), LimitUse(at_ms, amount, times), self._after(at_ms))

    def ended(self, state: MemberState, value: str | None, occurrence: Occurrence) -> list[LimitUse]:
        """Return the uses of ended periods, the earliest first."""
        _recall(state, occurrence)
        return state.ended.get(self._name(value), [])

    def most_used(self, entries: list[LimitUse], at_ms: int) -> Used:
        """Return the largest amount, and the largest number of times, of all windows that hold an instant.

        Only windows that end with an entry are looked at; the others hold no more than one of these.
        """
        # running totals make the sum of a window a difference
        instants = [each.period for each in entries]
        amounts = [0, *accumulate(each.amount for each in entries)]
        times = [0, *accumulate(each.times for each in entries)]
        near = instants[: bisect_right(instants, self._after(at_ms) + SLACK_MS)]

        most = Used(0, 0)
        for from_ms, end_ms in windows_with(at_ms, near, self._before):
            first, end = bisect_right(instants, from_ms), bisect_right(instants, end_ms)
            most = Used(max(most.amount, amounts[end] - amounts[first]), max(most.times, times[end] - times[first]))
        return most

    def _take_from_window(self, state: MemberState, value: str | None, at_ms: int, back: Used, books: UseBooks) -> None:
        """Subtract from the entry of an instant; where entries were merged, from the one that holds it now."""
        windows, key = self.windows(state, value)
        window = windows.get(key)
        if window is not None and at_ms in window.instants:
            window.take(at_ms, *back, least=0)
            return

        # else the use is among the ended ones, or was merged with an entry of the window
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
        """Return the use of an ended period, a new one where nothing was used in it yet."""
        _recall(state, occurrence)
        uses = state.ended.setdefault(name, [])
        place = bisect_left(uses, period, key=_PERIOD)
        if place == len(uses) or uses[place].period != period:
            uses.insert(place, LimitUse(period, 0, 0, self._end_ms(at_ms)))
        return uses[place]

    def _forgets(self, state: MemberState, at_ms: int) -> bool:
        """Whether the use of an instant's period is forgotten; the period of a rolling limit ends at the instant."""
        end_ms = self._end_ms(at_ms)
        return state.clock_ms > self.calendar.after(end_ms, self.window) or end_ms <= state.uses_gone_ms

    def _end_ms(self, at_ms: int) -> int:
        return at_ms if isinstance(self.every, Duration) else bounds_of(self.every, at_ms, self.calendar)[1]

    def _before(self, at_ms: int) -> int:
        assert isinstance(self.every, Duration)  # only what rolls is asked
        return self.calendar.before(at_ms, self.every)

    def _after(self, at_ms: int) -> int:
        assert isinstance(self.every, Duration)
        return self.calendar.after(at_ms, self.every)


class RollingUse:
    """Count what a rolling limit lets through: like the use of a calendar period, but `record` must be called last."""

    __slots__ = ("_at_ms", "_before", "_count", "_from_ms", "_state", "_value", "amount", "times")

    def __init__(
        self,
        count: LimitCount,
        state: MemberState,
        value: str | None,
        *,
        from_ms: int,
        at_ms: int,
        occurrence: Occurrence,
    ) -> None:
        self._count, self._state, self._value = count, state, value
        self._from_ms, self._at_ms = from_ms, at_ms
        self._before = self._used(occurrence)
        self.amount, self.times = self._before

    def _used(self, occurrence: Occurrence) -> tuple[int, int]:
        """Return the amount and the number of times that were used in the window before the event."""
        count, state, from_ms, at_ms = self._count, self._state, self._from_ms, self._at_ms
        windows, key = count.windows(state, self._value)
        window = windows.get(key)

        # the window answers by itself where the event is not late and nothing of its span was moved out
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
        """Enter into the window the awards since this use was opened, if there were any."""
        amount, times = self.amount - self._before[0], self.times - self._before[1]
        if not amount and not times:
            return

        # a late use may belong to an entry that the window has moved out already; a new one moves out old entries
        count, state, from_ms, at_ms = self._count, self._state, self._from_ms, self._at_ms
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
    """Return the count of a rule's limit that holds for each member alone."""
    return LimitCount(scope.key(rule_id), scope.every, programme.terms.refunds.window, calendar_of(programme.timezone))


def kept_from_ms(programme: Programme, clock_ms: int) -> int:
    """Return an instant: at the member's clock or later, nobody asks for a period that ended before it."""
    return _known_from_ms(programme, clock_ms) - SLACK_MS


def change_window(state: MemberState, before: Programme, after: Programme) -> None:
    """Note which periods are forgotten under the old `refunds.window`: a longer new one does not bring them back."""
    if before.terms.refunds.window != after.terms.refunds.window:
        state.uses_gone_ms = max(state.uses_gone_ms, _known_from_ms(before, state.clock_ms))


def _known_from_ms(programme: Programme, clock_ms: int) -> int:
    return calendar_of(programme.timezone).before(clock_ms, programme.terms.refunds.window)


def _let_end(state: MemberState, name: str, use: LimitUse, ended_ms: int) -> None:
    """Move a use to those of ended periods, unless nothing was used."""
    if not use.amount and not use.times:
        return

    use.ended_ms = ended_ms
    uses = state.ended.get(name)
    if uses is None:
        state.ended[name] = [use]
    elif uses[-1].period < use.period:
        uses.append(use)  # nearly always: periods end in their order
    else:
        insort(uses, use, key=_PERIOD)


def _find(state: MemberState, name: str, period: int) -> LimitUse | None:
    uses = state.ended.get(name, [])
    place = bisect_left(uses, period, key=_PERIOD)
    return uses[place] if place < len(uses) and uses[place].period == period else None


def _recall(state: MemberState, occurrence: Occurrence) -> None:
    """Bring the member's uses of ended periods back into the state."""
    if state.use_pages:
        assert occurrence.books is not None  # the fold brings them where there are pages
        occurrence.books.recall_uses(state)
