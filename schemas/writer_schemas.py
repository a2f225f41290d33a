"""Look up writer schemas, and prepare what the decoder needs of them.

A schema is refused if reading data with it could take unbounded time or memory, whatever the bytes are.
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
"""How many fields and branches a record may have outside of lists and maps, with those of the records in it."""
STEPS_A_BYTE_MAX = 4
"""How many values an entry of a list or map may hold for each byte that it takes. A message of any schema then
holds at most this many values for each of its bytes, and `STEPS_MAX` more."""

SCALE_MAX = 38
_UNITS_PER_MILLI = {"timestamp-millis": 1, "timestamp-micros": 1_000, "timestamp-nanos": 1_000_000}
_TIME_FIELDS = ("occurred_at", "expires_at")
_PRIMITIVES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
"""The primitive types, each with the fewest bytes that a value takes."""


class WriterSchemas(Protocol):
    """Look the text of writer schemas up by id: in the committed table, a registry, or the database."""

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None where the id is unknown.

        Raises:
            ServiceUnreachable: the service that may know the id does not answer.
            Rejected: the service has refused this id for long, and answers others.
        """


class UnreadableSchema(ValueError):
    """Say why data written with a schema cannot be taken."""


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """Hold a writer schema ready to read with, and how its records become current ones."""

    avro: Any
    """The schema as fastavro parsed it, without logical types."""

    kind: type[Event]
    topics: frozenset[str]

    millis_divisors: tuple[tuple[str, int], ...]
    """Time fields with a finer unit than milliseconds, each with the number that divides it."""

    upcasts: tuple[Upcast, ...]
    """The conversions to the current version, in their order."""

    quantity_scale: int | None = None
    """The scale of quantities of lines that are written as `decimal`, which are read as bytes; None: as text."""


class CommittedSchemas:
    """Know the schemas in `schemas/avro` by the ids of its `ids.json`, without a registry."""

    def __init__(self, texts: Mapping[int, str] | None = None) -> None:
        self._texts = committed_texts() if texts is None else texts

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None where the table lacks the id."""
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
    # JSON, and a record of ours in a version that this release reads
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

    # within bounds, and Avro
    try:
        _Measure().of(raw, "", 0)
        avro = parse_schema(_without_logical_types(raw), {})
    except UnreadableSchema:
        raise
    except Exception as error:  # noqa: BLE001  fastavro raises anything on a malformed schema
        raise UnreadableSchema(f"its schema is no valid Avro: {type(error).__name__}: {error}"[:300]) from None

    type_name = name.lower()
    topics = frozenset(topic for topic, types in TOPIC_TYPES.items() if type_name in types)
    return WriterSchema(
        avro=avro,
        kind=kind,
        topics=topics,
        millis_divisors=_millis_divisors(raw),
        upcasts=upcasts,
        quantity_scale=_quantity_scale(raw),
    )


def _record_kind(raw: dict[str, Any]) -> tuple[str, type[Event]]:
    """Return the name and the event type of a record schema."""
    name, namespace = str(raw.get("name")), raw.get("namespace")
    full = name if "." in name or not namespace else f"{namespace}.{name}"
    space, _, short = full.rpartition(".")
    if space != NAMESPACE or short not in CURRENT_VERSIONS or short.lower() not in EVENT_TYPES:
        raise UnreadableSchema(f"it is a record {full[:100]!r}, which is none of Guerdon's events")
    return short, EVENT_TYPES[short.lower()]


def _millis_divisors(raw: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return each time field finer than milliseconds with its divisor; a long without a unit is milliseconds."""
    divisors = []
    for field in raw["fields"]:
        if field["name"] not in _TIME_FIELDS:
            continue
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        units = [branch["logicalType"] for branch in branches if isinstance(branch, dict) and "logicalType" in branch]
        if any(unit not in _UNITS_PER_MILLI for unit in units) or len(units) > 1:
            raise UnreadableSchema(f"its {field['name']} is {units[0]}; write timestamp-millis")
        if units and _UNITS_PER_MILLI[units[0]] > 1:
            divisors.append((field["name"], _UNITS_PER_MILLI[units[0]]))
    return tuple(divisors)


