"""Bring quantities, instants and birthdays into the form in which they are compared and stored."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from numbers import Real

from schemas.events import OCCURRED_AT_MS_END
from schemas.rejection import Reason, Rejected

QUANTITY_INTEGER_DIGITS_MAX = 12
QUANTITY_DECIMALS_MAX = 6
SHOWN_CHARACTERS_MAX = 60

COMMON_QUANTITIES = frozenset(str(pieces) for pieces in range(1000))
"""Quantities that are canonical already; a caller may skip `canonical_quantity` for these, which nearly all are."""

_LIKELY_MS = range(631_152_000_000, 4_102_444_800_000)
"""The years 1990 to 2099, in which nearly all events have happened."""
_UNITS_MS = (
    ("seconds", Fraction(1000)), ("milliseconds", Fraction(1)), ("microseconds", Fraction(1, 1000)),
    ("nanoseconds", Fraction(1, 1_000_000)),
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DECIMAL = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_INSTANT = re.compile(
    r"(?P<year>[0-9]{4})-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]{1,9})?)?"
    r"(?P<offset>[Zz]|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_BIRTHDAY = re.compile(r"([0-9]{4}|-)-([0-9]{2})-([0-9]{2})", re.ASCII)
_LEAP_YEAR = 2000


def shown(value: object) -> str:
    """Return `value` as it stands in a sentence for a person: quoted, on one line, cut where it is long."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    try:
        text = str(value) if isinstance(value, Decimal) else repr(value)
    except ValueError:
        return "a number of more than 4,300 digits"
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"


def canonical_quantity(value: object, path: str) -> str:
    """Return the decimal `value` (text or number) without exponent and trailing zeros: "1.50" and 1.5 give "1.5".

    Raises:
        Rejected: wrong_type where it is no decimal, out_of_range where it is negative or has too many digits.
    """
    # its sign and size
    number = _decimal(value)
    if number is None:
        raise Rejected(Reason.WRONG_TYPE, f"{path}: {shown(value)} is no quantity; write a decimal such as 1 or 0.75")
    if number < 0:
        raise Rejected(Reason.OUT_OF_RANGE, f"{path}: the quantity {shown(value)} is negative")
    if number and number.adjusted() >= QUANTITY_INTEGER_DIGITS_MAX:
        raise Rejected(Reason.OUT_OF_RANGE, f"{path}: {shown(value)} has more than 12 digits before the point")

    # its decimals, without trailing zeros
    _, digits, exponent = number.as_tuple()
    significant = "".join(map(str, digits)).rstrip("0")
    decimals = int(exponent) * -1 - (len(digits) - len(significant))
    if number and decimals > QUANTITY_DECIMALS_MAX:
        raise Rejected(Reason.OUT_OF_RANGE, f"{path}: {shown(value)} has more than 6 digits behind the point")

    text = f"{abs(number):f}" if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimal(value: object) -> Decimal | None:
    """Return `value` as a finite decimal, or None where it is none; a bool is no number."""
    if isinstance(value, str):
        return Decimal(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, Real)):
        return None
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):  # ValueError: an integer of more than 4,300 digits has no text
        return None
    return number if number.is_finite() else None


def instant_from_iso(value: object, path: str) -> int:
    """Return the milliseconds since 1970 UTC of an ISO-8601 time with offset; finer digits are cut off.

    Raises:
        Rejected: wrong_type where it is no such time, out_of_range where it lies before 1970 or after 2999
            (admission begins in 1972, `schemas.bounds`).
    """
    # the form, with an offset
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if not isinstance(value, str) or match is None:
        unit, at = _likely(value) if isinstance(value, int) else ("", "")
        like = f"it looks like {unit}, so write {at}" if unit else "write it like 2024-05-01T18:30:00+08:00 or …Z"
        raise Rejected(Reason.WRONG_TYPE, f"{path}: {shown(value)} is no time; {like}")
    if match["offset"] is None:
        raise Rejected(
            Reason.WRONG_TYPE, f"{path}: {shown(value)} has no offset; append Z for UTC, or one such as +08:00"
        )

    # the instant, within the years that the log can hold
    if match["year"] == "0000":
        raise Rejected(Reason.OUT_OF_RANGE, f"{path}: the year of {shown(value)} is not between 1972 and 2999")
    try:
        at_ms = (datetime.fromisoformat(value.upper()) - _EPOCH) // _MILLISECOND
    except ValueError as error:
        raise Rejected(Reason.WRONG_TYPE, f"{path}: {shown(value)} is no time: {error}") from None
    if not 0 <= at_ms < OCCURRED_AT_MS_END:
        raise Rejected(Reason.OUT_OF_RANGE, f"{path}: the year of {shown(value)} is not between 1972 and 2999")
    return at_ms


def beyond_years(path: str, at_ms: int) -> Rejected:
    """Return the verdict on an instant (ms since 1970) outside of 1972 to 2999; it guesses the unit of the number."""
    of = f" of {iso_from_instant(at_ms)}" if 0 <= at_ms < OCCURRED_AT_MS_END else ""
    unit, at = _likely(at_ms)
    looks = f"; {at_ms} looks like {unit} ({at}): send milliseconds" if unit else ""
    return Rejected(Reason.OUT_OF_RANGE, f"{path}: the year{of} is not between 1972 and 2999{looks}")


def _likely(number: int) -> tuple[str, str]:
    """Return the unit in which a number is a likely time since 1970, and that time; empty texts if there is none."""
    for unit, ms in _UNITS_MS:
        if (at_ms := int(number * ms)) in _LIKELY_MS:
            return unit, iso_from_instant(at_ms)
    return "", ""


def iso_from_instant(at_ms: int) -> str:
    """Return milliseconds since 1970 as an ISO-8601 time in UTC, with a fraction only if there is one."""
    text = (_EPOCH + at_ms * _MILLISECOND).isoformat(timespec="milliseconds" if at_ms % 1000 else "seconds")
    return text.replace("+00:00", "Z")


def check_birthday(value: str, path: str) -> None:
    """Refuse a birthday that is no real day written `YYYY-MM-DD` or `--MM-DD`.

    Raises:
        Rejected: wrong_type for another form, out_of_range for a day that no calendar has.
    """
    match = _BIRTHDAY.fullmatch(value)
    if match is None:
        raise Rejected(Reason.WRONG_TYPE, f"{path}: {shown(value)} is no birthday; write YYYY-MM-DD or --MM-DD")
    year, month, day = match.groups()
    try:
        date(_LEAP_YEAR if year == "-" else int(year), int(month), int(day))
    except ValueError:
        raise Rejected(Reason.OUT_OF_RANGE, f"{path}: {shown(value)} is a day that no calendar has") from None
