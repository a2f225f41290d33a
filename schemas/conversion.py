"""Turn plain fields into a typed event, and say in a sentence what is wrong where that fails.

Avro and JSON both end here, so both accept and refuse the same events.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from msgspec import ValidationError, convert

from schemas.events import Activity, DecisionAction, Event, Profile, Purchase, RedemptionAction, Refund, Signup
from schemas.rejection import Reason, Rejected
from schemas.scalars import COMMON_QUANTITIES, beyond_years, canonical_quantity, check_birthday, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

TIME_FIELDS = ("occurred_at", "expires_at")
_MISSING = "Object missing required field `"
_ENUM = "Invalid enum value "
_RANGE_MARKS = ("` >= ", "` <= ", "` < ", "` > ", "` of length ")
_WORDS = {
    "`int`": "an integer",
    "`str`": "a text",
    "`bool`": "true or false",
    "`object`": "an object",
    "`array`": "a list",
    "`int | null`": "an integer",
    "`str | null`": "a text",
    "`bool | null`": "true or false",
    "`object | null`": "an object",
    "`array | null`": "a list",
    "`bytes`": "bytes",
    "`float`": "a number that is no integer",
    "`decimal`": "a number that is no integer",
    "`null`": "null",
}


def event_from_fields(fields: dict[str, Any], kind: type[Event]) -> Event:
    """Return the event of type `kind` with `fields` (current version, times in ms), which may be changed.

    Raises:
        Rejected: missing_field, wrong_type or out_of_range, with the path of the field in the message.
    """
    prepare_for(kind)(fields)
    try:
        return convert(fields, kind)
    except ValidationError as error:
        raise rejection_of(error, fields) from None


def prepare_for(kind: type[Event]) -> Callable[[dict[str, Any]], None]:
    """Return the function that brings the fields of `kind` into canonical form, in place."""
    return _PREPARATIONS.get(kind, _drop_default_source)


def rejection_of(error: ValidationError, fields: Mapping[str, Any]) -> Rejected:
    """Return the verdict for msgspec's `error` about `fields`: its reason, and a sentence that begins with the path."""
    # msgspec says "<what> - at `$.<where>`"
    what, _, where = str(error).rpartition(" - at ")
    if not what:
        what, where = where, ""
    path = where.replace("`key` in ", "a key of ").replace("`", "").replace("$.", "").replace("[...]", "")
    if what.startswith(_MISSING):
        field = what.removeprefix(_MISSING).rstrip("`")
        return Rejected(Reason.MISSING_FIELD, f"{path}.{field}: the field is missing".lstrip("."))

    if what.startswith(_ENUM):
        return Rejected(Reason.OUT_OF_RANGE, f"{path}: {_other_word(what.removeprefix(_ENUM))}")

    path = path or "the event"
    if any(mark in what for mark in _RANGE_MARKS) or "out of range" in what:
        if path in TIME_FIELDS:
            return beyond_years(path, fields[path])
        return Rejected(Reason.OUT_OF_RANGE, f"{path}: {_in_words(what)}")
    return Rejected(Reason.WRONG_TYPE, f"{path}: {_in_words(what)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` where one of the words that are `known` is similar, else an empty text."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _in_words(what: str) -> str:
    for term, words in _WORDS.items():
        what = what.replace(term, words)
    return what[:1].lower() + what[1:]


def _other_word(quoted: str) -> str:
    word = quoted[1:-1]
    known = [*get_args(RedemptionAction), *get_args(DecisionAction)]
    return f"{shown(word)} is none of the words that may stand here{did_you_mean(word, known)}"


_NO_SOURCE = (None, "default")


def _drop_default_source(fields: dict[str, Any]) -> None:
    """Remove a source that is the default: msgspec would write it out, and the digest of the event would differ."""
    if fields.get("source", "") in _NO_SOURCE:
        del fields["source"]


def _prepare_lines(fields: dict[str, Any]) -> None:
    """Write each line's quantity canonically; the conversion refuses values that are no lines."""
    _drop_default_source(fields)
    lines = fields.get("items")
    if lines.__class__ is not list or not lines:
        return
    for index, line in enumerate(lines):
        if line.__class__ is not dict:
            continue
        quantity = line.get("quantity")
        if quantity is None or (quantity.__class__ is str and quantity in COMMON_QUANTITIES):
            continue
        line["quantity"] = canonical_quantity(quantity, f"items[{index}].quantity")


def _prepare_person(fields: dict[str, Any]) -> None:
    _drop_default_source(fields)
    birthday = fields.get("birthday")
    if isinstance(birthday, str):
        check_birthday(birthday, "birthday")


def _prepare_activity(fields: dict[str, Any]) -> None:
    _drop_default_source(fields)
    if fields.get("quantity", 1) is None:
        del fields["quantity"]


_PREPARATIONS: dict[type[Event], Callable[[dict[str, Any]], None]] = {
    Purchase: _prepare_lines,
    Refund: _prepare_lines,
    Signup: _prepare_person,
    Profile: _prepare_person,
    Activity: _prepare_activity,
}
