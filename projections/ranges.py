"""Find what builds have not folded yet, and lock its cursors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

OF_SOURCE = 0
"""Stands in place of a generation for builds that fold the source log: their positions are its seqs."""


class Behind(NamedTuple):
    """Hold a build with ranges to fold: their number of positions, and its gaps in a row so far."""

    name: str
    build: int
    generation: int
    """The generation whose log it folds; OF_SOURCE where it folds the source log."""

    is_first: bool
    positions: int
    in_a_row: int


def lock_ranges(cursor: Cursor, builds: Sequence[int], shards: Sequence[int], most: int) -> list[Behind]:
    """Fill `projection_range` with the ranges to fold, lock their cursors, and return the builds that are behind.

    The newest version of each cursor and head is looked for first: PostgreSQL keeps the old versions for a long reader,
    and a fold would soon do nothing but walk past them (decision 0023).
    """
    cursor.execute(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS projection_range
            (build integer, shard smallint, after_pos bigint, upto_pos bigint) ON COMMIT DELETE ROWS;
        INSERT INTO projection_range (build, shard, after_pos, upto_pos)
        WITH build AS MATERIALIZED (
            SELECT b.build, b.generation FROM guerdon.projection_build b WHERE b.build = ANY(%(builds)s)
        ), head AS MATERIALIZED (
            SELECT of.generation, s.shard, h.pos
            FROM (SELECT DISTINCT generation FROM build) of CROSS JOIN unnest(%(shards)s::smallint[]) AS s (shard)
            CROSS JOIN LATERAL (
                SELECT g.pos FROM guerdon.generation_head g
                WHERE g.generation = of.generation AND g.shard = s.shard ORDER BY g.seq DESC LIMIT 1
            ) h
            UNION ALL
            SELECT NULL, s.shard, h.seq
            FROM (SELECT FROM build WHERE generation IS NULL LIMIT 1) of
            CROSS JOIN unnest(%(shards)s::smallint[]) AS s (shard)
            CROSS JOIN LATERAL (
                SELECT g.seq FROM guerdon.shard_head g WHERE g.shard = s.shard ORDER BY g.seq DESC LIMIT 1
            ) h
        ), behind AS MATERIALIZED (
            SELECT b.build, h.shard, n.pos AS after_pos, h.pos AS upto_pos
            FROM build b JOIN head h ON h.generation IS NOT DISTINCT FROM b.generation
            CROSS JOIN LATERAL (
                SELECT c.pos FROM guerdon.projection_cursor c
                WHERE c.build = b.build AND c.shard = h.shard ORDER BY c.pos DESC LIMIT 1
            ) n
            WHERE h.pos > n.pos
        )
        SELECT c.build, c.shard, c.pos, least(d.upto_pos, c.pos + %(most)s)
        FROM behind d
        JOIN guerdon.projection_cursor c ON c.build = d.build AND c.shard = d.shard AND c.pos = d.after_pos
        ORDER BY c.build, c.shard FOR UPDATE OF c SKIP LOCKED;
        -- a range that was cut ends with the source event at the cut
        UPDATE projection_range r SET upto_pos = (
            SELECT max(e.pos) FROM guerdon.projection_build b
            JOIN guerdon.reward_event s ON s.generation = b.generation AND s.shard = r.shard AND s.pos = r.upto_pos
            JOIN guerdon.reward_event e ON e.generation = b.generation AND e.shard = r.shard AND e.seq = s.seq
             AND e.pos >= r.upto_pos AND e.pos < r.upto_pos + 100000
            WHERE b.build = r.build
        )
        WHERE r.upto_pos = r.after_pos + %(most)s AND r.build NOT IN (
            SELECT b.build FROM guerdon.projection_build b WHERE b.generation IS NULL
        );
        """,
        {"builds": list(builds), "shards": list(shards), "most": most},
    )

    return _behind(cursor)


def _behind(cursor: Cursor) -> list[Behind]:
    """Return the builds that `projection_range` has ranges of."""
    cursor.execute(
        """
        SELECT b.projection, b.build, coalesce(b.generation, %s), max(r.after_pos) = 0,
               sum(r.upto_pos - r.after_pos)::bigint, coalesce(max(s.in_a_row), 0)
        FROM projection_range r JOIN guerdon.projection_build b USING (build)
        LEFT JOIN guerdon.projection_streak s USING (build) GROUP BY b.build ORDER BY b.build
        """,
        (OF_SOURCE,),
    )
    return [Behind(*row) for row in cursor.fetchall()]
