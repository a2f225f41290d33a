"""Read ranges of many shards of the source log by one COPY, without personal fields: for folds that need no more."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from engine.store.logs.binary_copy import HEADER, NULL, TRAILER
from engine.store.logs.readers import Readers
from engine.store.members import personal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.store.cursor import Cursor
    from schemas.events import Event

PERSONAL_KINDS = (b"signup", b"profile")
"""The kinds of events from upstream that are kept in Guerdon's own format, without their personal fields."""

# The ranges are short beside the log, so each is found by the key.
_SELECT = """
COPY (
    SELECT e.shard, e.seq, e.occurred_at, e.recorded_at, e.schema_id, e.payload,
           CASE WHEN e.schema_id = %(own)s THEN e.kind::text END
    FROM unnest(%(shards)s::smallint[], %(after)s::bigint[], %(upto)s::bigint[]) AS r (shard, after, upto)
    CROSS JOIN LATERAL (
        SELECT * FROM guerdon.source_event d WHERE d.shard = r.shard AND d.seq > r.after AND d.seq <= r.upto
        ORDER BY d.seq
    ) e
    ORDER BY e.shard, e.seq
) TO STDOUT (FORMAT binary)
"""
_NUMBERS = struct.Struct(">hihiqiqiqiii")


class Range(NamedTuple):
    """Name the source events of a shard after one seq, up to another."""

    shard: int
    after_seq: int
    upto_seq: int


class BareEvent(Struct, frozen=True, gc=False):
    """Hold a source event from upstream without personal fields; times are PostgreSQL's microseconds since 2000."""

    shard: int
    seq: int
    occurred_us: int
    recorded_us: int
    event: Event


class BareLog:
    """Read events from upstream on one cursor; events that Guerdon wrote itself, decisions too, are passed over."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._readers = Readers(cursor)

    def read(self, ranges: Iterable[Range]) -> Iterator[BareEvent]:
        """Yield the events of ranges that do not overlap, in the order of (shard, seq).

        Raises:
            ValueError, IndexError, LookupError: an event cannot be decoded.
            schemas.rejection.Rejected: as above.
        """
        shards, after, upto = (list(column) for column in zip(*ranges, strict=True))
        where = {"own": personal.OWN_FORMAT, "shards": shards, "after": after, "upto": upto}
        copied = BytesIO()
        self._cursor.copy_expert(self._cursor.mogrify(_SELECT, where).decode(), copied, size=1 << 20)
        return self._rows(copied.getvalue())

    def _rows(self, copied: bytes) -> Iterator[BareEvent]:
        unpack, size, readers = _NUMBERS.unpack_from, _NUMBERS.size, self._readers
        at = len(HEADER)
        while not copied.startswith(TRAILER, at):
            # numbers of fixed length, then the payload
            _, _, shard, _, seq, _, occurred_us, _, recorded_us, _, schema_id, length = unpack(copied, at)
            at += size
            payload = copied[at : at + length]
            at += length

            # sent by upstream, or kept in Guerdon's own format
            if copied.startswith(NULL, at):
                at += len(NULL)
                yield BareEvent(shard, seq, occurred_us, recorded_us, readers[schema_id](payload))
                continue
            length = int.from_bytes(copied[at : at + 4])
            kind = copied[at + 4 : at + 4 + length]
            at += 4 + length
            if kind in PERSONAL_KINDS:
                event = personal.unseal(kind.decode(), payload, None, b"", None)
                yield BareEvent(shard, seq, occurred_us, recorded_us, event)
