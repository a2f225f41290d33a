"""Prove that a generation's projections are the fold of its log, and that its balances obey the balance equations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections import runner
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor


def balances(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check the balance equations of the contract for every member and unit of the generation's own build (I12).

    Accounts are as they are stored: `issued` is minus `granted`, `debt` minus the view's `debt`. Members with events
    that were set aside are left out, as their balances lack these events.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) OVER (), member_id, unit,
                   issued + pending + active + reserved + spent + expired + reversed + debt <> 0
                   OR (debt < 0 AND active <> 0)
                   OR least(-issued, pending, active, reserved, spent, expired, reversed, -debt, reversed + debt) < 0
                   AS wrong
            FROM guerdon.member_balance b
            WHERE build IN (
                SELECT build FROM guerdon.projection_build
                WHERE projection = 'member_balance' AND status = 'live' AND generation = %s
            ) AND NOT EXISTS (
                SELECT FROM guerdon.projection_gap g
                WHERE g.build = b.build AND g.shard = b.shard AND g.member_id = b.member_id
            )
            ORDER BY wrong DESC, member_id, unit LIMIT 1
            """,
            (generation,),
        )
        row = cursor.fetchone()
    if row is None:
        return 0, None
    looked_at, member_id, unit, wrong = row
    return looked_at, f"member {member_id}, {unit}: the balance equations do not hold" if wrong else None


def set_aside(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Count the events that the projections could not fold, and check that each is in the log as it is recorded (I7).

    Such events are not wrong: the log is whole, and the views say that they lack them.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) OVER (), b.projection, g.shard, g.first_pos,
                   g.last_pos > c.pos OR g.last_pos < g.first_pos OR CASE WHEN b.generation IS NULL THEN NOT EXISTS (
                       SELECT FROM guerdon.source_event e
                       WHERE e.shard = g.shard AND e.seq = g.seq AND e.member_id = g.member_id
                         AND g.first_pos = g.seq AND g.last_pos = g.seq
                   ) ELSE NOT EXISTS (
                       SELECT FROM guerdon.reward_event e
                       WHERE e.generation = b.generation AND e.shard = g.shard
                         AND e.pos BETWEEN g.first_pos AND g.last_pos
                       HAVING count(*) = g.last_pos - g.first_pos + 1
                          AND count(*) FILTER (WHERE e.seq = g.seq AND e.member_id = g.member_id) = count(*)
                   ) END AS wrong
            FROM guerdon.projection_build b JOIN guerdon.projection_gap g USING (build)
            JOIN guerdon.projection_cursor c ON c.build = g.build AND c.shard = g.shard
            WHERE b.status = 'live' AND (b.generation = %s OR b.generation IS NULL)
            ORDER BY wrong DESC, b.projection, g.shard, g.first_pos LIMIT 1
            """,
            (generation,),
        )
        row = cursor.fetchone()
    if row is None:
        return 0, None
    looked_at, name, shard, pos, wrong = row
    return looked_at, (
        f"projection {name}, shard {shard}, pos {pos}: what is set aside is not one member's part of a source event "
        f"that was folded; run `guerdon projection rebuild {name}`" if wrong else None
    )  # fmt: skip


def projected(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check that each projection of the generation is the fold of its log up to its cursors (I7)."""
    with connection.cursor() as cursor:
        builds = runner.builds_of(cursor, generation)
        problem = _missing(cursor, generation) or _cursor_misplaced(cursor, generation)
        for build in builds:
            problem = problem or runner.difference(cursor, build)
        return len(builds), problem


def facts(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Check that the facts are what the source log says up to their cursors, and count their rows' source events (I7).

    They are the same for all generations.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT b.build, c.shard, c.pos, h.seq FROM guerdon.projection_build b
            CROSS JOIN guerdon.shard_head h
            LEFT JOIN guerdon.projection_cursor c ON c.build = b.build AND c.shard = h.shard
            WHERE b.generation IS NULL AND b.status = 'live' ORDER BY h.shard
            """
        )
        rows = cursor.fetchall()
        if not rows:
            return 0, "there are no facts; run `guerdon projection rebuild facts`"
        for shard, pos, head in ((shard, pos, head) for _, shard, pos, head in rows):
            if pos is None or not 0 <= pos <= head:
                where = "is missing" if pos is None else f"stands at seq {pos}, and the log ends at seq {head}"
                return len(rows), f"facts, shard {shard}: the cursor {where}; run `guerdon projection rebuild facts`"
        return sum(pos for _, _, pos, _ in rows), runner.difference(cursor, rows[0][0])


def _missing(cursor: Cursor, generation: int) -> str | None:
    """Name the first projection that the generation lacks, or that lacks a shard's cursor."""
    cursor.execute(
        """
        SELECT name, b.build, min(shard) FROM unnest(%(names)s) AS name CROSS JOIN generate_series(0, %(last)s) AS shard
        LEFT JOIN guerdon.projection_build b
               ON b.projection = name AND b.status = 'live' AND b.generation = %(generation)s
        LEFT JOIN guerdon.projection_cursor c USING (build, shard)
        WHERE c.build IS NULL GROUP BY name, b.build ORDER BY name LIMIT 1
        """,
        {"names": list(runner.PROJECTIONS), "last": SHARDS - 1, "generation": generation},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    name, build, shard = row
    if build is None:
        return f"generation {generation} has no projection {name}"
    return f"projection {name}, shard {shard}: its cursor is missing; run `guerdon projection rebuild {name}`"


def _cursor_misplaced(cursor: Cursor, generation: int) -> str | None:
    """Name the first cursor that stands beyond the log, or between two reward events of one source event."""
    cursor.execute(
        """
        SELECT b.projection, c.shard, c.pos, h.pos FROM guerdon.projection_build b
        JOIN guerdon.projection_cursor c USING (build)
        JOIN guerdon.generation_head h ON h.generation = b.generation AND h.shard = c.shard
        WHERE b.generation = %(generation)s AND b.status = 'live' AND (
            c.pos NOT BETWEEN 0 AND h.pos OR EXISTS (
                SELECT FROM guerdon.reward_event last JOIN guerdon.reward_event next
                  ON next.generation = last.generation AND next.shard = last.shard AND next.pos = last.pos + 1
                WHERE last.generation = %(generation)s AND last.shard = c.shard AND last.pos = c.pos
                  AND last.seq = next.seq
            )
        )
        ORDER BY b.projection, c.shard LIMIT 1
        """,
        {"generation": generation},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    name, shard, pos, head = row
    what = f"the log ends at pos {head}" if not 0 <= pos <= head else "that is in the midst of a source event"
    return (
        f"projection {name}, shard {shard}: its cursor stands at pos {pos}, and {what}; "
        f"run `guerdon projection rebuild {name}`"
    )
