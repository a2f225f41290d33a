"""Keep birthdays and anniversaries: each begins at local midnight and comes once a year."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from engine.ledger import ranks
from engine.member.state import birthday_of
from engine.programme.localtime import DAY_MS, DAY_ZERO, yearly_day
from engine.programme.occasions import Anniversary, Birthday
from schemas.canonical import occasion_identity

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.programme.localtime import Calendar
    from engine.programme.rules.judge import Judge

_LAST = {Birthday: "birthday", Anniversary: "anniversary"}
"""Names in the member's counters the last one kept, a birthday by its year and an anniversary by its number: moved by a
profile or by another time zone, neither comes again."""


def schedule(turn: Turn, after_ms: int) -> None:
    """Set when the next birthday and anniversary begin, where the programme has rules on them."""
    state, timed = turn.state, turn.judge.timed
    state.birthday_ms = _next_birthday(turn, after_ms) if Birthday in timed else None
    state.anniversary_ms = _next_anniversary(turn, after_ms) if Anniversary in timed else None
    state.note_due(state.birthday_ms)
    state.note_due(state.anniversary_ms)


def learn(turn: Turn, at_ms: int, birthday: str | None) -> None:
    """Set when they begin that a signup or a profile has told of: the local day on which it is told counts, too.

    Args:
        turn: of that event, which the member's profile has taken in.
        at_ms: when it occurred; what began between then and the member's clock is due at once.
        birthday: as it was known before.
    """
    state, timed = turn.state, turn.judge.timed
    told = birthday_of(state)
    if Birthday in timed and told is not None and (birthday is None or told[-5:] != birthday[-5:]):
        day, today = _month_and_day(told), turn.calendar.local_day(at_ms)
        is_today = today == yearly_day(_year(turn.calendar, at_ms), *day)
        is_kept = is_today and _after_last(turn, Birthday) > _year(turn.calendar, at_ms)
        state.birthday_ms = at_ms if is_today and not is_kept else _next_birthday(turn, at_ms)
    if Anniversary in timed and state.anniversary_ms is None:
        state.anniversary_ms = _next_anniversary(turn, at_ms)
    state.note_due(state.birthday_ms)
    state.note_due(state.anniversary_ms)


def follow(turn: Turn, before: Judge, at_ms: int) -> None:
    """Set anew, as of an instant, what rests on what differs from the version before: rules on the day, or midnight."""
    state, timed = turn.state, turn.judge.timed
    is_moved = turn.judge.programme.timezone != before.programme.timezone
    if not is_moved and timed == before.timed:
        return
    birthday_ms, anniversary_ms = state.birthday_ms, state.anniversary_ms
    schedule(turn, at_ms)
    if not is_moved and (Birthday in timed) == (Birthday in before.timed):
        state.birthday_ms = birthday_ms
    if not is_moved and (Anniversary in timed) == (Anniversary in before.timed):
        state.anniversary_ms = anniversary_ms


def celebrate(turn: Turn, at_ms: int) -> None:
    """Judge the rules on a birthday or an anniversary that begins at this instant."""
    state = turn.state
    if state.birthday_ms is not None and state.birthday_ms <= at_ms:
        year = _year(turn.calendar, at_ms)
        identity = occasion_identity("birthday", turn.member_id, year)
        day = Birthday(event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms)
        _run_rules(turn, day, identity, year)
        state.birthday_ms = _next_birthday(turn, at_ms)
    if state.anniversary_ms is not None and state.anniversary_ms <= at_ms and state.signup_ms is not None:
        years = _year(turn.calendar, at_ms) - _year(turn.calendar, state.signup_ms)
        identity = occasion_identity("anniversary", turn.member_id, years)
        back = Anniversary(event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms, years=years)
        _run_rules(turn, back, identity, years)
        state.anniversary_ms = _next_anniversary(turn, at_ms)


def _run_rules(turn: Turn, day: Birthday | Anniversary, identity: bytes, number: int) -> None:
    """Judge the rules on a day, and let tiers take in at once what they give: a tick has no event that would do it."""
    turn.state.remembering().counters[_LAST[type(day)]] = [number]
    turn.run_rules(day, identity)
    if turn.judge.tier_clock is not None:
        ranks.count_gained(turn, day.occurred_at, None)


def _next_birthday(turn: Turn, after_ms: int) -> int | None:
    birthday = birthday_of(turn.state)
    if birthday is None:
        return None
    return _next(turn.calendar, _month_and_day(birthday), after_ms, _after_last(turn, Birthday))


def _next_anniversary(turn: Turn, after_ms: int) -> int | None:
    if turn.state.signup_ms is None:
        return None
    joined = date.fromordinal(turn.calendar.local_day(turn.state.signup_ms) + DAY_ZERO)
    first_year = joined.year + max(1, _after_last(turn, Anniversary))
    return _next(turn.calendar, (joined.month, joined.day), after_ms, first_year)


def _after_last(turn: Turn, kind: type[Birthday | Anniversary]) -> int:
    """Return the number of the first one that a member has not had yet; 0: they had none."""
    memory = turn.state.memory
    last = None if memory is None else memory.counters.get(_LAST[kind])
    return 0 if last is None else last[0] + 1


def _month_and_day(birthday: str) -> tuple[int, int]:
    return int(birthday[-5:-3]), int(birthday[-2:])


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
