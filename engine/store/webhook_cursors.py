"""Know how far each webhook is in each shard's log, and lend a shard to one process at a time for deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from datetime import datetime

    from engine.store.cursor import Cursor

LEASE_S = 45
"""How long a shard is lent. A process that dies keeps it so long; then another one sends the same again."""

_HEAD = """
    LEFT JOIN LATERAL (
        SELECT g.pos FROM guerdon.generation_head g
        WHERE g.generation = {generation} AND g.shard = {shard} ORDER BY g.seq DESC LIMIT 1
    ) h ON true
"""
HEAD_OF_CURSOR = _HEAD.format(generation="c.generation", shard="c.shard")
"""The join that finds as `h.pos` the last position of a cursor `c`'s log."""


class Lease(NamedTuple):
    """Hold a shard's log after `pos` that this process may deliver to a webhook until LEASE_S have passed."""

    lease: UUID
    webhook_id: str
    shard: int
    generation: int
    pos: int
    upto_pos: int
    attempts: int
    """The attempts in a row that failed."""
    failing_since: datetime | None
    url: str
    types: tuple[str, ...]
    """The types of reward events that are wanted; empty: all."""


class Progress(NamedTuple):
    """Hold what came of a lease."""

    pos: int
    """All up to here is delivered, or is of no type that is wanted."""
    delivered: int
    error: str | None = None
    """Why the next one was not taken; None: nothing failed."""
    pause_s: float = 0.0
    """How long to wait before the next attempt."""


def begin(cursor: Cursor, webhook_id: str, generation: int) -> None:
    """Let a webhook begin at the end of a generation's log, in every shard."""
    cursor.execute(
        f"""
        INSERT INTO guerdon.webhook_cursor (webhook_id, shard, generation, pos)
        SELECT %(webhook)s, s.shard, %(generation)s, coalesce(h.pos, 0)
        FROM generate_series(0, %(shards)s - 1) s (shard) {_HEAD.format(generation="%(generation)s", shard="s.shard")}
        """,
        {"webhook": webhook_id, "generation": generation, "shards": SHARDS},
    )


def move_to(cursor: Cursor, generation: int) -> None:
    """Let every webhook go on at the end of the log of a generation that becomes live in this transaction.

    Events of the old generation that were not sent yet are left out: the live log no longer has them.
    """
    cursor.execute(
        """
        UPDATE guerdon.webhook_cursor c
        SET generation = %(generation)s, attempts = 0, failing_since = NULL, error = NULL, lease = NULL,
            next_attempt_at = '-infinity', leased_until = '-infinity',
            pos = coalesce((SELECT max(g.pos) FROM guerdon.generation_head g
                            WHERE g.generation = %(generation)s AND g.shard = c.shard), 0)
        """,
        {"generation": generation},
    )


def take(cursor: Cursor) -> Lease | None:
    """Return a shard of a webhook that has something to deliver and is due; None: there is none, or others have it."""
    lease = uuid4()
    cursor.execute(
        f"""
        WITH due AS (
            SELECT c.webhook_id, c.shard, h.pos AS upto, w.url, w.types
            FROM guerdon.webhook_cursor c JOIN guerdon.webhook w USING (webhook_id) {HEAD_OF_CURSOR}
            WHERE w.paused_at IS NULL AND h.pos > c.pos AND c.next_attempt_at <= now() AND c.leased_until <= now()
            ORDER BY c.next_attempt_at, c.delivered_at NULLS FIRST, c.shard LIMIT 1 FOR UPDATE OF c SKIP LOCKED
        )
        UPDATE guerdon.webhook_cursor c SET lease = %s, leased_until = now() + %s * interval '1 second'
        FROM due d WHERE c.webhook_id = d.webhook_id AND c.shard = d.shard
        RETURNING c.lease::text, c.webhook_id, c.shard, c.generation, c.pos, d.upto, c.attempts, c.failing_since,
                  d.url, d.types
        """,
        (str(lease), LEASE_S),
    )
    row = cursor.fetchone()
    return None if row is None else Lease._make((lease, *row[1:-1], tuple(row[-1])))


def give_back(cursor: Cursor, lease: Lease, progress: Progress) -> bool:
    """Note what came of a lease, and return whether it still held; else another process has the shard now."""
    cursor.execute(
        """
        UPDATE guerdon.webhook_cursor SET
            pos = greatest(pos, %(pos)s), delivered = delivered + %(delivered)s, error = %(error)s, lease = NULL,
            leased_until = '-infinity', next_attempt_at = now() + %(pause)s * interval '1 second',
            attempts = CASE WHEN %(error)s IS NULL THEN 0 WHEN %(delivered)s > 0 THEN 1 ELSE attempts + 1 END,
            failing_since = CASE WHEN %(error)s IS NULL THEN NULL WHEN %(delivered)s > 0 THEN now()
                                 ELSE coalesce(failing_since, now()) END,
            delivered_at = CASE WHEN %(delivered)s > 0 THEN now() ELSE delivered_at END
        WHERE webhook_id = %(webhook)s AND shard = %(shard)s AND lease = %(lease)s AND generation = %(generation)s
        """,
        {
            **progress._asdict(),
            "pause": progress.pause_s,
            "webhook": lease.webhook_id,
            "shard": lease.shard,
            "lease": str(lease.lease),
            "generation": lease.generation,
        },
    )
    return cursor.rowcount == 1
