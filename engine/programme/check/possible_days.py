"""Decide whether there is a day on which tests of date, weekday, day, month and instant all come out as wanted."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from engine.programme.conditions import Comparison, Field, FieldTest, Kind, LocalPart, LocalTime
from engine.programme.interpret.facts import MONDAY_OF_DAY_ZERO, passes
from engine.programme.localtime import DAY_MS, DAY_ZERO
from schemas.events import OCCURRED_AT_MS_END

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.localtime import Calendar

    Dated = dict[Field, list[tuple[FieldTest, bool]]]

YEARS_LOOKED_AT = 41
"""Within 40 years each date falls on each weekday, even 29 February around a century without a leap day."""
_DAYS_MAX = YEARS_LOOKED_AT * 366
_LEAP_YEAR = 2000
_LAST_DAY = (OCCURRED_AT_MS_END - 1) // DAY_MS
# By test, and whether it must pass: how far from its constant the least and the greatest possible value are.
_EXACT = dict.fromkeys(((Comparison.EQ, True), (Comparison.IN, True), (Comparison.BETWEEN, True)), 0)
_LEAST = {**_EXACT, (Comparison.GT, True): 1, (Comparison.GTE, True): 0, (Comparison.LT, False): 0,
          (Comparison.LTE, False): 1}  # fmt: skip
_MOST = {**_EXACT, (Comparison.LT, True): -1, (Comparison.LTE, True): 0, (Comparison.GT, False): 0,
         (Comparison.GTE, False): -1}  # fmt: skip
_VALUES: dict[LocalPart, Callable[[int, date], int]] = {
    LocalPart.WEEKDAY: lambda day, _: (day + MONDAY_OF_DAY_ZERO) % 7,
    LocalPart.DATE: lambda day, _: day,
    LocalPart.DAY: lambda _, on: on.day,
    LocalPart.MONTH: lambda _, on: on.month,
}


def days_may_pass(tests: Dated, calendar: Calendar) -> tuple[bool, int]:
    """Return whether there is such a day, and how many days were looked at."""
    # day and month alone, as 30 February is on no day of any year
    parts = {of.source.part: wanted for of, wanted in tests.items() if isinstance(of.source, LocalTime)}
    yearly: dict[LocalPart, list[tuple[FieldTest, bool]]] = {
        part: wanted for part, wanted in parts.items() if part in (LocalPart.DAY, LocalPart.MONTH)
    }
    first_day = date(_LEAP_YEAR, 1, 1).toordinal() - DAY_ZERO
    if not any(_passes(day, yearly) for day in range(first_day, first_day + 366)):
        return False, 366

    # the span that dates and instants leave
    instants = [each for of, wanted in tests.items() if of.kind is Kind.INSTANT for each in wanted]
    least_ms, most_ms = _range(instants, 0, OCCURRED_AT_MS_END - 1)
    if least_ms > most_ms:
        return False, 366
    bounds = calendar.local_day(least_ms), calendar.local_day(most_ms)
    first, last = _range(parts.get(LocalPart.DATE, []), max(bounds[0], 0), min(bounds[1], _LAST_DAY))

    # each day of it, until the calendar repeats itself
    looked_at = 366
    for day in range(first, min(last, first + _DAYS_MAX) + 1):
        looked_at += 1
        if _passes(day, parts):
            return True, looked_at

    # a list of dates does not repeat itself, so later ones are taken to be possible
    return last > first + _DAYS_MAX and LocalPart.DATE in parts, looked_at


def _passes(day: int, parts: dict[LocalPart, list[tuple[FieldTest, bool]]]) -> bool:
    on = date.fromordinal(day + DAY_ZERO)
    return all(
        passes(test, _VALUES[part](day, on)) is wanted for part, tests in parts.items() for test, wanted in tests
    )


def _range(tests: list[tuple[FieldTest, bool]], least: int, most: int) -> tuple[int, int]:
    """Return the least and the greatest value that the tests leave possible."""
    for test, wanted in tests:
        values = test.value if isinstance(test.value, tuple) else (test.value,)
        bounds = [each for each in values if isinstance(each, int)]
        if bounds and (test.comparison, wanted) in _LEAST:
            least = max(least, min(bounds) + _LEAST[test.comparison, wanted])
        if bounds and (test.comparison, wanted) in _MOST:
            most = min(most, max(bounds) + _MOST[test.comparison, wanted])
    return least, most
