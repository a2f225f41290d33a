"""Compare lots and their cells with the log, up to where it is folded."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from projections.differences import sentence
from projections.gaps import is_folded
from projections.reward_days.lots import NEVER, Lot, Way, corrections
from projections.reward_days.texts_of_lots import IS_MOVEMENT, MOVEMENT, PACKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.cursor import Cursor

NAME = "reward_day"

_PLACED = f"""
WITH m AS (
    SELECT {MOVEMENT}
    FROM guerdon.reward_event e
    JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
     AND coalesce(c.shard = ANY(%(shards)s), true)
    WHERE e.generation = %(generation)s AND {IS_MOVEMENT} AND {is_folded("e")}
), placed AS (
    SELECT m.*, max(m.day) FILTER (WHERE m.way = {Way.ISSUED:d}) OVER lot AS granted_day
    FROM m WINDOW lot AS (PARTITION BY m.shard, m.lot)
)
"""

_LOTS = f"""
{_PLACED}
SELECT coalesce(p.lot, f.lot)::text, p.line, f.line
FROM (
    SELECT l.shard, l.lot, concat_ws(' ', l.granted_day, l.recorded_day, l.expires, l.issued, l.is_complex, (
               SELECT array_agg((u.move, u.points) ORDER BY u.n)
               FROM unnest(l.moves, l.points) WITH ORDINALITY AS u (move, points, n) WHERE u.move & 255 <> 0
           )) AS line
    FROM guerdon.reward_lot l WHERE l.build = %(build)s AND coalesce(l.shard = ANY(%(shards)s), true)
) p
FULL JOIN (
    SELECT shard, lot, concat_ws(' ', granted_day, max(recorded_day) FILTER (WHERE way = {Way.ISSUED:d}),
               max(expires) FILTER (WHERE way = {Way.ISSUED:d}), max(amount) FILTER (WHERE way = {Way.ISSUED:d}),
               bool_or(way IN ({Way.RESTORED:d}, {Way.REVERSED_FROM_EXPIRED:d})) IS TRUE
               OR min(expires) <> max(expires),
               array_agg(({PACKED}, amount) ORDER BY pos) FILTER (WHERE way <> {Way.ISSUED:d})) AS line
    FROM placed WHERE granted_day IS NOT NULL GROUP BY shard, lot, granted_day
) f USING (shard, lot)
WHERE p.line IS DISTINCT FROM f.line ORDER BY 1 LIMIT 1
"""

_CELL = "granted_day, day, recorded_day, way, left_day, nullif(expires, 'infinity')"


def difference_of_lots(cursor: Cursor, where: Mapping[str, Any]) -> str | None:
    """Return a sentence about the first lot that is not as the log says; None: all are."""
    cursor.execute(_LOTS, where)
    row = cursor.fetchone()
    if row is None:
        return None
    lot, projected, logged = row
    return sentence(f"lot {lot}", projected, logged, NAME)


def difference_of_cells(cursor: Cursor, where: Mapping[str, Any]) -> str | None:
    """Return a sentence about the first cell of lots that is not as the log says, over all shards; None: all are."""
    cursor.execute(
        f"SELECT {_CELL}, sum(points) FROM guerdon.lot_day WHERE build = %(build)s GROUP BY 1, 2, 3, 4, 5, 6", where
    )
    projected = Counter({(*cell, expires or NEVER): points for *cell, expires, points in cursor.fetchall()})

    # movements as they are, and the corrections of lots, which were compared before
    cursor.execute(
        f"""
        {_PLACED}
        SELECT granted_day, day, recorded_day, way, day, nullif(expires, 'infinity'), sum(amount) FROM placed
        WHERE way IS NOT NULL AND granted_day IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6
        """,
        where,
    )
    logged = Counter({(*cell, expires or NEVER): points for *cell, expires, points in cursor.fetchall()})
    cursor.execute(
        """
        SELECT granted_day, recorded_day, nullif(expires, 'infinity'), issued, moves, points
        FROM guerdon.reward_lot WHERE build = %(build)s AND is_complex
        """,
        where,
    )
    for lot in map(Lot._make, cursor):
        for each, change in corrections(lot.all_moves()).items():
            logged[lot.granted_day, each.day, each.recorded_day, each.way, each.left_day, each.expires] += change

    for cell in sorted(projected.keys() | logged.keys()):
        if projected[cell] != logged[cell]:
            granted_day, day, _, way, *_ = cell
            what = f"points granted on {granted_day}, {Way(way).name.lower()} on {day}"
            return sentence(what, projected[cell], logged[cell], NAME)
    return None
