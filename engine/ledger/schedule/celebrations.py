"""Celebrate birthdays and anniversaries: each begins at local midnight and comes once a year."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from engine.ledger import ranks
from engine.ledger.grants import run_rules
from engine.member.state import birthday_of
from engine.programme.localtime import DAY_MS, DAY_ZERO, yearly_day
from engine.programme.occasions import Anniversary, Birthday
from schemas.canonical import occasion_identity

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.programme.localtime import Calendar
    from engine.programme.rules.judge import Judge

_LAST = {Birthday: "birthday", Anniversary: "anniversary"}
"""The member's counters that hold the last celebration: the year of a birthday, the number of an anniversary.

A profile or another time zone may move the day, but never brings the same celebration twice.
"""


class _YearlyDay(NamedTuple):
    """Name a day that comes once a year."""

    month: int
    day: int


def schedule(turn: Turn, after_ms: int) -> None:
    """Set when the next birthday and anniversary begin, where the programme has rules on them."""
    state, timed = turn.state, turn.judge.timed
    state.birthday_ms = _next_birthday(turn, after_ms) if Birthday in timed else None
    state.anniversary_ms = _next_anniversary(turn, after_ms) if Anniversary in timed else None
    state.note_due(state.birthday_ms)
    state.note_due(state.anniversary_ms)


def learn(turn: Turn, at_ms: int, birthday: str | None) -> None:
    """Set when the next birthday and anniversary begin after a signup or a profile; a birthday today counts.

    Args:
        turn: the turn of that event; the profile already has what the event brought.
        at_ms: when that event occurred; a day that began between then and the member's clock is due at once.
        birthday: the birthday in the profile before the event.
    """
    state, timed = turn.state, turn.judge.timed

    # a birthday on another day than before; the year does not matter
    new = birthday_of(state)
    if Birthday in timed and new is not None and (birthday is None or new[-5:] != birthday[-5:]):
        day, today = _day_of(new), turn.calendar.local_day(at_ms)
        is_today = today == yearly_day(_year(turn.calendar, at_ms), *day)
        is_celebrated = is_today and _next_number(turn, Birthday) > _year(turn.calendar, at_ms)
        state.birthday_ms = at_ms if is_today and not is_celebrated else _next_birthday(turn, at_ms)

    if Anniversary in timed and state.anniversary_ms is None:
        state.anniversary_ms = _next_anniversary(turn, at_ms)
    state.note_due(state.birthday_ms)
    state.note_due(state.anniversary_ms)


def follow(turn: Turn, before: Judge, at_ms: int) -> None:
    """Set the next birthday and anniversary again where one version only has rules on them, or the time zone differs.

    Args:
        turn: the turn of the member who follows the new version.
        before: the version before.
        at_ms: the instant from which on the new version holds.
    """
    state, timed = turn.state, turn.judge.timed
    is_moved = turn.judge.programme.timezone != before.programme.timezone
    if not is_moved and timed == before.timed:
        return

    # a day stays as it was where neither its rules nor the time zone differ
    birthday_ms, anniversary_ms = state.birthday_ms, state.anniversary_ms
    schedule(turn, at_ms)
    if not is_moved and (Birthday in timed) == (Birthday in before.timed):
        state.birthday_ms = birthday_ms
    if not is_moved and (Anniversary in timed) == (Anniversary in before.timed):
        state.anniversary_ms = anniversary_ms


def celebrate(turn: Turn, at_ms: int) -> None:
    """Run the rules on a birthday or an anniversary that begins at this instant."""
    state = turn.state
    if state.birthday_ms is not None and state.birthday_ms <= at_ms:
        year = _year(turn.calendar, at_ms)
        identity = occasion_identity("birthday", turn.member_id, year)
        birthday = Birthday(event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms)
        _run_rules(turn, birthday, identity, year)
        state.birthday_ms = _next_birthday(turn, at_ms)

    if state.anniversary_ms is not None and state.anniversary_ms <= at_ms and state.signup_ms is not None:
        years = _year(turn.calendar, at_ms) - _year(turn.calendar, state.signup_ms)
        identity = occasion_identity("anniversary", turn.member_id, years)
        anniversary = Anniversary(event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms, years=years)
        _run_rules(turn, anniversary, identity, years)
        state.anniversary_ms = _next_anniversary(turn, at_ms)


def _run_rules(turn: Turn, day: Birthday | Anniversary, identity: bytes, number: int) -> None:
    """Run the rules on a day, and let the tiers count at once what they give: a tick has no event that would do it."""
    turn.state.remembering().counters[_LAST[type(day)]] = [number]
    run_rules(turn, day, identity)
    if turn.judge.tier_clock is not None:
        ranks.count_gained(turn, day.occurred_at, None)


def _next_birthday(turn: Turn, after_ms: int) -> int | None:
    birthday = birthday_of(turn.state)
    if birthday is None:
        return None
    return _next(turn.calendar, _day_of(birthday), after_ms, _next_number(turn, Birthday))


def _next_anniversary(turn: Turn, after_ms: int) -> int | None:
    if turn.state.signup_ms is None:
        return None
    joined = date.fromordinal(turn.calendar.local_day(turn.state.signup_ms) + DAY_ZERO)
    first_year = joined.year + max(1, _next_number(turn, Anniversary))
    return _next(turn.calendar, _YearlyDay(joined.month, joined.day), after_ms, first_year)


def _next_number(turn: Turn, kind: type[Birthday | Anniversary]) -> int:
    """Return the number after that of the member's last celebration; 0 where there was none."""
    memory = turn.state.memory
    last = None if memory is None else memory.counters.get(_LAST[kind])
    return 0 if last is None else last[0] + 1


def _day_of(birthday: str) -> _YearlyDay:
    return _YearlyDay(month=int(birthday[-5:-3]), day=int(birthday[-2:]))


def _next(calendar: Calendar, day: _YearlyDay, after_ms: int, first_year: int) -> int:
    """Return the first local midnight of a yearly day after an instant, in `first_year` or later."""
    year = max(_year(calendar, after_ms), first_year)
    while True:
        at_ms = calendar.instant_of(yearly_day(year, *day) * DAY_MS)
        if at_ms > after_ms:
            return at_ms
        year += 1


def _year(calendar: Calendar, at_ms: int) -> int:
    return date.fromordinal(calendar.local_day(at_ms) + DAY_ZERO).year
