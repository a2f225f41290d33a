"""Read the source log of whole shards fast: by COPY, in the order of seq, with the decoders of admitted events.

`History.at` returns the same events one by one. Nothing is locked, and memory holds one page of each shard.
"""

from __future__ import annotations

from heapq import merge
from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING, Any

from engine.programme.rules.occurrence import Occurrence
from engine.store.logs.binary_copy import HEADER, NULL, POSTGRES_EPOCH_MS
from engine.store.logs.history import History, Logged, Recorded
from engine.store.logs.readers import Readers
from engine.store.members import personal
from schemas.canonical import event_identity
from schemas.events import TYPE_NAMES, Touch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.store.cursor import Cursor

PAGE_ROWS = 5_000
"""Rows that are read at once from one shard."""

MERGED_PAGE_ROWS = 500
"""Rows that are read at once from each shard where shards are merged."""

# An event from upstream holds its member, source and event_id itself; these columns are for Guerdon's own format alone.
_SELECT = """
COPY (
    SELECT e.seq, e.prev_seq, e.occurred_at, e.recorded_at, e.schema_id, e.payload,
           CASE WHEN e.schema_id = %(own)s THEN e.kind::text END,
           CASE WHEN e.schema_id = %(own)s THEN e.member_id END,
           CASE WHEN e.schema_id = %(own)s THEN e.source END,
           CASE WHEN e.schema_id = %(own)s THEN e.event_id END,
           e.sealed,
           CASE WHEN e.sealed IS NOT NULL THEN (
               SELECT k.key FROM guerdon.member_key k WHERE k.shard = e.shard AND k.member_id = e.member_id
           ) END
    FROM guerdon.source_event e
    WHERE e.shard = %(shard)s AND e.seq > %(after)s AND e.seq <= %(upto)s ORDER BY e.seq
) TO STDOUT (FORMAT binary)
"""
_NUMBERS = Struct(">hiqiqiqiqiii")
_OWN_COLUMNS = 6
_NULLS = NULL * _OWN_COLUMNS
_END = b"\xff\xff"


class WholeLog:
    """Read pages of any shard on one cursor; personal fields of erased members are left out."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._history = History(cursor, bare=True)
        self._readers = Readers(cursor)

    def page(self, shard: int, after_seq: int, upto_seq: int, rows_max: int = PAGE_ROWS) -> list[Logged]:
        """Return the shard's source events after `after_seq` up to `upto_seq`, `rows_max` at most, in their order."""
        upto = min(upto_seq, after_seq + rows_max)
        if upto <= after_seq:
            return []
        copied = BytesIO()
        where = {"own": personal.OWN_FORMAT, "shard": shard, "after": after_seq, "upto": upto}
        self._cursor.copy_expert(self._cursor.mogrify(_SELECT, where).decode(), copied, size=1 << 20)
        return self._rows(shard, copied.getvalue())

    def shard(self, shard: int, upto_seq: int, after_seq: int = 0, rows_max: int = PAGE_ROWS) -> Iterator[Logged]:
        """Yield the shard's source events after `after_seq` up to `upto_seq`, page by page."""
        while after_seq < upto_seq:
            page = self.page(shard, after_seq, upto_seq, rows_max)
            if not page:
                return
            yield from page
            after_seq += rows_max

    def merged(self, upto: Mapping[int, int]) -> Iterator[Logged]:
        """Yield the source events of several shards up to a seq of each, ordered by (recorded_at, shard, seq)."""
        shards = (self.shard(shard, seq, 0, MERGED_PAGE_ROWS) for shard, seq in sorted(upto.items()))
        return merge(*shards, key=place)

    def _rows(self, shard: int, copied: bytes) -> list[Logged]:
        """Take the rows apart: numbers first, then the payload, then six columns that most rows do not have."""
        rows: list[Logged] = []
        unpack, size, readers = _NUMBERS.unpack_from, _NUMBERS.size, self._readers
        at = len(HEADER)
        while copied[at : at + 2] != _END:
            # numbers of fixed length, then the payload
            _, _, seq, _, prev_seq, _, occurred_us, _, recorded_us, _, schema_id, length = unpack(copied, at)
            at += size
            payload = copied[at : at + length]
            at += length
            recorded_ms = recorded_us // 1000 + POSTGRES_EPOCH_MS

            # sent by upstream: the payload says everything
            if copied.startswith(_NULLS, at):
                at += len(_NULLS)
                event: Any = readers[schema_id](payload)
                kind = type(event)
                recorded = Recorded(
                    TYPE_NAMES[kind], "" if kind is Touch else event.member_id, event.event_id, prev_seq, event,
                    Occurrence(event_identity(event.source, event.event_id), seq, recorded_ms),
                )  # fmt: skip
            # in Guerdon's own format: the columns name the event, and may bring a key
            else:
                columns, at = _columns(copied, at)
                names = [str(column, "utf-8") for column in columns[:4]]
                row = (seq, *names, prev_seq, schema_id, payload, columns[4], recorded_ms, columns[5])
                recorded = self._history.recorded(row)
            rows.append(Logged(shard, recorded, occurred_us // 1000 + POSTGRES_EPOCH_MS, payload))
        return rows


def place(row: Logged) -> tuple[int, int, int]:
    """Return the key that orders rows of all shards."""
    occurrence = row.recorded.occurrence
    return (occurrence.recorded_at_ms, row.shard, occurrence.seq)


def _columns(copied: bytes, at: int) -> tuple[list[Any], int]:
    """Return the columns of Guerdon's own format, None for NULL, and the place behind them."""
    columns: list[Any] = []
    for _ in range(_OWN_COLUMNS):
        length = int.from_bytes(copied[at : at + 4], "big", signed=True)
        at += 4
        columns.append(None if length < 0 else copied[at : at + length])
        at += max(length, 0)
    return columns, at