def _quantity_scale(raw: dict[str, Any]) -> int | None:
    """Return the scale of the quantities of lines if they are decimals, else None."""
    lines = _type_of_field(raw, "items")
    line = lines.get("items") if isinstance(lines, dict) else None
    quantity = _type_of_field(line, "quantity") if isinstance(line, dict) else None
    if not isinstance(quantity, dict) or quantity.get("logicalType") != "decimal":
        return None
    scale = quantity.get("scale", 0)
    if not isinstance(scale, int) or not 0 <= scale <= SCALE_MAX:
        raise UnreadableSchema(f"the scale of its quantities is not an integer from 0 to {SCALE_MAX}")
    return scale


def _type_of_field(record: dict[str, Any], name: str) -> Any:
    """Return the type of a record's field; of a union, the first that is not null."""
    kind = next((field["type"] for field in record.get("fields", ()) if field["name"] == name), None)
    return next((branch for branch in kind if branch != "null"), None) if isinstance(kind, list) else kind


def _without_logical_types(schema: Any) -> Any:
    """Return `schema` without logical types: a long is read faster than a datetime.

    Decimals are read as bytes, since making a number of a megabyte would take minutes.
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
    """Say how large the values of a type are; a step is a field, a branch or a value that is read.

    Each byte of a value "pays" for `STEPS_A_BYTE_MAX` steps. The entries of lists and maps must pay for themselves, so
    `steps` and `unpaid` leave them out.
    """

    bytes_min: int
    """The fewest bytes that a value takes."""

    steps: int
    """The most steps that reading a value takes."""

    unpaid: int
    """The most steps that the bytes of a value do not pay for; negative if they pay for more."""


def _of_scalar(bytes_min: int) -> _Size:
    """Return the size of a value that holds no other values."""
    return _Size(bytes_min, 1, 1 - STEPS_A_BYTE_MAX * bytes_min)


class _Measure:
    """Walk a schema once, and refuse what makes reading unbounded.

    A record that contains itself overflows the C stack of the Avro reader and ends the process. A list whose items take
    no bytes can announce a billion items in five bytes. A list whose items are a boolean and two thousand nulls takes a
    gigabyte of memory for each megabyte, and so do records that contain several records each, some levels deep.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, _Size] = {}
        self._open: set[str] = set()

    def of(self, schema: Any, namespace: str, depth: int) -> _Size:
        """Return the size of one value."""
        if depth > DEPTH_MAX:
            raise UnreadableSchema(f"its schema nests deeper than {DEPTH_MAX}")

        # a union: its branch number, and the largest branch
        if isinstance(schema, list):
            branches = [self.of(branch, namespace, depth + 1) for branch in schema]
            steps = max((size.steps for size in branches), default=0)
            unpaid = max((size.unpaid for size in branches), default=0)
            return _Size(1, 1 + steps, _of_scalar(1).unpaid + unpaid)

        if isinstance(schema, str):
            return self._named(schema, namespace)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema, namespace, depth)
        if kind in ("enum", "fixed"):
            size = _of_scalar(1 if kind == "enum" else int(schema["size"]))
            self._sizes[_full_name(schema, namespace)] = size
            return size

        # a list or map: each entry must pay for itself
        if kind in ("array", "map"):
            entry = self.of(schema["items" if kind == "array" else "values"], namespace, depth + 1)
            if kind == "array" and entry.bytes_min == 0:
                raise UnreadableSchema("its schema has a list whose items take no bytes")
            if entry.unpaid + (_of_scalar(1).unpaid if kind == "map" else 0) > 0:
                raise UnreadableSchema(
                    f"its schema has a {'list' if kind == 'array' else 'map'} whose entries hold more than "
                    f"{STEPS_A_BYTE_MAX} values for each byte that they take"
                )
            return _of_scalar(1)

        return self.of(kind, namespace, depth + 1)

    def _named(self, name: str, namespace: str) -> _Size:
        if name in _PRIMITIVES:
            return _of_scalar(_PRIMITIVES[name])
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._open:
                raise UnreadableSchema(f"its record {candidate} holds itself")
            if candidate in self._sizes:
                return self._sizes[candidate]
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
        self._sizes[full] = size
        return size


def _full_name(schema: dict[str, Any], namespace: str) -> str:
    name = str(schema["name"])
    space = schema.get("namespace", namespace)
    return name if "." in name or not space else f"{space}.{name}"
