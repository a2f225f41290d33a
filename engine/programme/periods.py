"""Know the calendar periods of contests and limits: which one holds an instant, and when it ends."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from engine.programme.conditions import Every
from engine.programme.interpret.facts import MONDAY_OF_DAY_ZERO, period_of
from engine.programme.localtime import DAY_MS, DAY_ZERO, calendar_of
from schemas.events import OCCURRED_AT_MS_END

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.localtime import Calendar
    from engine.programme.model import Programme
    from engine.programme.terms import Contest


class Ended(NamedTuple):
    """Name a period of a contest that has ended, and when it did."""

    contest: Contest
    period: int
    end_ms: int


def period_at(contest: Contest, at_ms: int, calendar: Calendar) -> int | None:
    """Return the number of the period that holds an instant, None where none does."""
    if contest.every is not None:
        return period_of(contest.every, at_ms, calendar)
    return 0 if contest.from_ms <= at_ms < contest.until_ms else None


def end_of(contest: Contest, period: int, calendar: Calendar) -> int:
    """Return the first instant (ms) after a period of a contest."""
    if contest.every is None:
        return contest.until_ms
    return calendar.instant_of(_first_day_after(contest.every, period) * DAY_MS)


def bounds_of(every: Every, at_ms: int, calendar: Calendar) -> tuple[int, int]:
    """Return the first instant of the calendar period that holds an instant, and the first after it."""
    if every is Every.LIFETIME:
        return 0, OCCURRED_AT_MS_END
    period = period_of(every, at_ms, calendar)
    first, end = (calendar.instant_of(_first_day_after(every, each) * DAY_MS) for each in (period - 1, period))
    return first, end


def next_end(programme: Programme, after_ms: int) -> int | None:
    """Return the first instant after another at which a period of a programme's contests ends; None: there is none."""
    calendar = calendar_of(programme.timezone)
    ends = [
        end_of(contest, period, calendar)
        for contest in programme.terms.contests
        if (period := period_at(contest, after_ms, calendar)) is not None
    ]
    ends += [
        contest.until_ms for contest in programme.terms.contests if contest.every is None and contest.from_ms > after_ms
    ]
    return min((end for end in ends if end > after_ms), default=None)


def ended_by(programme: Programme, periods: Iterable[tuple[str, int]], until_ms: int) -> list[Ended]:
    """Return which of some periods have ended by an instant, the earliest end first.

    Args:
        programme: has the contests; periods of other contests are left out.
        periods: each the id of a contest and the number of its period.
        until_ms: the instant.
    """
    calendar = calendar_of(programme.timezone)
    contests = {contest.id: contest for contest in programme.terms.contests}
    ends = [
        Ended(contests[contest], period, end_of(contests[contest], period, calendar))
        for contest, period in periods
        if contest in contests
    ]
    return sorted((each for each in ends if each.end_ms <= until_ms), key=lambda each: (each.end_ms, each.contest.id))


def _first_day_after(every: Every, period: int) -> int:
    """Return the first local day, counted from 1970, after a period."""
    following = period + 1
    if every is Every.DAY:
        return following
    if every is Every.WEEK:
        return following * 7 - MONDAY_OF_DAY_ZERO
    months = {Every.MONTH: following, Every.QUARTER: following * 3, Every.YEAR: following * 12}[every]
    return date(months // 12, months % 12 + 1, 1).toordinal() - DAY_ZERO
