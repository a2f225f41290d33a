"""Make referral codes: easy to read out, safe against slips of the pen, and hard to guess."""

from __future__ import annotations

from hmac import digest
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""31 letters and digits that nobody confuses (no 0 O, no 1 I L).

Their number is prime, so that the check character detects every single wrong character and every swap of two
neighbours.
"""

LENGTH = 8
LENGTH_MAX = 24
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


def code_of(member_id: str, secret: bytes, length: int = LENGTH) -> str:
    """Return a member's code of a length, made from the member_id with a secret."""
    number = int.from_bytes(digest(secret, member_id.encode(), "sha256"), "big")
    characters = []
    for _ in range(length - 1):
        number, value = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[value])
    return "".join(characters) + _check_character(characters)


def free_code(member_id: str, secret: bytes, owner_of: Callable[[str], str | None]) -> str:
    """Return the member's shortest code that nobody owns yet."""
    return next(code for length in count(LENGTH) if owner_of(code := code_of(member_id, secret, length)) is None)


def is_well_formed(code: str) -> bool:
    """Whether a code has the characters, the length and the check character of a referral code."""
    if not LENGTH <= len(code) <= LENGTH_MAX or any(character not in _VALUES for character in code):
        return False
    return _check_character(list(code[:-1])) == code[-1]


def normalised(code: str) -> str:
    """Return a code in capitals, without blanks and hyphens, as codes are stored."""
    return "".join(code.split()).replace("-", "").upper()


def _check_character(characters: list[str]) -> str:
    """Return the character that makes the sum of all characters, weighted by their places, a multiple of the prime."""
    weighted = sum((place + 2) * _VALUES[character] for place, character in enumerate(reversed(characters)))
    return ALPHABET[-weighted % len(ALPHABET)]
