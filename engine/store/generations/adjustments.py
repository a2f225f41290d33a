"""Keep the adjustments of members towards other generations, and find those that count in a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.cursor import one
from engine.store.generations import live_generation
from engine.store.generations.live_generation import WHOLE

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation

FACT = "adjusted"
"""The kind of a `generation_fact` that names the generation towards which members were adjusted."""

ROWS_LOOKED_BACK = 100
"""The number of last source events of a shard that say how far time has come; some are Guerdon's own."""


def record(cursor: Cursor, generation: int, fact: dict[str, object]) -> None:
    """Keep the fact that members were adjusted towards the generation `fact["towards"]` while `generation` was live."""
    live_generation.add_fact(cursor, generation, WHOLE, FACT, fact)


def recorded(cursor: Cursor, generation: int, towards: int) -> dict[str, Any] | None:
    """Return the fact of an adjustment towards another generation, None where there was none."""
    cursor.execute(
        """
        SELECT fact FROM guerdon.generation_fact
        WHERE generation = %s AND (shard, seq) = %s AND kind = %s AND (fact->>'towards')::integer = %s
        """,
        (generation, WHOLE, FACT, towards),
    )
    row = cursor.fetchone()
    return None if row is None else dict(row[0])


def counted(cursor: Cursor, generation: int) -> frozenset[int]:
    """Return the generations towards which members were adjusted while this generation was live."""
    cursor.execute(
        """
        SELECT (fact->>'towards')::integer FROM guerdon.generation_fact
        WHERE generation = %s AND (shard, seq) = %s AND kind = %s
        """,
        (generation, WHOLE, FACT),
    )
    return frozenset(towards for (towards,) in cursor.fetchall())


def counted_in(cursor: Cursor, generation: Generation) -> frozenset[int]:
    """Return the adjustments that count in a generation: those of its base on the base's schedule, else its own.

    A generation that was live keeps its adjustments, also while another one is live.
    """
    base = generation.base if generation.keeps_schedule else None
    return counted(cursor, generation.number if base is None else base)


def copy(cursor: Cursor, generation: Generation) -> None:
    """Copy to a generation on its base's schedule, before it becomes live, the facts about the base as a whole."""
    cursor.execute(
        """
        INSERT INTO guerdon.generation_fact (generation, shard, seq, n, kind, fact)
        SELECT %s, shard, seq, n, kind, fact FROM guerdon.generation_fact
        WHERE generation = %s AND (shard, seq) = %s
        """,
        (generation.number, generation.base, WHOLE),
    )


def reached_ms(cursor: Cursor, lateness_ms: int) -> int:
    """Return the instant (ms) up to which ticks may go: the last tick, or `lateness_ms` before the last event.

    It is never later than the clock, and never later than the next record of a partition that is behind, where events
    may spend points. The clock alone would be years ahead while a history is read in, and let all open points expire.
    """
    (reached,) = one(
        cursor,
        """
        SELECT guerdon.ms(least(
            greatest(max(h.ticked_at), max(e.occurred_at) - %s * interval '1 ms'),
            (SELECT min(ahead_at) FROM guerdon.consumer_offset)
        ))
        FROM guerdon.shard_head h
        LEFT JOIN LATERAL (
            SELECT max(s.occurred_at) AS occurred_at FROM guerdon.source_event s
            JOIN guerdon.topic_of_kind USING (kind) WHERE s.shard = h.shard AND s.seq > h.seq - %s
        ) e ON true
        """,
        (lateness_ms, ROWS_LOOKED_BACK),
    )
    now_ms = live_generation.now_ms(cursor)
    return now_ms if reached is None else min(int(reached), now_ms)


def due(cursor: Cursor, generation: Generation, until_ms: int) -> dict[int, int]:
    """Return by shard the number of members with something due by an instant, in the live generation or in another."""
    cursor.execute(
        f"""
        SELECT shard, count(*) FROM (
            SELECT shard, due_at FROM guerdon.member_state UNION ALL
            SELECT shard, due_at FROM {generation.table("member_state")}
        ) s WHERE due_at <= to_timestamp(%s / 1000.0) GROUP BY shard ORDER BY shard
        """,
        (until_ms,),
    )
    return dict(cursor.fetchall())
