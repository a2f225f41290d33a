"""Bound every text, number and list of every event by one table; admission refuses what exceeds it.

The table is `FIELDS`. `refuse_beyond` checks an event by it, and `schemas.event_page` makes the fields' part of
docs/events.md from it. The log is read without it, so events that an earlier release admitted can always be read.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from schemas.events import (
    EVENT_TYPES,
    ID_CHARACTERS_MAX,
    OCCURRED_AT_MS_END,
    Id,
    Item,
    RefundItem,
    Tender,
)
from schemas.rejection import Reason, Rejected
from schemas.scalars import beyond_years

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from msgspec import Struct

    from schemas.events import Event

CODE_CHARACTERS_MAX = 64
TEXT_CHARACTERS_MAX = 1_000
OCCURRED_AT_MS_FIRST = 63_072_000_000  # 1972-01-01T00:00:00Z
LINES_MAX = 10_000
ENTRIES_MAX = 1_000


class Text(NamedTuple):
    """Bound a text: how many characters, none of them a control character or half of a UTF-16 pair."""

    least: int
    most: int

    def words(self) -> str:
        """Return the bound for a reader of the page."""
        return f"{self.least:,} to {self.most:,} characters" if self.least else f"at most {self.most:,} characters"


class Texts(NamedTuple):
    """Bound a list of texts: how many, and each of them."""

    entries_max: int
    each: Text

    def words(self) -> str:
        """Return the bound for a reader of the page."""
        return f"at most {self.entries_max:,}, each {self.each.words()}"


class TextMap(NamedTuple):
    """Bound a map from text to text: how many entries, each key and each value."""

    entries_max: int
    key: Text
    value: Text

    def words(self) -> str:
        """Return the bound for a reader of the page."""
        return f"at most {self.entries_max:,} entries; key {self.key.words()}, value {self.value.words()}"


class Records(NamedTuple):
    """Bound a list of records: how many; `kind` has rows of its own in the table."""

    entries_max: int
    kind: type[Struct]

    def words(self) -> str:
        """Return the bound for a reader of the page."""
        return f"at most {self.entries_max:,}"


class Instant(NamedTuple):
    """Bound an instant by its year, 1972 to 2999."""

    def words(self) -> str:
        """Return the bound for a reader of the page."""
        return "a year from 1972 to 2999"


class Decoded(NamedTuple):
    """Name a bound that decoding enforces already by the field's type: numbers, decimals, words of a list."""

    kind: str
    says: str

    def words(self) -> str:
        """Return the bound for a reader of the page."""
        return self.says


Bound = Text | Texts | TextMap | Records | Instant | Decoded
"""The bound of one field."""

ID = Text(1, ID_CHARACTERS_MAX)
ID_OR_EMPTY = Text(0, ID_CHARACTERS_MAX)
CODE = Text(1, CODE_CHARACTERS_MAX)
CODE_OR_EMPTY = Text(0, CODE_CHARACTERS_MAX)
TEXT = Text(0, TEXT_CHARACTERS_MAX)
ATTRIBUTES = TextMap(ENTRIES_MAX, ID_OR_EMPTY, TEXT)
IDENTITY = TextMap(ENTRIES_MAX, CODE_OR_EMPTY, TEXT)
AT = Instant()
AMOUNT = Decoded("integer", "0 to 2^63 - 1 minor units")
COUNT = Decoded("integer", "0 to 2^63 - 1")
SIGNED = Decoded("integer", "-(2^63 - 1) to 2^63 - 1")
SCORE = Decoded("integer", "-2^63 to 2^63 - 1")
QUANTITY = Decoded("decimal", "a decimal of 0 or more, at most 12 digits before the point and 6 behind it")
BIRTHDAY = Decoded("text", "`YYYY-MM-DD` or `--MM-DD`, a day of the calendar")
FLAG = Decoded("boolean", "true or false")

_EVENT: dict[str, Bound] = {"event_id": ID, "occurred_at": AT, "source": ID, "attributes": ATTRIBUTES}
_OF_MEMBER: dict[str, Bound] = {**_EVENT, "member_id": ID}

PARTS: Mapping[type[Struct], dict[str, Bound]] = {
    Item: {
        "line_id": ID,
        "sku": ID,
        "quantity": QUANTITY,
        "amount": AMOUNT,
        "category": TEXT,
        "brand": TEXT,
    },
    RefundItem: {"line_id": ID, "amount": AMOUNT, "quantity": QUANTITY},
    Tender: {"kind": ID, "amount": AMOUNT},
}
"""The bounds of the records that stand in lists."""

