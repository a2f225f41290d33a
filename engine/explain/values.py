"""Write values as the author of a programme writes them: money in major units, local times, durations, quoted texts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from engine.programme.conditions import MILLION, Duration, Kind
from engine.programme.file.currencies import MINOR_DIGITS
from engine.programme.file.literals import Weekday
from engine.programme.localtime import DAY_MS, DAY_ZERO, calendar_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.programme.localtime import Calendar
    from engine.programme.model import Programme

MISSING = "missing"
LISTED_MAX = 12
"""How many values of a list are written; the rest is counted."""
TEXT_CHARACTERS_MAX = 80
_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1_000, 60_000, 3_600_000
_LENGTHS = ((DAY_MS, "d"), (_HOUR_MS, "h"), (_MINUTE_MS, "m"), (_SECOND_MS, "s"))
_POINTS = ("points", "status")


@dataclass(frozen=True, slots=True)
class Wording:
    """Write the values of one programme; `digits` are the decimals of its currency."""

    currency: str
    digits: int
    calendar: Calendar
    refund_window: Duration

    @classmethod
    def of(cls, programme: Programme) -> Wording:
        """Return the wording of a programme's currency, time zone and refunds."""
        digits, window = MINOR_DIGITS[programme.currency], programme.terms.refunds.window
        return cls(programme.currency, digits, calendar_of(programme.timezone), window)

    def value(self, kind: Kind, value: Any) -> str:  # noqa: PLR0911  one answer for each kind
        """Write the value of a field, or a constant that the field is compared with; None is a missing value."""
        if value is None:
            return MISSING
        if isinstance(value, Duration):
            return duration(value)

        match kind:
            case Kind.TEXT:
                return quoted(str(value))
            case Kind.TEXTS:
                return quoted(value) if isinstance(value, str) else listed(map(quoted, value))
            case Kind.BOOLEAN:
                return "true" if value else "false"
            case Kind.WEEKDAY:
                return str(list(Weekday)[value])
            case Kind.CLOCK:
                return clock(value)
            case Kind.DATE:
                return day(value)
            case Kind.INSTANT:
                return self.instant(value)
            case _:
                return self.number(kind, value)

    def number(self, kind: Kind, value: int) -> str:
        """Write a number in the unit of its kind; an integer as it is."""
        if kind is Kind.MONEY:
            return self.money(value)
        if kind is Kind.DECIMAL:
            return decimal(value, MILLION)
        return str(value)

    def unit(self, kind: Kind) -> int:
        """Return how many integer units make 1 as it is written: 100 cents, a million millionths."""
        if kind is Kind.MONEY:
            return int(10**self.digits)
        return MILLION if kind is Kind.DECIMAL else 1

    def money(self, minor: int) -> str:
        """Write minor units as major ones, with all decimals of the currency."""
        if not self.digits:
            return str(minor)
        whole, rest = divmod(abs(minor), 10**self.digits)
        return f"{'-' if minor < 0 else ''}{whole}.{rest:0{self.digits}}"

    def instant(self, at_ms: int) -> str:
        """Write an instant as the local date and time of the programme."""
        days, clock_ms = divmod(self.calendar.local_time(at_ms), DAY_MS)
        return f"{day(days)} {clock(clock_ms)}"

    def reward(self, unit: str, amount: int, item: str | None) -> str:
        """Write an amount of a unit: 477 points, 1.09 USD, coupon "T", 3 gifts "S"."""
        if item is not None:
            return f"{unit} {quoted(item)}" if amount == 1 else f"{amount} {unit}s {quoted(item)}"
        if unit == self.currency:
            return f"{self.money(amount)} {unit}"
        if unit in _POINTS:
            return f"{amount} {'point' if unit == 'points' and amount == 1 else unit}"
        return f"{amount} {unit}"


def quoted(text: str) -> str:
    """Write a text in quotes, on one line, cut where it is long; unprintable characters are escaped."""
    cut = text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"
    return '"' + "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in cut) + '"'


def listed(texts: Iterable[str], joined: str = ", ") -> str:
    """Join texts; of a long list the first ones are written and the others counted."""
    words: Sequence[str] = list(texts)
    if len(words) <= LISTED_MAX:
        return joined.join(words)
    return joined.join([*words[:LISTED_MAX], f"{len(words) - LISTED_MAX} more"])


def decimal(numerator: int, denominator: int) -> str:
    """Write a fraction as a decimal if it has at most 12 decimals, else as a fraction."""
    for decimals in range(13):
        scaled, rest = divmod(abs(numerator) * 10**decimals, denominator)
        if not rest:
            whole, part = divmod(scaled, 10**decimals)
            return f"{'-' if numerator < 0 else ''}{whole}" + (f".{part:0{decimals}}" if decimals else "")
    return f"{numerator}/{denominator}"


def percent(numerator: int, denominator: int) -> str:
    """Write a fraction as a share: 5%, or 1/3 where that is no decimal."""
    hundredths = decimal(numerator * 100, denominator)
    return f"{numerator}/{denominator}" if "/" in hundredths else f"{hundredths}%"


def duration(length: Duration) -> str:
    """Write a duration as a programme has it: 15m, 6h, 90d, 12mo."""
    if length.months:
        return f"{length.months}mo"
    if length.ms:
        return f"{length.ms // _HOUR_MS}h" if length.ms % _HOUR_MS == 0 else f"{length.ms // _MINUTE_MS}m"
    return f"{length.days}d"


def elapsed(length_ms: int) -> str:
    """Write how much time lies between two instants, by its two largest parts: 30d 2h, 5m 1s."""
    rest, parts = abs(length_ms), []
    for unit_ms, name in _LENGTHS:
        count, rest = divmod(rest, unit_ms)
        if count:
            parts.append(f"{count}{name}")
    if not parts:
        parts = [f"{rest}ms"] if rest else ["0s"]
    return ("-" if length_ms < 0 else "") + " ".join(parts[:2])


def day(number: int) -> str:
    """Write a day, counted from 1970-01-01, as its date."""
    return date.fromordinal(number + DAY_ZERO).isoformat()


def clock(at_ms: int) -> str:
    """Write a time of day; seconds only where there are some."""
    hours, rest = divmod(at_ms, _HOUR_MS)
    minutes, rest = divmod(rest, _MINUTE_MS)
    return f"{hours:02}:{minutes:02}" + (f":{rest // _SECOND_MS:02}" if rest else "")
