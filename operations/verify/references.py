"""Prove that every row beside the logs that names a source event names one that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one
from engine.store.generations import adjustments, live_generation, live_schedule

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor

_BY_EVENT = {
    "guerdon.attribution": "attribution",
    "guerdon.contest_closing": "contest",
    "guerdon.touch": "touch",
}
"""Tables with one row for each source event of a kind."""


def references(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check that facts, forwarded events, attributions, touches and closings name source events that exist.

    The source log has no gaps, so an event that is not beyond the head exists. Every erased member must have the
    pseudonym under which analysts see them.
    """
    with connection.cursor() as cursor:
        (looked_at,) = one(
            cursor,
            """
            SELECT (SELECT count(*) FROM guerdon.generation_fact WHERE generation = %s)
                 + (SELECT count(*) FROM guerdon.generation_schedule WHERE generation = %s)
                 + (SELECT count(*) FROM guerdon.forwarded) + (SELECT count(*) FROM guerdon.attribution)
                 + (SELECT count(*) FROM guerdon.touch) + (SELECT count(*) FROM guerdon.contest_closing)
            """,
            (generation, generation),
        )
        problem = _fact(cursor, generation) or _schedule(cursor, generation) or _forwarded(cursor)
        for table, kind in _BY_EVENT.items():
            problem = problem or _other_kind(cursor, table, kind)
        return looked_at, problem or _missing_attribution(cursor) or _missing_pseudonym(cursor)


def _fact(cursor: Cursor, generation: int) -> str | None:
    """Name the first fact about an event that the generation has not judged, or whose predecessor is missing."""
    cursor.execute(
        """
        SELECT f.shard, f.seq, f.n, f.kind, h.seq, f.nth FROM (
            SELECT *, row_number() OVER (PARTITION BY shard, seq ORDER BY n) - 1 AS nth
            FROM guerdon.generation_fact WHERE generation = %(g)s
        ) f
        LEFT JOIN guerdon.generation_head h ON h.generation = %(g)s AND h.shard = f.shard
        WHERE h.seq IS NULL OR f.n <> f.nth
           OR CASE WHEN f.kind = ANY(%(of_whole)s) THEN (f.shard, f.seq) <> %(whole)s
                   ELSE f.seq NOT BETWEEN 1 AND h.seq END
        ORDER BY f.shard, f.seq, f.n LIMIT 1
        """,
        {"g": generation, "whole": live_generation.WHOLE, "of_whole": [adjustments.FACT, live_schedule.FACT]},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    shard, seq, n, kind, head, nth = row
    where = f"generation {generation}, shard {shard}, seq {seq}"
    if n != nth:
        return f"{where}: fact {nth} is missing, and fact {n} is there"
    return f"{where}: there is a fact ({kind}), and judged is up to seq {head or 0}"


def _schedule(cursor: Cursor, generation: int) -> str | None:
    """Name the first entry of the schedule with a version that does not exist."""
    cursor.execute(
        """
        SELECT s.shard, s.from_seq, s.version FROM guerdon.generation_schedule s
        LEFT JOIN guerdon.programme_version v USING (version)
        WHERE s.generation = %s AND v.version IS NULL ORDER BY s.shard, s.from_seq LIMIT 1
        """,
        (generation,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    shard, from_seq, version = row
    return f"generation {generation}, shard {shard}: from seq {from_seq} on version {version} judges, which is not kept"


def _forwarded(cursor: Cursor) -> str | None:
    """Name the first event that waits for another shard and comes from a source event that does not exist."""
    cursor.execute(
        """
        SELECT f.to_shard, f.from_shard, f.from_seq, f.member_id, coalesce(h.seq, 0) FROM guerdon.forwarded f
        LEFT JOIN guerdon.shard_head h ON h.shard = f.from_shard
        LEFT JOIN guerdon.shard_head t ON t.shard = f.to_shard
        WHERE h.shard IS NULL OR t.shard IS NULL OR f.from_seq NOT BETWEEN 1 AND h.seq
        ORDER BY f.from_shard, f.from_seq, f.to_shard, f.n LIMIT 1
        """
    )
    row = cursor.fetchone()
    if row is None:
        return None
    to_shard, from_shard, from_seq, member_id, head = row
    return (
        f"source log, shard {from_shard}, seq {from_seq}: an event waits from there for member {member_id} in shard "
        f"{to_shard}, and the log ends at seq {head}"
    )


def _other_kind(cursor: Cursor, table: str, kind: str) -> str | None:
    """Name the first row of a table whose source event is of another kind, or does not exist."""
    cursor.execute(
        f"""
        SELECT t.shard, t.seq, e.kind::text FROM {table} t
        LEFT JOIN guerdon.source_event e ON e.shard = t.shard AND e.seq = t.seq
        WHERE e.kind IS DISTINCT FROM %s::guerdon.source_kind ORDER BY t.shard, t.seq LIMIT 1
        """,
        (kind,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    shard, seq, actual = row
    there = "nothing is there" if actual is None else f"it is {_a(actual)}"
    return f"source log, shard {shard}, seq {seq}: {table} tells of {_a(kind)} there, and {there}"


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _missing_attribution(cursor: Cursor) -> str | None:
    """Name the first attribution of the log that has no row in the table of attributions."""
    cursor.execute(
        """
        SELECT e.shard, e.seq, e.member_id FROM guerdon.source_event e
        WHERE e.kind = 'attribution' AND NOT EXISTS (
            SELECT FROM guerdon.attribution a WHERE a.shard = e.shard AND a.seq = e.seq
        )
        ORDER BY e.shard, e.seq LIMIT 1
        """
    )
    row = cursor.fetchone()
    if row is None:
        return None
    shard, seq, member_id = row
    return f"source log, shard {shard}, seq {seq}: guerdon.attribution has nothing of the attribution of {member_id}"


def _missing_pseudonym(cursor: Cursor) -> str | None:
    """Name the first erased member whom the views would show by their true id."""
    cursor.execute(
        """
        SELECT k.member_id FROM guerdon.member_key k
        WHERE k.key IS NULL AND NOT EXISTS (SELECT FROM guerdon.pseudonym p WHERE p.member_id = k.member_id)
        ORDER BY k.member_id LIMIT 1
        """
    )
    row = cursor.fetchone()
    return None if row is None else f"guerdon.pseudonym has nothing for {row[0]}, who was erased"
