"""Project the changes of members' tiers, each with the tier before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.differences import sentence
from projections.gaps import is_folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor


_BEFORE = """
    (SELECT h.tier FROM guerdon.tier_history h
     WHERE h.build = %(build)s AND h.shard = e.shard AND h.member_id = e.member_id ORDER BY h.pos DESC LIMIT 1)
"""


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Append the changes in `projection_range` to `build`.

    The tier before a change is that of the change before: in the range, else in the rows of the build, else the lowest
    tier of the programme version that judged it, where every member begins without an event.
    """
    before = "NULL" if is_first else _BEFORE
    cursor.execute(
        f"""
        INSERT INTO guerdon.tier_history
            (build, shard, member_id, pos, tier, previous, reason, occurred_at, recorded_at)
        SELECT %(build)s, e.shard, e.member_id, e.pos, e.tier,
               coalesce(
                   lag(e.tier) OVER (PARTITION BY e.shard, e.member_id ORDER BY e.pos),
                   {before},
                   e.lowest
               ),
               e.reason, e.occurred_at, e.recorded_at
        FROM projection_range r
        JOIN guerdon.tier_movement e
          ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
        WHERE r.build = %(build)s
        """,
        {"build": build, "generation": generation},
    )


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no view reads them."""
    cursor.execute("DELETE FROM guerdon.tier_history WHERE build = %s", (build,))


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first change that is not as the log up to the cursor says; None: all are."""
    cursor.execute(
        f"""
        SELECT member_id, p.line, f.line
        FROM (
            SELECT shard, member_id, pos,
                   concat_ws(' ', previous, 'to', tier, reason, occurred_at, 'recorded', recorded_at) AS line
            FROM guerdon.tier_history WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)
        ) p
        FULL JOIN (
            SELECT e.shard, e.member_id, e.pos,
                   concat_ws(
                       ' ', coalesce(lag(e.tier) OVER (PARTITION BY e.shard, e.member_id ORDER BY e.pos), e.lowest),
                       'to', e.tier, e.reason, e.occurred_at, 'recorded', e.recorded_at
                   ) AS line
            FROM guerdon.tier_movement e
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
             AND coalesce(c.shard = ANY(%(shards)s), true)
            WHERE e.generation = %(generation)s AND {is_folded("e")}
        ) f USING (shard, member_id, pos)
        WHERE p.line IS DISTINCT FROM f.line
        ORDER BY member_id, pos LIMIT 1
        """,
        {"build": build, "generation": generation, "shards": shards},
    )
    row = cursor.fetchone()
    if row is None:
        return None

    member_id, projected, folded = row
    return sentence(f"member {member_id}, tier", projected, folded, "tier_history")
