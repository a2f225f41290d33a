"""Project the points that members gain each day; the leaderboard adds months and all time up from days."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.eras import newest
from projections.gaps import is_folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

_DAYS = """
    SELECT e.shard, (e.occurred_at AT TIME ZONE v.timezone)::date AS day, e.member_id,
           sum(CASE WHEN e.debit = 'issued' THEN e.amount ELSE -e.amount END) AS value,
           max(e.occurred_at) AS reached_at
"""
_ADD = """
        ON CONFLICT (build, shard, day, member_id, era) DO UPDATE
        SET changes = p.changes + 1,
            value = p.value + excluded.value, reached_at = greatest(p.reached_at, excluded.reached_at)
"""
_READ_THROUGH = """
    JOIN guerdon.reward_event e
      ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
"""
_BY_KEY = """
    CROSS JOIN LATERAL (
        SELECT * FROM guerdon.reward_event e
        WHERE e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
        OFFSET 0  -- without it PostgreSQL, where it expects few rows of the type, reads the log from its beginning
    ) e
"""
_CHANGES = newest(
    "changes", "guerdon.points_day", build="%(build)s", shard="f.shard", day="f.day", member_id="f.member_id"
)
_GAINED = "e.unit = 'points' AND e.type IN ('points.granted', 'points.reversed')"


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Add the points granted and reversed in `projection_range` to `build`, by their local days."""
    add, rewards, changes = ("", _READ_THROUGH, "0") if is_first else (_ADD, _BY_KEY, f"coalesce({_CHANGES}, 0)")
    cursor.execute(
        f"""
        INSERT INTO guerdon.points_day AS p (build, shard, day, member_id, value, reached_at, changes)
        SELECT %(build)s, f.*, {changes} FROM (
            {_DAYS}
            FROM projection_range r {rewards}
            JOIN guerdon.programme_version v ON v.version = e.rule_version
            WHERE r.build = %(build)s AND {_GAINED}
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ) f
        {add}
        """,
        {"build": build, "generation": generation},
    )


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no view reads them."""
    cursor.execute("DELETE FROM guerdon.points_day WHERE build = %s", (build,))


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first day that is not as the log up to the cursor says; None: all are."""
    cursor.execute(
        f"""
        SELECT member_id, day, p.value, f.value
        FROM (
            SELECT shard, day, member_id, value, reached_at FROM guerdon.points_day
            WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)
        ) p
        FULL JOIN (
            {_DAYS}
            FROM guerdon.reward_event e
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
             AND coalesce(c.shard = ANY(%(shards)s), true)
            JOIN guerdon.programme_version v ON v.version = e.rule_version
            WHERE e.generation = %(generation)s AND {_GAINED} AND {is_folded("e")} GROUP BY 1, 2, 3
        ) f USING (shard, day, member_id)
        WHERE (p.value, p.reached_at) IS DISTINCT FROM (f.value, f.reached_at) ORDER BY member_id, day LIMIT 1
        """,
        {"build": build, "generation": generation, "shards": shards},
    )
    row = cursor.fetchone()
    if row is None:
        return None

    member_id, day, projected, folded = row
    return (
        f"member {member_id}, points of {day}: the projection says {projected} and the log says {folded}, "
        "or at another time; run `guerdon projection rebuild leaderboard`"
    )
