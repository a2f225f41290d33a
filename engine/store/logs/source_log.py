"""Append to the source log, lock and save the shards' heads, and look identities up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.intake.batch import NO_OFFSET
from engine.ledger import adjustments
from engine.store.logs.binary_copy import NULL, copy_rows, pack_bytes, pack_text, timestamp_us
from engine.store.logs.hash_chain import SOURCE_COLUMNS, source_row
from engine.store.members import personal
from schemas.canonical import IDENTITY_BYTES
from schemas.events import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.intake.batch import Admitted
    from engine.store.cursor import Cursor

TARGET = f"guerdon.source_event ({', '.join(SOURCE_COLUMNS)})"
IDENTITY_TARGET = "guerdon.event_identity (digest, seq, shard, identity)"
_KINDS = {kind: pack_text(kind) for kind in (*EVENT_TYPES, adjustments.KIND)}
_IDENTITY_ROW = b"\0\4\0\0\0\x10%b\0\0\0\x08%b\0\0\0\x02%b\0\0\0\x10"

Sealed = tuple[bytes, bytes | None]
"""The payload of a personal event without its personal fields, and those fields sealed."""


class IdentityPlace(NamedTuple):
    """Hold the place of the first event with an identity, and the digest of its content."""

    digest: bytes
    shard: int
    seq: int


class SourceEnd(NamedTuple):
    """Hold the end of a shard's source log, times in ms."""

    seq: int = 0
    hash: bytes = b""
    recorded_ms: int = 0
    ticked_ms: int | None = None
    """The instant up to which ticks have performed everything that was due; None before the first tick."""


class RewardEnd(NamedTuple):
    """Hold the end of a shard's reward log in one generation, and the version that judges what comes next."""

    pos: int = 0
    hash: bytes = b""
    version: int = 0


EMPTY_SOURCE = SourceEnd()
EMPTY_REWARDS = RewardEnd()


class Head:
    """Hold a shard's head while its row is locked: the last position and hash of both logs.

    `stored` has the `seq` of both rows as they were read: `save_heads` finds the rows by it.
    """

    __slots__ = (
        "hash", "pos", "recorded_ms", "recorded_us", "reward_hash", "seq", "shard", "stored", "ticked_ms", "version",
    )  # fmt: skip

    def __init__(self, shard: int, source: SourceEnd = EMPTY_SOURCE, reward: RewardEnd = EMPTY_REWARDS) -> None:
        self.shard = shard
        self.seq, self.hash, recorded_ms, self.ticked_ms = source
        self.pos, self.reward_hash, self.version = reward
        self.stored = (self.seq, self.seq)
        self.record_at(recorded_ms)

    def record_at(self, recorded_ms: int) -> None:
        """Set the recording time of the next events, in ms and in PostgreSQL's microseconds."""
        self.recorded_ms = recorded_ms
        self.recorded_us = timestamp_us(recorded_ms)


def lock_heads(cursor: Cursor, shards: Iterable[int], generation: int) -> dict[int, Head]:
    """Lock the heads of `shards` in ascending order, which all workers keep.

    The lock lies on a row that nobody ever changes, and a second statement reads the heads. In one statement with the
    lock they would be those from before the wait, and the log would go on from a position that its last writer has left
    behind. The newest version of a head is looked for first: a long reader keeps all old ones (decision 0023).
    """
    wanted = sorted(set(shards))
    cursor.execute("SELECT FROM guerdon.shard_lock WHERE shard = ANY(%s) ORDER BY shard FOR UPDATE", (wanted,))

    cursor.execute(
        """
        SELECT s.shard, s.seq, s.hash, guerdon.ms(s.recorded_at), guerdon.ms(s.ticked_at),
               g.seq, g.pos, g.hash, g.version
        FROM unnest(%s::smallint[]) AS w (shard)
        CROSS JOIN LATERAL (
            SELECT * FROM guerdon.shard_head h WHERE h.shard = w.shard ORDER BY h.seq DESC LIMIT 1
        ) s
        CROSS JOIN LATERAL (
            SELECT * FROM guerdon.generation_head h
            WHERE h.generation = %s AND h.shard = w.shard ORDER BY h.seq DESC LIMIT 1
        ) g
        ORDER BY s.shard
        """,
        (wanted, generation),
    )

    heads: dict[int, Head] = {}
    for shard, seq, last_hash, recorded_ms, ticked_ms, judged, pos, reward_hash, version in cursor.fetchall():
        source = SourceEnd(seq, bytes(last_hash), recorded_ms, ticked_ms)
        head = Head(shard, source, RewardEnd(pos, bytes(reward_hash), version))
        head.stored = (seq, judged)
        heads[shard] = head
    return heads


