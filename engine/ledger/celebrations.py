"""Keep birthdays and anniversaries: each begins at local midnight and comes once a year."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from engine.ledger import ranks
from engine.profile import birthday_of
from engine.programme.localtime import DAY_MS, DAY_ZERO, yearly_day
from engine.programme.occasions import Anniversary, Birthday
from schemas.canonical import occasion_identity

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.programme.localtime import Calendar

_LAST = "birthday"
"""Names in the member's counters the year of the last birthday kept, so that moving it brings no second one."""


def schedule(turn: Turn, after_ms: int) -> None:
    """Set when the next birthday and anniversary begin, where the programme has rules on them."""
    state, timed = turn.state, turn.judge.timed
    state.birthday_ms = _next_birthday(turn, after_ms) if Birthday in timed else None
    state.anniversary_ms = None
    if Anniversary in timed and state.signup_ms is not None:
        first = turn.calendar.local_day(state.signup_ms)
        born = date.fromordinal(first + DAY_ZERO)
        state.anniversary_ms = _next(turn.calendar, (born.month, born.day), after_ms, born.year + 1)
    state.is_due(state.birthday_ms)
    state.is_due(state.anniversary_ms)


def celebrate(turn: Turn, at_ms: int) -> None:
    """Judge the rules on a birthday or an anniversary that begins at this instant."""
    state = turn.state
    if state.birthday_ms is not None and state.birthday_ms <= at_ms:
        year = _year(turn.calendar, at_ms)
        state.remembering().counters[_LAST] = [year]
        identity = occasion_identity("birthday", turn.member_id, year)
        _run_rules(turn, Birthday(event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms), identity)
        state.birthday_ms = _next_birthday(turn, at_ms)
    if state.anniversary_ms is not None and state.anniversary_ms <= at_ms and state.signup_ms is not None:
        years = _year(turn.calendar, at_ms) - _year(turn.calendar, state.signup_ms)
        identity = occasion_identity("anniversary", turn.member_id, years)
        _run_rules(
            turn,
            Anniversary(event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms, years=years),
            identity,
        )
        born = date.fromordinal(turn.calendar.local_day(state.signup_ms) + DAY_ZERO)
        state.anniversary_ms = _next(turn.calendar, (born.month, born.day), at_ms, born.year + 1)


def _run_rules(turn: Turn, day: Birthday | Anniversary, identity: bytes) -> None:
    """Judge the rules on a day, and let tiers take in at once what they give: a tick has no event that would do it."""
    turn.run_rules(day, identity)
    if turn.judge.tier_clock is not None:
        ranks.count_gained(turn, day.occurred_at, None)


def _next_birthday(turn: Turn, after_ms: int) -> int | None:
    birthday = birthday_of(turn.state)
    if birthday is None:
        return None
    memory = turn.state.memory
    last = None if memory is None else memory.counters.get(_LAST)
    day = (int(birthday[-5:-3]), int(birthday[-2:]))
    return _next(turn.calendar, day, after_ms, 0 if last is None else last[0] + 1)


def _next(calendar: Calendar, day: tuple[int, int], after_ms: int, first_year: int) -> int:
    """Return the first local midnight of a month and day after an instant, in `first_year` or later."""
    year = max(_year(calendar, after_ms), first_year)
    while True:
        at_ms = calendar.instant_of(yearly_day(year, *day) * DAY_MS)
        if at_ms > after_ms:
            return at_ms
        year += 1


def _year(calendar: Calendar, at_ms: int) -> int:
    return date.fromordinal(calendar.local_day(at_ms) + DAY_ZERO).year
