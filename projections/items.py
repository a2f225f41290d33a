"""Project the items of members: each coupon, gift, badge and benefit with its status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.differences import sentence
from projections.gaps import is_folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Add the items granted in `projection_range` to `build`; the last movement of an item says its status.

    An item from before the range has a row already; only the status of that row changes.
    """
    change = "" if is_first else "ON CONFLICT (build, shard, member_id, lot) DO UPDATE SET status = excluded.status"
    cursor.execute(
        f"""
        INSERT INTO guerdon.member_reward
            (build, shard, member_id, lot, unit, item, amount, granted_at, expires_at, status)
        SELECT DISTINCT ON (e.shard, e.member_id, e.lot)
               %(build)s, e.shard, e.member_id, e.lot, e.unit, e.item, e.amount, e.occurred_at, e.expires_at,
               last_value(e.status) OVER (PARTITION BY e.shard, e.member_id, e.lot ORDER BY e.pos
                                          ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        FROM projection_range r
        JOIN guerdon.item_movement e
          ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
        WHERE r.build = %(build)s
        ORDER BY e.shard, e.member_id, e.lot, e.pos
        {change}
        """,
        {"build": build, "generation": generation},
    )


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no view reads them."""
    cursor.execute("DELETE FROM guerdon.member_reward WHERE build = %s", (build,))


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first item that is not as the log up to the cursor says; None: all are."""
    cursor.execute(
        f"""
        SELECT coalesce(p.member_id, f.member_id), coalesce(p.item, f.item), p.line, f.line
        FROM (
            SELECT shard, member_id, lot, item,
                   concat_ws(' ', amount, unit, item, status, granted_at, expires_at) AS line
            FROM guerdon.member_reward WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)
        ) p
        FULL JOIN (
            SELECT shard, member_id, lot, item,
                   concat_ws(' ', amount, unit, item, last, occurred_at, expires_at) AS line
            FROM (
                SELECT DISTINCT ON (e.shard, e.member_id, e.lot) e.*,
                       last_value(e.status) OVER (PARTITION BY e.shard, e.member_id, e.lot ORDER BY e.pos
                                                  ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS last
                FROM guerdon.item_movement e
                JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
                 AND coalesce(c.shard = ANY(%(shards)s), true)
                WHERE e.generation = %(generation)s AND {is_folded("e")}
                ORDER BY e.shard, e.member_id, e.lot, e.pos
            ) folded
        ) f USING (shard, member_id, lot)
        WHERE p.line IS DISTINCT FROM f.line
        ORDER BY 1, 2 LIMIT 1
        """,
        {"build": build, "generation": generation, "shards": shards},
    )
    row = cursor.fetchone()
    if row is None:
        return None

    member_id, item, projected, folded = row
    return sentence(f"member {member_id}, {item}", projected, folded, "member_reward")
