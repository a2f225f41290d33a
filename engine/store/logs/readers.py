"""Decode payloads of the source log, each by a function that is made once for its writer schema."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

from engine.store.logs.history import TOPIC_OF, StoredSchemas
from schemas.admitted_values import reader_of
from schemas.codec import Decoder
from schemas.events import INT64_MAX, TYPE_NAMES
from schemas.writer_schemas import UnreadableSchema, read_writer_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Cursor
    from schemas.events import Event


class Readers(dict[int, "Callable[[bytes], Event]"]):
    """Hold the decoder of payloads by schema_id; an old version is decoded as when it came."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__()
        self._schemas = StoredSchemas(cursor)
        self._decoder = Decoder(self._schemas, bytes_max=INT64_MAX)

    def __missing__(self, schema_id: int) -> Callable[[bytes], Event]:
        text = self._schemas.lookup(schema_id)
        kind, reader = ("", None) if text is None else _read_schema(text)
        if reader is None:
            # the decoder itself says what is wrong with a schema that is missing or cannot be read
            reader = partial(self._decode, TOPIC_OF.get(kind, ""))
        self[schema_id] = reader
        return reader

    def _decode(self, topic: str, payload: bytes) -> Event:
        return self._decoder.decode(topic, payload)[1]


@lru_cache(maxsize=256)
def _read_schema(text: str) -> tuple[str, Callable[[bytes], Event] | None]:
    """Return the event type of a writer schema, and its reader; a process reads a schema once."""
    try:
        schema = read_writer_schema(text)
    except UnreadableSchema:
        return "", None
    return TYPE_NAMES[schema.kind], reader_of(schema)
