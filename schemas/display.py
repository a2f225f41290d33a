"""Make foreign text safe for a screen and a spreadsheet: characters that could command either are shown as text."""

from __future__ import annotations

import re

_COMMANDS = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls of a terminal, the escape among them, and their single-byte forms
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # what cannot be seen
    "\u2028\u2029"  # ends of lines that no count of lines knows
    "\ud800-\udfff"  # halves of a character, which no output can encode
    "]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?[0-9][0-9,.]*")


def visible(text: str) -> str:
    r"""Return `text` with each control, bidirectional and invisible character as an escape such as `\x1b` or `\u202e`.

    The sender of an event chooses its ids. Printed raw, they could clear an operator's screen, rename the window, fill
    the clipboard, or change the order in which a line is read. Joiners stay, as some languages and emoji need them.
    """
    return text if text.isascii() and text.isprintable() else _COMMANDS.sub(_escaped, text)


def visible_in_json(document: str) -> str:
    r"""Return a JSON document with the same characters as JSON's own escapes, so that its values stay the same.

    Line feeds stay: they separate lines outside of strings, and JSON allows none inside.
    """
    return _COMMANDS.sub(lambda found: found[0] if found[0] == "\n" else _json_escaped(found[0]), document)


def cell(value: object) -> object:
    """Return a value as a spreadsheet must get it: text that begins like a formula gets an apostrophe before it.

    Numbers stay numbers, with their sign.
    """
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _json_escaped(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD800 + ((code - 0x10000) >> 10):04x}\\u{0xDC00 + ((code - 0x10000) & 0x3FF):04x}"
