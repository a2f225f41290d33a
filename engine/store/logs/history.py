"""Read the source log back: one event, or a member's history along its chain of previous positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import msgpack

from engine.programme.rules.occurrence import Occurrence
from engine.store.logs.forwards import OWN_EVENTS
from engine.store.members import personal
from schemas.canonical import event_identity
from schemas.codec import Decoder
from schemas.events import EVENT_TYPES, INT64_MAX, TOPIC_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor
    from schemas.codec import WriterSchemas
    from schemas.events import Event

ROWS_A_FETCH = 2_000

TOPIC_OF = {kind: topic for topic, kinds in TOPIC_TYPES.items() for kind in kinds}


class Recorded(NamedTuple):
    """Hold one source event as it was recorded."""

    kind: str
    member_id: str
    event_id: str
    prev_seq: int
    event: Event | None
    """The event; None for an activation, a tick, a release or a closing."""

    occurrence: Occurrence
    bare: bool = False
    """Whether personal fields can no longer be read and are left out of `event`."""


class Logged(NamedTuple):
    """Hold a row of the source log: its shard, the recorded event, when it occurred (ms), and the payload's bytes."""

    shard: int
    recorded: Recorded
    occurred_ms: int
    payload: Any


class StoredSchemas:
    """Look writer schemas up in PostgreSQL, so that history can be read without a registry."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None."""
        self._cursor.execute("SELECT body FROM guerdon.writer_schema WHERE schema_id = %s", (schema_id,))
        row = self._cursor.fetchone()
        return None if row is None else str(row[0])


