"""Read events from JSON lines, strictly, and write them in the same form.

docs/events.md names the fields. JSON is written by persons and scripts, so this refuses what Avro cannot contain or
would ignore: unknown fields, names that stand twice, numbers as text.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from msgspec import structs, to_builtins
from msgspec.msgpack import encode as to_bytes

from schemas.bounds import refuse_beyond
from schemas.conversion import TIME_FIELDS, did_you_mean, event_from_fields
from schemas.events import EVENT_TYPES, TYPE_NAMES, Event, Item, Purchase, Refund, RefundItem, Tender
from schemas.rejection import Reason, Rejected
from schemas.scalars import instant_from_iso, iso_from_instant, shown

_BYTE_ORDER_MARK = "\ufeff"


def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in structs.fields(kind))


_FIELDS = {kind: frozenset(("type", *_names(kind))) for kind in EVENT_TYPES.values()}
_NESTED: dict[type[Event], tuple[tuple[str, frozenset[str]], ...]] = {
    Purchase: (("items", frozenset(_names(Item))), ("tenders", frozenset(_names(Tender)))),
    Refund: (("items", frozenset(_names(RefundItem))),),
}


def decode_json(line: str | bytes) -> Event:
    """Return the event that one JSON object describes.

    Raises:
        Rejected: undecodable where it is no JSON object, otherwise what `event_from_object` says.
    """
    return event_from_object(object_of(line))


def object_of(line: str | bytes) -> dict[str, object]:
    """Return one JSON object, whatever its fields are; numbers with a point stay exact decimals.

    Raises:
        Rejected: undecodable where it is no JSON object, wrong_type where a name stands twice in it.
    """
    # each way in which text can fail to be JSON has its own sentence
    try:
        text = line if isinstance(line, str) else line.decode()
        if text.startswith(_BYTE_ORDER_MARK):
            raise Rejected(
                Reason.UNDECODABLE, "the line begins with a byte order mark (U+FEFF); save the file as UTF-8 without it"
            )
        value = json.loads(text, object_pairs_hook=_object, parse_float=_decimal, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Rejected(Reason.UNDECODABLE, f"byte {error.start + 1} is no UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise Rejected(Reason.UNDECODABLE, f"this is no JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise Rejected(Reason.UNDECODABLE, "the JSON nests too deep; an event has three levels") from None
    except ValueError:
        raise Rejected(Reason.OUT_OF_RANGE, "a number has more than 4,300 digits") from None

    if not isinstance(value, dict):
        raise Rejected(Reason.UNDECODABLE, f"this is {shown(value)}; an event is a JSON object such as {{…}}")
    return value


def event_from_object(obj: dict[str, object]) -> Event:
    """Return the event that `obj` describes with JSON's names and types; `obj` is not changed.

    Raises:
        Rejected: unknown_field, missing_field, wrong_type or out_of_range, with the field's path and a way out.
    """
    # names first, in the event and in its lines
    kind = _kind_of(obj)
    _refuse_unknown(obj, _FIELDS[kind], "")
    fields: dict[str, Any] = {name: value for name, value in obj.items() if name != "type"}
    for name, names in _NESTED.get(kind, ()):
        if fields.get(name) is not None:
            fields[name] = _lines(fields[name], names, name)

    for name in TIME_FIELDS:
        if fields.get(name) is not None:
            fields[name] = instant_from_iso(fields[name], name)
    event = event_from_fields(fields, kind)

    # half of a UTF-16 pair fits into a Python text and into no bytes
    try:
        to_bytes(event)
    except UnicodeEncodeError:
        refuse_beyond(event)
        raise
    return event


def event_to_object(event: Event) -> dict[str, Any]:
    """Return `event` as a JSON object, with times in ISO-8601 UTC and without fields that are at their default."""
    plain = to_builtins(event)
    for name in TIME_FIELDS:
        if name in plain:
            plain[name] = iso_from_instant(plain[name])
    for name in ("coupons", "tenders", "items"):
        if name in plain:
            plain[name] = list(plain[name])
    return {"type": TYPE_NAMES[type(event)], **plain}


def _kind_of(obj: dict[str, object]) -> type[Event]:
    types = ", ".join(EVENT_TYPES)
    if "type" not in obj:
        raise Rejected(Reason.MISSING_FIELD, f"type: the field is missing; it is one of {types}")
    name = obj["type"]
    kind = EVENT_TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        near = did_you_mean(name, EVENT_TYPES) if isinstance(name, str) else ""
        raise Rejected(Reason.WRONG_TYPE, f"type: {shown(name)} is none of {types}{near}")
    return kind


def _refuse_unknown(obj: dict[str, object], names: frozenset[str], path: str) -> None:
    """Refuse an object that has a name which is none of `names`; `path` says where it stands."""
    if names.issuperset(obj):
        return
    name = next(name for name in obj if name not in names)
    near = did_you_mean(str(name), sorted(names))
    place = path or "this event"
    raise Rejected(Reason.UNKNOWN_FIELD, f"{path}{'.' if path else ''}{_name(name)}: {place} has no such field{near}")


def _lines(value: object, names: frozenset[str], name: str) -> object:
    """Return a copy of a list of objects after checking their names; return anything else as it is."""
    if not isinstance(value, list):
        return value
    copied = []
    for index, line in enumerate(value):
        if isinstance(line, dict):
            _refuse_unknown(line, names, f"{name}[{index}]")
            copied.append(dict(line))
        else:
            copied.append(line)
    return copied


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object, unless a name stands in it twice."""
    obj = dict(pairs)
    if len(obj) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Rejected(Reason.WRONG_TYPE, f"{_name(twice)}: the field stands twice in one object; keep one of them")
    return obj


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise Rejected(Reason.OUT_OF_RANGE, f"the number {shown(digits)} is beyond all bounds") from None


def _refuse_constant(name: str) -> NoReturn:
    raise Rejected(Reason.WRONG_TYPE, f"{name} is no number of JSON; write a finite one, or leave the field out")


def _name(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() and len(name) <= 60 else shown(name)