FIELDS: Mapping[str, dict[str, Bound]] = {
    "purchase": {
        **_OF_MEMBER,
        "order_id": ID,
        "currency": CODE,
        "amount": AMOUNT,
        "gross": AMOUNT,
        "shipping": AMOUNT,
        "tax": AMOUNT,
        "channel": CODE_OR_EMPTY,
        "store": TEXT,
        "brand": TEXT,
        "coupons": Texts(ENTRIES_MAX, CODE_OR_EMPTY),
        "tenders": Records(ENTRIES_MAX, Tender),
        "items": Records(LINES_MAX, Item),
    },
    "refund": {
        **_OF_MEMBER,
        "order_id": ID,
        "refund_id": ID,
        "amount": AMOUNT,
        "items": Records(LINES_MAX, RefundItem),
    },
    "signup": {
        **_OF_MEMBER,
        "referral_code": CODE_OR_EMPTY,
        "referrer_id": ID_OR_EMPTY,
        "visitor": ID_OR_EMPTY,
        "channel": CODE_OR_EMPTY,
        "birthday": BIRTHDAY,
        "identity": IDENTITY,
    },
    "profile": {**_OF_MEMBER, "birthday": BIRTHDAY, "identity": IDENTITY},
    "erasure": _OF_MEMBER,
    "share": {**_OF_MEMBER, "object": ID, "channel": CODE, "campaign": TEXT, "verified": FLAG},
    "touch": {**_EVENT, "referral_code": CODE, "visitor": ID, "channel": CODE_OR_EMPTY, "identity": IDENTITY},
    "activity": {
        **_OF_MEMBER,
        "kind": ID,
        "object": TEXT,
        "quantity": COUNT,
        "score": SCORE,
        "campaign": TEXT,
    },
    "redemption": {
        **_OF_MEMBER,
        "action": Decoded("word", "`reserve`, `capture`, `void`, `spend` or `restore`"),
        "redemption_id": ID,
        "reward": ID,
        "amount": COUNT,
        "unit": CODE,
        "order_id": ID,
        "order_amount": AMOUNT,
    },
    "decision": {
        **_OF_MEMBER,
        "action": Decoded("word", "`adjust`, `opening`, `referral_release` or `referral_void`"),
        "amount": SIGNED,
        "unit": CODE,
        "reason": TEXT,
        "expires_at": AT,
        "tier": ID,
        "referral_code": CODE,
    },
}
"""The bound of every field, by event type and name; an optional field is bounded if it is present."""


def refuse_beyond(event: Event) -> None:
    """Refuse an event if one of its fields exceeds its bound.

    Raises:
        Rejected: out_of_range, with the field's path and a way out.
    """
    _walk(event, _BY_TYPE[type(event)], "")


def _walk(record: Any, bounds: Mapping[str, Bound], place: str) -> None:
    """Refuse a record if one of its fields exceeds its bound; `place` is the path before the field's name."""
    for name, bound in bounds.items():
        value = getattr(record, name)
        if value is not None:
            _refuse(f"{place}{name}", value, bound)


def _refuse(path: str, value: Any, bound: Bound) -> None:
    """Refuse a value that exceeds its bound; values that `IS_PLAIN` could not clear come here, and most pass."""
    if isinstance(bound, Text):
        _refuse_text(path, value, bound)
    elif isinstance(bound, Instant):
        if not OCCURRED_AT_MS_FIRST <= value < OCCURRED_AT_MS_END:
            raise beyond_years(path, value)
    elif isinstance(bound, (Texts, TextMap, Records)):
        if len(value) > bound.entries_max:
            raise _rejected(path, f"{len(value):,} entries, and {bound.entries_max:,} are taken; leave some out")
        _refuse_entries(path, value, bound)


def _refuse_entries(path: str, value: Any, bound: Texts | TextMap | Records) -> None:
    if isinstance(bound, Records):
        for at, part in enumerate(value):
            _walk(part, PARTS[bound.kind], f"{path}[{at}].")
    elif isinstance(bound, Texts):
        for at, text in enumerate(value):
            _refuse_text(f"{path}[{at}]", text, bound.each)
    else:
        for key, text in value.items():
            _refuse_text(f"a key of {path}", key, bound.key)
            if text is not None:
                _refuse_text(f"{path}.{key}" if key.isidentifier() else f"a value of {path}", text, bound.value)


def _refuse_text(path: str, text: str, bound: Text) -> None:
    if not bound.least <= len(text) <= bound.most:
        way_out = "shorten it" if text else "name it, or leave the field out"
        allowed = f"{bound.least} to {bound.most:,}" if bound.least else f"at most {bound.most:,}"
        raise _rejected(path, f"{len(text):,} characters, and {allowed} are taken; {way_out}")
    if text.isprintable():
        return
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            raise _rejected(path, f"the control character U+{ord(character):04X}; remove it", verb="holds")
        if category == "Cs":
            raise _rejected(path, f"half of a UTF-16 pair, U+{ord(character):04X}; send whole characters", verb="holds")


