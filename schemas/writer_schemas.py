"""Read writer schemas: where their text comes from, and what of it the decoder needs.

A schema is refused where data written with it could not be read within bounds, whatever the bytes say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fastavro import parse_schema

from schemas.events import EVENT_TYPES, TOPIC_TYPES, Event
from schemas.upcast import CURRENT_VERSIONS, Upcast, upcasts_from

if TYPE_CHECKING:
    from collections.abc import Mapping

AVRO_FOLDER = Path(__file__).with_name("avro")
NAMESPACE = "guerdon"
SCHEMA_CHARACTERS_MAX = 1_000_000
DEPTH_MAX = 32
STEPS_MAX = 2_000
"""Fields and branches that one record may hold outside of lists and maps, counted through the records in it."""
STEPS_A_BYTE_MAX = 4
"""Values that an entry of a list or map may hold for each byte that it takes: a value then holds at most so many for
each of its bytes, and `STEPS_MAX` more, whatever its schema says."""

SCALE_MAX = 38
_MILLIS_PER = {"timestamp-millis": 1, "timestamp-micros": 1_000, "timestamp-nanos": 1_000_000}
_TIME_FIELDS = ("occurred_at", "expires_at")
_PRIMITIVES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}


class WriterSchemas(Protocol):
    """Know the text of writer schemas by id: the committed table, a registry, or the database."""

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None where nobody knows the id.

        Raises:
            ServiceUnreachable: the id may be known, but who knows it does not answer.
            Rejected: who knows it has refused this id for long, and answers others.
        """


class UnreadableSchema(ValueError):  # noqa: N818  reads as a sentence where it is raised
    """Say why data written with a schema cannot be taken."""


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """Hold a writer schema ready to read with: parsed, logical types gone, and what its records still need."""

    avro: Any
    kind: type[Event]
    topics: frozenset[str]
    millis_divisors: tuple[tuple[str, int], ...]
    upcasts: tuple[Upcast, ...]
    quantity_scale: int | None = None
    """Of quantities of lines that are written as `decimal`; they are read as bytes."""


class CommittedSchemas:
    """Know the schemas that stand in `schemas/avro`, by the ids of its `ids.json`; needs no registry."""

    def __init__(self, texts: Mapping[int, str] | None = None) -> None:
        self._texts = committed_texts() if texts is None else texts

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None where the table does not hold the id."""
        return self._texts.get(schema_id)


@cache
def committed_texts() -> Mapping[int, str]:
    """Return the text of every schema in `schemas/avro` by its committed id."""
    files: dict[str, str] = json.loads((AVRO_FOLDER / "ids.json").read_text("utf-8"))
    return {int(schema_id): (AVRO_FOLDER / file).read_text("utf-8") for schema_id, file in files.items()}


@cache
def committed_ids() -> Mapping[str, int]:
    """Return the committed id of each record's current version, by the record's name without namespace."""
    ids = {}
    for schema_id, text in committed_texts().items():
        record = json.loads(text)
        if record["guerdon_version"] == CURRENT_VERSIONS[record["name"]]:
            ids[record["name"]] = schema_id
    return ids


@cache
def current_texts() -> Mapping[str, str]:
    """Return the text of each record's current schema, by the record's name without namespace."""
    return {name: committed_texts()[schema_id] for name, schema_id in committed_ids().items()}


def read_writer_schema(text: str) -> WriterSchema:
    """Parse a writer schema and plan how its records become events.

    Raises:
        UnreadableSchema: it is no Avro record of ours, or one whose data could not be read within bounds.
    """
    if len(text) > SCHEMA_CHARACTERS_MAX:
        raise UnreadableSchema(f"its schema is longer than {SCHEMA_CHARACTERS_MAX:,} characters")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableSchema(f"its schema is no JSON: {error}") from None
    if not isinstance(raw, dict) or raw.get("type") != "record" or not isinstance(raw.get("fields"), list):
        raise UnreadableSchema("its schema is no Avro record")
    name, kind = _record_kind(raw)
    version = raw.get("guerdon_version", CURRENT_VERSIONS[name])
    try:
        upcasts = upcasts_from(name, version)
    except (LookupError, TypeError) as error:
        raise UnreadableSchema(f"{error}; a newer release may read it") from None
    try:
        _Measure().of(raw, "", 0)
        avro = parse_schema(_without_logical_types(raw), {})
    except UnreadableSchema:
        raise
    except Exception as error:  # noqa: BLE001  fastavro raises anything on a malformed schema
        raise UnreadableSchema(f"its schema is no valid Avro: {type(error).__name__}: {error}"[:300]) from None
    type_name = name.lower()
    topics = frozenset(topic for topic, types in TOPIC_TYPES.items() if type_name in types)
    return WriterSchema(avro, kind, topics, _millis_divisors(raw), upcasts, _quantity_scale(raw))


def _record_kind(raw: dict[str, Any]) -> tuple[str, type[Event]]:
    name, namespace = str(raw.get("name")), raw.get("namespace")
    full = name if "." in name or not namespace else f"{namespace}.{name}"
    space, _, short = full.rpartition(".")
    if space != NAMESPACE or short not in CURRENT_VERSIONS or short.lower() not in EVENT_TYPES:
        raise UnreadableSchema(f"it is a record {full[:100]!r}, which is none of Guerdon's events")
    return short, EVENT_TYPES[short.lower()]


def _millis_divisors(raw: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return for each time field finer than milliseconds what divides it; a long without a unit counts as ms."""
    divisors = []
    for field in raw["fields"]:
        if field["name"] not in _TIME_FIELDS:
            continue
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        units = [branch["logicalType"] for branch in branches if isinstance(branch, dict) and "logicalType" in branch]
        if any(unit not in _MILLIS_PER for unit in units) or len(units) > 1:
            raise UnreadableSchema(f"its {field['name']} is {units[0]}; write timestamp-millis")
        if units and _MILLIS_PER[units[0]] > 1:
            divisors.append((field["name"], _MILLIS_PER[units[0]]))
    return tuple(divisors)


