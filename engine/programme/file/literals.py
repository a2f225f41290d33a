"""Parse durations, times, dates and quantities: the constants with which conditions compare fields.

As in `scalars`, each function returns the value, or None after it has recorded what is wrong.
"""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from engine.programme.conditions import Duration, Kind
from engine.programme.file.nodes import Scalar
from engine.programme.file.problems import Code
from engine.programme.file.scalars import boolean_of, choice_of, integer_of, kind_of, money_of, text_of
from engine.programme.localtime import DAY_MS, DAY_ZERO
from schemas.events import INT64_MAX
from schemas.rejection import Rejected
from schemas.scalars import instant_from_iso

if TYPE_CHECKING:
    from engine.programme.conditions import Literal
    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problems
    from engine.programme.localtime import Calendar

_DURATION = re.compile(r"([0-9]{1,6})(m|h|d|w|mo|y)\Z")
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])\Z")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})\Z")
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
QUANTITY_DECIMALS = 6
DAYS_MAX = 36_525
"""A hundred years: nobody means longer, and the calendar cannot hold much more."""


class Measures(NamedTuple):
    """Say how a programme writes values: the decimals of its currency, and its calendar."""

    digits: int
    calendar: Calendar


class Weekday(StrEnum):
    """Name the days of the week, from Monday."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


def is_duration(text: str) -> bool:
    """Whether `text` is written as a duration."""
    return _DURATION.match(text) is not None


def duration_of(node: Node, what: str, problems: Problems, *, least: int = 1) -> Duration | None:
    """Read a duration such as 15m, 6h, 90d, 8w, 12mo or 1y, at most a hundred years."""
    text = text_of(node, what, problems)
    if text is None:
        return None

    # a number and a unit
    match = _DURATION.match(text)
    if match is None:
        message = f"{what} must be a duration such as 15m, 6h, 90d, 8w, 12mo or 1y, not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None
    number, unit = int(match[1]), match[2]
    length = {
        "m": Duration(ms=number * _MINUTE_MS), "h": Duration(ms=number * _HOUR_MS), "d": Duration(days=number),
        "w": Duration(days=number * 7), "mo": Duration(months=number), "y": Duration(months=number * 12),
    }[unit]  # fmt: skip

    if number < least or length_ms(length) > DAYS_MAX * DAY_MS:
        message = f"{what} must be from {least}{unit} to a hundred years, not {text}"
        problems.error(node.place, Code.OUT_OF_RANGE, message)
        return None
    return length


def validity_of(node: Node, problems: Problems) -> Duration | None:
    """Read how long points last; `none` means for ever."""
    if isinstance(node, Scalar) and node.text == "none":
        return None
    return duration_of(node, "validity", problems)


def length_ms(duration: Duration) -> int:
    """Return about how long a duration is, to compare it with others; a month counts 365.25 days / 12."""
    return duration.ms + duration.days * DAY_MS + duration.months * (36_525 * DAY_MS // 1200)


def clock_of(node: Node, what: str, problems: Problems) -> int | None:
    """Read a time of day such as 17:00, up to 24:00, as milliseconds."""
    text = text_of(node, what, problems)
    if text is None:
        return None
    match = _CLOCK.match(text)
    if match is None or (match[1] == "24" and match[2] != "00"):
        problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a time such as 17:00, not {kind_of(node)}")
        return None
    return int(match[1]) * _HOUR_MS + int(match[2]) * _MINUTE_MS


def day_of(node: Node, what: str, problems: Problems) -> int | None:
    """Read a date such as 2026-07-01 as days since 1970-01-01."""
    text = text_of(node, what, problems)
    if text is None:
        return None

    match = _DATE.match(text)
    try:
        day = None if match is None else date(*map(int, match.groups()))
    except ValueError:
        day = None
    if day is None or not 1970 <= day.year < 3000:
        message = f"{what} must be a date such as 2026-07-01, from 1970 to 2999, not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None
    return day.toordinal() - DAY_ZERO


def instant_of(node: Node, what: str, problems: Problems, calendar: Calendar) -> int | None:
    """Read an instant with an offset, or a date, which means its local midnight."""
    text = text_of(node, what, problems)
    if text is None:
        return None
    if "T" in text or "t" in text or " " in text:
        try:
            return instant_from_iso(text, what)
        except Rejected as rejected:
            problems.error(node.place, Code.WRONG_TYPE, rejected.message)
            return None
    day = day_of(node, what, problems)
    return None if day is None else calendar.instant_of(day * DAY_MS)


def literal_of(  # noqa: C901, PLR0911  one answer for each kind
    kind: Kind, node: Node, what: str, problems: Problems, measures: Measures
) -> Literal | None:
    """Read a constant with which a field of `kind` is compared."""
    match kind:
        # numbers and truth values
        case Kind.MONEY:
            return money_of(node, what, problems, measures.digits)
        case Kind.DECIMAL:
            return money_of(node, what, problems, QUANTITY_DECIMALS, unit="number")
        case Kind.INTEGER:
            return integer_of(node, what, problems, least=-INT64_MAX)
        case Kind.BOOLEAN:
            return boolean_of(node, what, problems)

        # days and times
        case Kind.WEEKDAY:
            chosen = choice_of(node, what, problems, Weekday)
            return None if chosen is None else list(Weekday).index(chosen)
        case Kind.CLOCK:
            return clock_of(node, what, problems)
        case Kind.DATE:
            return day_of(node, what, problems)
        case Kind.INSTANT:
            return instant_of(node, what, problems, measures.calendar)
        case Kind.AGE:
            return duration_of(node, what, problems)
        case Kind.RECURRING:
            return duration_of(node, what, problems, least=0)

        case _:
            return text_of(node, what, problems)