def save_heads(cursor: Cursor, heads: Iterable[Head], generation: int) -> None:
    """Write the new ends of both logs of the locked shards."""
    rows = list(heads)
    cursor.execute(
        """
        UPDATE guerdon.shard_head h
        SET seq = v.seq, hash = v.hash, recorded_at = to_timestamp(v.recorded_ms / 1000.0),
            ticked_at = to_timestamp(v.ticked_ms / 1000.0)
        FROM unnest(%s::smallint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[], %s::bigint[])
            AS v (shard, stored, seq, hash, recorded_ms, ticked_ms)
        WHERE h.shard = v.shard AND h.seq = v.stored
        """,
        (
            [head.shard for head in rows],
            [head.stored[0] for head in rows],
            [head.seq for head in rows],
            [head.hash for head in rows],
            [head.recorded_ms for head in rows],
            [head.ticked_ms for head in rows],
        ),
    )
    _check_all_saved(cursor, rows)

    cursor.execute(
        """
        UPDATE guerdon.generation_head h SET seq = v.seq, pos = v.pos, hash = v.hash, version = v.version
        FROM unnest(%s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::integer[])
            AS v (shard, stored, seq, pos, hash, version)
        WHERE h.generation = %s AND h.shard = v.shard AND h.seq = v.stored
        """,
        (
            [head.shard for head in rows],
            [head.stored[1] for head in rows],
            [head.seq for head in rows],
            [head.pos for head in rows],
            [head.reward_hash for head in rows],
            [head.version for head in rows],
            generation,
        ),
    )
    _check_all_saved(cursor, rows)

    for head in rows:
        head.stored = (head.seq, head.seq)


def _check_all_saved(cursor: Cursor, rows: Sequence[Head]) -> None:
    if cursor.rowcount != len(rows):
        raise LookupError(f"of {len(rows)} heads {cursor.rowcount} were found where they were locked")


def latest_ms(cursor: Cursor, shard: int, after_seq: int, upto_seq: int) -> int:
    """Return the latest time (ms) of the events and ticks between two seqs of a shard; 0 where there are none.

    Activations, releases and closings are left out: they occur when they are written.
    """
    cursor.execute(
        """
        SELECT guerdon.ms(max(occurred_at)) FROM guerdon.source_event
        WHERE shard = %s AND seq > %s AND seq <= %s AND kind::text NOT IN ('activation', 'release', 'contest')
        """,
        (shard, after_seq, upto_seq),
    )
    row = cursor.fetchone()
    return 0 if row is None or row[0] is None else max(0, int(row[0]))


def find_known(cursor: Cursor, identities: Sequence[bytes]) -> dict[bytes, IdentityPlace]:
    """Return the places of those `identities` (16 bytes each) that the log has, by one look-up for all of them."""
    if not identities:
        return {}
    cursor.execute(
        "SELECT identity, digest, shard, seq FROM guerdon.event_identity WHERE identity = ANY(%s::uuid[])",
        ("{" + ",".join([identity.hex() for identity in identities]) + "}",),
    )
    return {
        bytes.fromhex(identity.replace("-", "")): IdentityPlace(bytes.fromhex(digest.replace("-", "")), shard, seq)
        for identity, digest, shard, seq in cursor.fetchall()
    }


class SourceRows:
    """Collect the rows that one transaction appends to the source log, and their identities."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._identities: list[bytes] = []

    def __len__(self) -> int:
        """Return how many source events wait to be written."""
        return len(self._rows)

    def append(self, event: Admitted, head: Head, prev_seq: int, texts: bytes, sealed: Sealed | None) -> None:
        """Append `event` at the head's next position.

        Args:
            event: the event to append.
            head: the locked head of its shard.
            prev_seq: the member's previous position.
            texts: member_id, source and event_id, packed.
            sealed: the payload of a personal event in its sealed form.
        """
        head.seq += 1
        payload, secret = (event.payload, None) if sealed is None else sealed
        row, head.hash = source_row(
            head.hash,
            (
                head.seq, prev_seq, timestamp_us(event.event.occurred_at), head.recorded_us, event.offset,
                event.partition, event.schema_id if sealed is None else personal.OWN_FORMAT, head.shard,
            ),
            _KINDS[event.kind] + texts,
            pack_bytes(payload),
            NULL if secret is None else pack_bytes(secret),
        )  # fmt: skip
        self._rows.append(row)

        # the event's own identity, and that of its order
        place = _IDENTITY_ROW % (event.digest, head.seq.to_bytes(8), head.shard.to_bytes(2))
        self._identities.append(place + event.identity[:IDENTITY_BYTES])
        if event.order_identity is not None:
            self._identities.append(place + event.order_identity[:IDENTITY_BYTES])

    def append_own(
        self,
        kind: str,
        head: Head,
        *,
        event_id: str,
        payload: bytes,
        member_id: str = "",
        prev_seq: int = 0,
        occurred_ms: int | None = None,
    ) -> None:
        """Append an event of Guerdon's own, such as an activation; it has no identity, as nobody repeats it.

        It occurred at `occurred_ms`, or else at the head's recording time.
        """
        head.seq += 1
        occurred_us = head.recorded_us if occurred_ms is None else timestamp_us(occurred_ms)
        row, head.hash = source_row(
            head.hash,
            (
                head.seq, prev_seq, occurred_us, head.recorded_us, NO_OFFSET, NO_OFFSET,
                personal.OWN_FORMAT, head.shard,
            ),
            pack_text(kind) + pack_text(member_id) + pack_text("guerdon") + pack_text(event_id),
            pack_bytes(payload),
            NULL,
        )  # fmt: skip
        self._rows.append(row)

    def write_events(self, cursor: Cursor) -> None:
        """Copy the rows into the log."""
        if self._rows:
            copy_rows(cursor, TARGET, self._rows)

    def write_identities(self, cursor: Cursor) -> None:
        """Copy the identities, sorted, so that two workers with the same ids meet at the first and never crosswise."""
        if self._identities:
            self._identities.sort(key=_identity_of)
            copy_rows(cursor, IDENTITY_TARGET, self._identities)


def _identity_of(row: bytes) -> bytes:
    return row[-IDENTITY_BYTES:]