class History:
    """Read recorded events on one cursor.

    Args:
        cursor: belongs to a transaction.
        bare: return events of erased members without their personal fields, instead of raising Erased.
        schemas: know the writer schemas; None: PostgreSQL is asked for each.
    """

    def __init__(self, cursor: Cursor, *, bare: bool = False, schemas: WriterSchemas | None = None) -> None:
        self._cursor = cursor
        self._bare = bare
        self._decoder = Decoder(schemas or StoredSchemas(cursor), bytes_max=INT64_MAX)

    def at(self, shard: int, seq: int) -> Recorded:
        """Return the source event at `seq` of `shard`.

        Raises:
            LookupError: there is none.
            engine.store.members.personal.Erased: its personal fields can no longer be read (never with `bare`).
        """
        self._cursor.execute(
            """
            SELECT e.seq, e.kind::text, e.member_id, e.source, e.event_id, e.prev_seq, e.schema_id, e.payload, e.sealed,
                   guerdon.ms(e.recorded_at), k.key
            FROM guerdon.source_event e
            LEFT JOIN guerdon.member_key k
                   ON e.sealed IS NOT NULL AND k.shard = e.shard AND k.member_id = e.member_id
            WHERE e.shard = %s AND e.seq = %s
            """,
            (shard, seq),
        )
        row = self._cursor.fetchone()
        if row is None:
            raise LookupError(f"shard {shard} has no source event {seq}")
        return self.recorded(row)

    def recorded(self, row: tuple[Any, ...]) -> Recorded:
        """Decode a row of the source log that ends with the key of its sealed fields."""
        seq, kind, member_id, source, event_id, prev_seq, schema_id, payload, sealed, recorded_ms, key = row
        identity = event_identity(source, event_id)
        event: Event | None = None

        # sent by upstream, written by Guerdon about a member, or sent with personal fields and sealed
        bare = self._bare and sealed is not None and key is None
        if schema_id != personal.OWN_FORMAT:
            _, event = self._decoder.decode(TOPIC_OF[kind], bytes(payload))
        elif kind in OWN_EVENTS:
            event = msgpack.decode(bytes(payload), type=OWN_EVENTS[kind])
        elif kind in EVENT_TYPES:
            secret = None if sealed is None or bare else bytes(sealed)
            event = personal.unseal(kind, bytes(payload), secret, identity, None if key is None else bytes(key))

        return Recorded(
            kind=kind, member_id=member_id, event_id=event_id, prev_seq=prev_seq, event=event,
            occurrence=Occurrence(identity, seq, recorded_ms), bare=bare,
        )  # fmt: skip

    def from_first(self, shard: int, last_seq: int) -> Iterator[Recorded]:
        """Yield a member's source events from the first up to `last_seq`, by one query and some at a time.

        PostgreSQL walks the chain of positions, with one look-up in the primary key for each event.
        """
        with self._cursor.connection.cursor("history") as rows:
            rows.itersize = ROWS_A_FETCH
            rows.execute(
                """
                WITH RECURSIVE chain (seq, prev_seq) AS (
                    SELECT seq, prev_seq FROM guerdon.source_event WHERE shard = %(shard)s AND seq = %(last)s
                    UNION ALL
                    SELECT e.seq, e.prev_seq FROM chain c
                    JOIN guerdon.source_event e ON e.shard = %(shard)s AND e.seq = c.prev_seq
                )
                SELECT e.seq, e.kind::text, e.member_id, e.source, e.event_id, e.prev_seq, e.schema_id, e.payload,
                       e.sealed, guerdon.ms(e.recorded_at), k.key
                FROM chain c
                JOIN guerdon.source_event e ON e.shard = %(shard)s AND e.seq = c.seq
                LEFT JOIN guerdon.member_key k
                       ON e.sealed IS NOT NULL AND k.shard = e.shard AND k.member_id = e.member_id
                ORDER BY e.seq
                """,
                {"shard": shard, "last": last_seq},
            )
            for row in rows:
                yield self.recorded(row)

    def of_member(self, shard: int, last_seq: int, first_seq: int = 1) -> Iterator[Recorded]:
        """Yield a member's source events from `last_seq` back to `first_seq`, the newest first."""
        seq = last_seq
        while seq >= first_seq:
            recorded = self.at(shard, seq)
            yield recorded
            seq = recorded.prev_seq

    def last_sent(self, shard: int, last_seq: int, count: int) -> list[int]:
        """Return the seqs of the last `count` events that were sent for a member, the newest first.

        The chain is walked from `last_seq` back until that number is reached; events of Guerdon's own do not count.
        """
        self._cursor.execute(
            """
            WITH RECURSIVE chain (seq, prev_seq, is_sent, sent) AS (
                SELECT seq, prev_seq, kind::text <> ALL(%(own)s), (kind::text <> ALL(%(own)s))::int
                FROM guerdon.source_event WHERE shard = %(shard)s AND seq = %(last)s
                UNION ALL
                SELECT e.seq, e.prev_seq, e.kind::text <> ALL(%(own)s), c.sent + (e.kind::text <> ALL(%(own)s))::int
                FROM chain c
                JOIN guerdon.source_event e ON e.shard = %(shard)s AND e.seq = c.prev_seq
                WHERE c.sent < %(count)s
            )
            SELECT seq FROM chain WHERE is_sent
            """,
            {"shard": shard, "last": last_seq, "count": count, "own": [*OWN_EVENTS, "release"]},
        )
        return [int(seq) for (seq,) in self._cursor.fetchall()]

    def seq_of(self, shard: int, seq: int, event_id: str) -> int:
        """Return the seq of the event that was judged at `seq`: an earlier one if a release stands at `seq`."""
        recorded = self.at(shard, seq)
        if recorded.kind != "release":
            return seq
        earlier = self.of_member(shard, recorded.prev_seq)
        return next(each.occurrence.seq for each in earlier if each.event_id == event_id)


def tick_at(cursor: Cursor, shard: int, seq: int) -> int | None:
    """Return the instant (ms) to which the tick at `seq` moves clocks; None where the source event is no tick."""
    cursor.execute(
        """
        SELECT guerdon.ms(occurred_at) FROM guerdon.source_event WHERE shard = %s AND seq = %s AND kind = 'tick'
        """,
        (shard, seq),
    )
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def keep_schema(cursor: Cursor, schema_id: int, body: str) -> None:
    """Keep a writer schema beside the log: the log cannot be read without it."""
    cursor.execute(
        "INSERT INTO guerdon.writer_schema (schema_id, body) VALUES (%s, %s) ON CONFLICT DO NOTHING", (schema_id, body)
    )