def _rejected(path: str, what: str, verb: str = "has") -> Rejected:
    return Rejected(Reason.OUT_OF_RANGE, f"{path} {verb} {what}")


class _Writing:
    """Write the function that quickly says whether an event is within its bounds.

    That of purchases begins ::

        def is_plain(e):
         if not (e.event_id.isprintable() and ... and 63072000000 <= e.occurred_at < 32503680000000): return False
         v = e.attributes
         if v is not None:
          if not (len(v) <= 1000): return False

    It may say False of an event that is within its bounds, never True of one that is not. Its text is made of the
    numbers of the table and the names of our own fields. Decoding has checked the lengths of fields of type `Id`, so
    they are not measured again.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def record(self, kind: type[Struct], bounds: Mapping[str, Bound], of: str, indent: str) -> None:
        """Write the checks of the fields of a record of `kind` that is in the variable `of`."""
        # all required texts and instants in one condition
        required = {field.name: field.type for field in structs.fields(kind) if field.default is not None}
        sure = [
            self._text(f"{of}.{name}", bound, is_measured=bound == ID and required[name] == Id)
            for name, bound in bounds.items()
            if name in required and isinstance(bound, Text)
        ]
        sure += [
            f"{OCCURRED_AT_MS_FIRST} <= {of}.{name} < {OCCURRED_AT_MS_END}"
            for name, bound in bounds.items()
            if name in required and isinstance(bound, Instant)
        ]
        self._unless(" and ".join(sure), indent)

        # then each field that may be missing, or is a list
        for name, bound in bounds.items():
            if isinstance(bound, Decoded) or (name in required and isinstance(bound, (Text, Instant))):
                continue
            self.lines.append(f"{indent}v = {of}.{name}")
            self.lines.append(f"{indent}if v is not None:")
            self._optional(bound, f"{indent} ")

    def _optional(self, bound: Bound, indent: str) -> None:
        """Write the checks of a value that is in the variable `v`."""
        if isinstance(bound, Text):
            self._unless(self._text("v", bound), indent)
        elif isinstance(bound, Instant):
            self._unless(f"{OCCURRED_AT_MS_FIRST} <= v < {OCCURRED_AT_MS_END}", indent)

        # lists and maps: how many entries, then each of them
        elif isinstance(bound, Texts):
            self._unless(f"len(v) <= {bound.entries_max}", indent)
            self.lines.append(f"{indent}for t in v:")
            self._unless(self._text("t", bound.each), f"{indent} ")
        elif isinstance(bound, TextMap):
            self._unless(f"len(v) <= {bound.entries_max}", indent)
            self.lines.append(f"{indent}for k, t in v.items():")
            value = self._text("t", bound.value)
            self._unless(f"{self._text('k', bound.key)} and (t is None or {value})", f"{indent} ")
        elif isinstance(bound, Records):
            self._unless(f"len(v) <= {bound.entries_max}", indent)
            self.lines.append(f"{indent}for r in v:")
            self.record(bound.kind, PARTS[bound.kind], "r", f"{indent} ")

    @staticmethod
    def _text(of: str, bound: Text, *, is_measured: bool = False) -> str:
        if is_measured:
            return f"{of}.isprintable()"
        length = f"0 < len({of}) <= {bound.most}" if bound.least else f"len({of}) <= {bound.most}"
        return f"{of}.isprintable() and {length}"

    def _unless(self, condition: str, indent: str) -> None:
        self.lines.append(f"{indent}if not ({condition}): return False")


def _plainness_of(kind: type[Event], bounds: Mapping[str, Bound]) -> Callable[[Event], bool]:
    writing = _Writing()
    writing.record(kind, bounds, "e", " ")
    names: dict[str, Any] = {}
    lines = ["def is_plain(e):", *writing.lines, " return True"]
    code = compile("\n".join(lines), f"<bounds of {kind.__name__}>", "exec")
    exec(code, names)  # noqa: S102  the text is this module's own; nothing of a producer's is code
    is_plain: Callable[[Event], bool] = names["is_plain"]
    return is_plain


_BY_TYPE = {EVENT_TYPES[name]: bounds for name, bounds in FIELDS.items()}
IS_PLAIN = {kind: _plainness_of(kind, bounds) for kind, bounds in _BY_TYPE.items()}
"""By event type, a quick check that nearly every event within its bounds passes; `refuse_beyond` decides the rest."""