def _quantity_scale(raw: dict[str, Any]) -> int | None:
    """Return the scale of the quantities of lines where they are decimals, else None."""
    lines = _type_of_field(raw, "items")
    line = lines.get("items") if isinstance(lines, dict) else None
    quantity = _type_of_field(line, "quantity") if isinstance(line, dict) else None
    if not isinstance(quantity, dict) or quantity.get("logicalType") != "decimal":
        return None
    scale = quantity.get("scale", 0)
    if not isinstance(scale, int) or not 0 <= scale <= SCALE_MAX:
        raise UnreadableSchema(f"the scale of its quantities is none from 0 to {SCALE_MAX}")
    return scale


def _type_of_field(record: dict[str, Any], name: str) -> Any:
    """Return the type of a record's field, the first that is not null where it is a union."""
    kind = next((field["type"] for field in record.get("fields", ()) if field["name"] == name), None)
    return next((branch for branch in kind if branch != "null"), None) if isinstance(kind, list) else kind


def _without_logical_types(schema: Any) -> Any:
    """Return `schema` without logical types: a long is read faster than a datetime, and text is text.

    Decimals are read as bytes, too: to make a number of a megabyte takes minutes.
    """
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_logical_types(value) if key in ("type", "items", "values", "fields") else value
        for key, value in schema.items()
        if key != "logicalType"
    }


class _Size(NamedTuple):
    """Say of a type how few bytes a value takes, how many steps it is at most, and how many beyond what its bytes pay.

    A step is a field, a branch or a value. Each byte pays for `STEPS_A_BYTE_MAX` of them; lists and maps are left out
    of `steps`, as their entries have to pay for themselves.
    """

    bytes_min: int
    steps: int
    unpaid: int


def _sized(bytes_min: int) -> _Size:
    return _Size(bytes_min, 1, 1 - STEPS_A_BYTE_MAX * bytes_min)


class _Measure:
    """Walk a schema once, and refuse what makes reading unbounded.

    A record that holds itself overflows the C stack of the Avro reader and ends the process; a list whose items take
    no bytes says a billion items in five bytes, and one whose items are a boolean and two thousand nulls takes a
    gigabyte of memory for each megabyte; records nested in fan-out do the same by their sheer number.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Size] = {}
        self._open: set[str] = set()

    def of(self, schema: Any, namespace: str, depth: int) -> _Size:
        """Return what one value takes."""
        if depth > DEPTH_MAX:
            raise UnreadableSchema(f"its schema nests deeper than {DEPTH_MAX}")
        if isinstance(schema, list):
            branches = [self.of(branch, namespace, depth + 1) for branch in schema]
            steps = max((size.steps for size in branches), default=0)
            unpaid = max((size.unpaid for size in branches), default=0)
            return _Size(1, 1 + steps, _sized(1).unpaid + unpaid)
        if isinstance(schema, str):
            return self._named(schema, namespace)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema, namespace, depth)
        if kind in ("enum", "fixed"):
            size = _sized(1 if kind == "enum" else int(schema["size"]))
            self._known[_full_name(schema, namespace)] = size
            return size
        if kind in ("array", "map"):
            entry = self.of(schema["items" if kind == "array" else "values"], namespace, depth + 1)
            if kind == "array" and entry.bytes_min == 0:
                raise UnreadableSchema("its schema has a list whose items take no bytes")
            if entry.unpaid + (_sized(1).unpaid if kind == "map" else 0) > 0:
                raise UnreadableSchema(
                    f"its schema has a {'list' if kind == 'array' else 'map'} whose entries hold more than "
                    f"{STEPS_A_BYTE_MAX} values for each byte that they take"
                )
            return _sized(1)
        return self.of(kind, namespace, depth + 1)

    def _named(self, name: str, namespace: str) -> _Size:
        if name in _PRIMITIVES:
            return _sized(_PRIMITIVES[name])
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._open:
                raise UnreadableSchema(f"its record {candidate} holds itself")
            if candidate in self._known:
                return self._known[candidate]
        raise UnreadableSchema(f"its schema names {full}, which it does not define")

    def _record(self, schema: dict[str, Any], namespace: str, depth: int) -> _Size:
        full = _full_name(schema, namespace)
        self._open.add(full)
        sizes = [self.of(field["type"], full.rpartition(".")[0], depth + 1) for field in schema["fields"]]
        self._open.discard(full)
        steps = 1 + sum(size.steps for size in sizes)
        if steps > STEPS_MAX:
            raise UnreadableSchema(f"its record {full} holds more than {STEPS_MAX:,} fields")
        size = _Size(sum(size.bytes_min for size in sizes), steps, 1 + sum(size.unpaid for size in sizes))
        self._known[full] = size
        return size


def _full_name(schema: dict[str, Any], namespace: str) -> str:
    name = str(schema["name"])
    space = schema.get("namespace", namespace)
    return name if "." in name or not space else f"{space}.{name}"
