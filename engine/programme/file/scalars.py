"""Parse the text of a value by the type of its field; no amount ever passes through a float.

Each function returns the value, or None after it has recorded what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import TYPE_CHECKING, TypeVar

from engine.programme.file.nodes import Mapping, Scalar, Sequence
from engine.programme.file.problems import Code, shown
from schemas.events import ID_CHARACTERS_MAX, INT64_MAX

if TYPE_CHECKING:
    from enum import StrEnum

    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problems

_INTEGER = re.compile(r"-?[0-9]{1,40}\Z")
_DECIMAL = re.compile(r"(-?[0-9]{1,40})(?:\.([0-9]{1,40}))?\Z")
_SHARE = re.compile(
    r"(?:(?P<whole>[0-9]{1,6})(?:\.(?P<fraction>[0-9]{1,9}))?%|(?P<part>[0-9]{1,18})/(?P<of>[0-9]{1,18}))\Z"
)
RATE_DECIMALS_MAX = 18


@dataclass(frozen=True, slots=True)
class Decimal:
    """Hold an exact decimal: `digits / 10 ** scale`."""

    digits: int
    scale: int


EnumT = TypeVar("EnumT", bound="StrEnum")
Money = TypeVar("Money", int, Fraction)


def kind_of(node: Node) -> str:
    """Return a word for the written value, for a message."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    return f'"{shown(node.text)}"'


def text_of(node: Node, what: str, problems: Problems) -> str | None:
    """Read any text that is not left empty."""
    if not isinstance(node, Scalar):
        problems.error(node.place, Code.WRONG_TYPE, f"{what} must be one value, not {kind_of(node)}")
        return None
    if node.plain and not node.text:
        problems.error(node.place, Code.MISSING_VALUE, f"{what} has no value; write one, or take the name out")
        return None
    return node.text


def name_of(node: Node, what: str, problems: Problems) -> str | None:
    """Read a name that becomes part of keys: 1 to 200 printable characters."""
    text = text_of(node, what, problems)
    if text is None:
        return None
    if not text or len(text) > ID_CHARACTERS_MAX or not text.isprintable():
        message = f"{what} must have 1 to {ID_CHARACTERS_MAX} characters, none of them a control character"
        problems.error(node.place, Code.OUT_OF_RANGE, message)
        return None
    return text


def integer_of(node: Node, what: str, problems: Problems, *, least: int, most: int = INT64_MAX) -> int | None:
    """Read a whole number between `least` and `most`."""
    text = text_of(node, what, problems)
    if text is None:
        return None
    if not _INTEGER.match(text):
        problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a whole number, not {kind_of(node)}")
        return None
    value = int(text)
    if not least <= value <= most:
        problems.error(node.place, Code.OUT_OF_RANGE, f"{what} must be from {least} to {most}, not {shown(text)}")
        return None
    return value


def decimal_of(node: Node, what: str, problems: Problems) -> Decimal | None:
    """Read a positive decimal number exactly."""
    parsed = _rate(node, what, problems)
    if parsed is None:
        return None
    if not 0 < parsed.digits <= INT64_MAX * 10**parsed.scale:
        problems.error(node.place, Code.OUT_OF_RANGE, f"{what} must be above 0 and at most {INT64_MAX}")
        return None
    return parsed


def money_of(node: Node, what: str, problems: Problems, digits: int, unit: str = "currency") -> int | None:
    """Read an amount in major units, with at most `digits` decimals, and return it in minor units."""
    parsed = _decimal(node, what, problems)
    if parsed is None:
        return None
    if parsed.scale > digits:
        message = f"{what} has {parsed.scale} decimals and the {unit} has {digits}; round it"
        problems.error(node.place, Code.TOO_PRECISE, message)
        return None
    return _in_minor_units(parsed.digits * 10 ** (digits - parsed.scale), node, what, problems)


def price_of(node: Node, what: str, problems: Problems, digits: int) -> Fraction | None:
    """Read the worth of one point in major units, with up to 18 decimals, and return it in minor units, exactly."""
    parsed = _rate(node, what, problems)
    if parsed is None:
        return None
    return _in_minor_units(Fraction(parsed.digits * 10**digits, 10**parsed.scale), node, what, problems)


def _rate(node: Node, what: str, problems: Problems) -> Decimal | None:
    """Read a decimal number with as many decimals as a rate may have."""
    parsed = _decimal(node, what, problems)
    if parsed is not None and parsed.scale > RATE_DECIMALS_MAX:
        message = f"{what} has {parsed.scale} decimals; {RATE_DECIMALS_MAX} are the most"
        problems.error(node.place, Code.TOO_PRECISE, message)
        return None
    return parsed


def _in_minor_units(minor: Money, node: Node, what: str, problems: Problems) -> Money | None:
    """Return an amount that money can have, or say that it is out of range."""
    if not 0 <= minor <= INT64_MAX:
        problems.error(node.place, Code.OUT_OF_RANGE, f"{what} must be from 0 to {INT64_MAX} minor units")
        return None
    return minor


def _decimal(node: Node, what: str, problems: Problems) -> Decimal | None:
    text = text_of(node, what, problems)
    if text is None:
        return None
    match = _DECIMAL.match(text)
    if match is None:
        problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a number such as 20 or 20.00, not {kind_of(node)}")
        return None
    whole, fraction = match[1], match[2] or ""
    return Decimal(int(whole + fraction), len(fraction))


def fraction_of(node: Node, what: str, problems: Problems, most: int | None = 1) -> tuple[int, int] | None:
    """Read a share such as 5%, 0.5% or 1/200 as a fraction in lowest terms, at most `most` where there is a bound."""
    text = text_of(node, what, problems)
    if text is None:
        return None

    # the form
    match = _SHARE.match(text)
    if match is None or (match["of"] is not None and not int(match["of"])):
        message = f"{what} must be a share such as 5% or 1/200, not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None

    # the fraction, of a percentage or as it is written
    if match["of"] is not None:
        numerator, denominator = int(match["part"]), int(match["of"])
    else:
        fraction = match["fraction"] or ""
        numerator, denominator = int(match["whole"] + fraction), 100 * 10 ** len(fraction)
    if most is not None and numerator > most * denominator:
        problems.error(node.place, Code.OUT_OF_RANGE, f"{what} must be at most {most:.0%}, not {shown(text)}")
        return None

    common = gcd(numerator, denominator)
    return numerator // common, denominator // common


def boolean_of(node: Node, what: str, problems: Problems) -> bool | None:
    """Read `true` or `false`."""
    text = text_of(node, what, problems)
    if text is None:
        return None
    if text not in ("true", "false"):
        problems.error(node.place, Code.WRONG_TYPE, f"{what} must be true or false, not {kind_of(node)}")
        return None
    return text == "true"


def choice_of(
    node: Node, what: str, problems: Problems, choices: type[EnumT], later: tuple[str, ...] = ()
) -> EnumT | None:
    """Read one of the words of `choices`; those in `later` belong to the language but are not judged yet."""
    text = text_of(node, what, problems)
    if text is None:
        return None
    if text in later:
        problems.not_judged(node.place, f'{what} "{text}"')
        return None
    words = [choice.value for choice in choices]
    if text not in words:
        meant = problems.unknown(node.place, Code.UNKNOWN_VALUE, what, text, [*words, *later])
        return choices(meant) if meant in words else None
    return choices(text)
