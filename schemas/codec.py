"""Turn Kafka message values into typed events and back: Confluent framing around Avro.

A value is byte 0, four bytes of schema id (big endian), then the record as its writer's schema lays it out.
"""

from __future__ import annotations

from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Any

from fastavro import schemaless_reader, schemaless_writer
from msgspec import ValidationError, convert, to_builtins

from schemas.conversion import prepare_for, rejection_of
from schemas.events import EVENT_TYPES
from schemas.rejection import Reason, Rejected
from schemas.writer_schemas import (
    CommittedSchemas,
    UnreadableSchema,
    WriterSchema,
    WriterSchemas,
    committed_ids,
    current_texts,
    read_writer_schema,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schemas.events import Event

__all__ = ["CommittedSchemas", "Decoder", "Encoder", "WriterSchemas"]

FRAME_BYTES = 5
DECIMAL_BYTES_MAX = 16
_SCHEMAS_KEPT_MAX = 10_000


class Decoder:
    """Decode message values of the input topics; each writer schema is fetched and parsed once.

    An unknown id is looked up again with each message: `writer_schemas` must keep that cheap.
    """

    def __init__(self, writer_schemas: WriterSchemas, bytes_max: int) -> None:
        self._writer_schemas = writer_schemas
        self._bytes_max = bytes_max
        self._readings: dict[int, _Reading] = {}

    def decode(self, topic: str, value: bytes) -> tuple[int, Event]:
        """Return the schema id and the event in `value`; `topic` is without prefix, such as "purchases".

        Raises:
            Rejected: the value cannot be taken: undecodable, unknown_schema, too_large, missing_field, wrong_type or
                out_of_range, with the place in the message.
            ServiceUnreachable: the service that holds the writer's schema does not answer; the message is not to blame.
        """
        # the frame: its size, and the writer's schema
        if len(value) > self._bytes_max:
            raise Rejected(Reason.TOO_LARGE, f"the value has {len(value):,} bytes; {self._bytes_max:,} are taken")
        if len(value) < FRAME_BYTES or value[0]:
            raise Rejected(Reason.UNDECODABLE, _framing(value))
        schema_id = int.from_bytes(value[1:5])
        reading = self._readings.get(schema_id) or self._read_schema(schema_id)
        if topic not in reading.topics:
            raise Rejected(Reason.UNKNOWN_SCHEMA, reading.not_on(topic, schema_id))

        # the record, which must fill the rest of the value
        body = BytesIO(value)
        body.seek(FRAME_BYTES)
        try:
            record: Any = schemaless_reader(body, reading.avro, None)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  fastavro raises anything on bad bytes, and the bytes are the cause
            raise Rejected(Reason.UNDECODABLE, f"the record ends or breaks within its bytes: {_short(error)}") from None
        if body.tell() != len(value):
            extra = len(value) - body.tell()
            raise Rejected(Reason.UNDECODABLE, f"{extra:,} bytes follow the record; send one record a message")

        # the event: fields of the current version, in canonical form
        if reading.older is not None:
            record = reading.older(record)
        reading.prepare(record)
        try:
            return schema_id, convert(record, reading.kind)
        except ValidationError as error:
            raise rejection_of(error, record) from None

    def _read_schema(self, schema_id: int) -> _Reading:
        """Look up and parse a writer schema, and remember how to read with it, or why not to."""
        text = self._writer_schemas.lookup(schema_id)
        if text is None:
            raise Rejected(
                Reason.UNKNOWN_SCHEMA, f"nobody knows schema id {schema_id}; register it, then release the event"
            )
        try:
            reading = _Reading(read_writer_schema(text))
        except UnreadableSchema as error:
            reading = _Refusal(str(error))

        if len(self._readings) >= _SCHEMAS_KEPT_MAX:
            self._readings.clear()
        self._readings[schema_id] = reading
        return reading


class _Reading:
    """Hold everything that decoding the messages of one writer schema needs."""

    __slots__ = ("avro", "kind", "older", "prepare", "topics", "why")

    def __init__(self, schema: WriterSchema) -> None:
        self.avro = schema.avro
        self.kind = schema.kind
        self.topics = schema.topics
        self.prepare = prepare_for(schema.kind)
        is_older = schema.upcasts or schema.millis_divisors or schema.quantity_scale is not None
        self.older = _older(schema) if is_older else None
        self.why = f"a {schema.kind.__name__} does not belong on it"

    def not_on(self, topic: str, schema_id: int) -> str:
        """Say why a message of this schema cannot be taken from `topic`."""
        return f"the topic {topic} cannot carry schema id {schema_id}: {self.why}"


class _Refusal(_Reading):
    """Remember why nothing is read with a writer schema; no topic carries it."""

    __slots__ = ()

    def __init__(self, why: str) -> None:
        self.topics = frozenset()
        self.why = why


class Encoder:
    """Encode events with the current schemas; `ids` maps record names to schema ids, by default the committed ones."""

    def __init__(self, ids: Mapping[str, int] | None = None) -> None:
        ids = committed_ids() if ids is None else ids
        self._writing = {
            name: (b"\0" + ids[name].to_bytes(4), read_writer_schema(text).avro)
            for name, text in current_texts().items()
            if name in ids and name.lower() in EVENT_TYPES
        }

    def encode(self, event: Event) -> bytes:
        """Return the message value for `event`."""
        frame, avro = self._writing[type(event).__name__]
        body = BytesIO()
        body.write(frame)
        schemaless_writer(body, avro, to_builtins(event), disable_tuple_notation=True)
        return body.getvalue()


def encode_record(schema_id: int, text: str, record: dict[str, Any]) -> bytes:
    """Return the message value of a plain `record` under the schema `text`, as a producer of that version writes it."""
    body = BytesIO()
    body.write(b"\0" + schema_id.to_bytes(4))
    schemaless_writer(body, read_writer_schema(text).avro, record)
    return body.getvalue()


def _older(schema: WriterSchema) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the function that converts a record of an older version or another unit of time to the current one."""

    def to_current(record: dict[str, Any]) -> dict[str, Any]:
        for field, divisor in schema.millis_divisors:
            if isinstance(record[field], int):
                record[field] //= divisor
        for step in schema.upcasts:
            record = step(record)
        if schema.quantity_scale is not None:
            _read_quantities(record, schema.quantity_scale)
        return record

    return to_current


def _read_quantities(record: dict[str, Any], scale: int) -> None:
    """Turn the quantities of lines, the bytes of an unscaled integer, into decimals."""
    lines = record.get("items")
    for at, line in enumerate(lines if isinstance(lines, list) else ()):
        quantity = line.get("quantity") if isinstance(line, dict) else None
        if not isinstance(quantity, bytes):
            continue

        # a bound first: to make a number of a megabyte takes minutes
        if len(quantity) > DECIMAL_BYTES_MAX:
            raise Rejected(
                Reason.OUT_OF_RANGE,
                f"items[{at}].quantity: a decimal of {len(quantity):,} bytes; at most {DECIMAL_BYTES_MAX} are read",
            )

        unscaled = int.from_bytes(quantity, signed=True)
        digits = tuple(int(digit) for digit in str(abs(unscaled)))
        line["quantity"] = Decimal((int(unscaled < 0), digits, -scale))


def _framing(value: bytes) -> str:
    if not value:
        return "the value is empty"
    if value[0]:
        return f"the value begins with byte {value[0]}, not with 0; send Avro in Confluent framing"
    return f"the value has {len(value)} bytes, fewer than the framing's 5"


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")[:200]
