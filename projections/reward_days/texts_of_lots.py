"""Say in SQL how the movements of lots are added up by days."""

from __future__ import annotations

from engine.store.eras import newest
from projections.reward_days.lots import EPOCH, Way

_WAY = f"""
    CASE WHEN e.debit = 'issued' THEN {Way.ISSUED:d}
         WHEN e.credit = 'spent' THEN {Way.CAPTURED:d}
         WHEN e.debit = 'spent' THEN {Way.RESTORED:d}
         WHEN e.credit = 'expired' AND e.reason = 'erased' THEN {Way.ERASED:d}
         WHEN e.credit = 'expired' THEN {Way.EXPIRED:d}
         WHEN e.credit = 'debt' THEN {Way.SETTLED:d}
         WHEN e.debit = 'expired' THEN {Way.REVERSED_FROM_EXPIRED:d}
         WHEN e.credit = 'reversed' AND e.debit <> 'debt' THEN {Way.REVERSED_FROM_LOTS:d}
    END
"""
"""The way of a movement `e`; NULL where it changes nothing that the lot has."""

LOT = "rpad(encode(substring(coalesce(e.lot, e.reward_key) FROM 1 FOR 16), 'hex'), 32, '0')::uuid"
"""The first half of a lot's key; one that somebody has cut short is a lot of its own, and `verify` names its row."""

EXPIRES = "coalesce(date_trunc('month', e.expires_at AT TIME ZONE %(zone)s)::date, 'infinity')"

MOVEMENT = f"""
       e.shard, e.pos, {LOT} AS lot, e.amount, {_WAY} AS way, (e.occurred_at AT TIME ZONE %(zone)s)::date AS day,
       (e.recorded_at AT TIME ZONE %(zone)s)::date AS recorded_day, {EXPIRES} AS expires
"""
"""The columns of a movement `e` of points."""

IS_MOVEMENT = "e.unit = 'points' AND e.debit IS NOT NULL"

PACKED = f"""
    ((day - date '{EPOCH:%Y-%m-%d}')::bigint << 40)
    | ((recorded_day - date '{EPOCH:%Y-%m-%d}')::bigint << 24)
    | ((CASE WHEN expires = 'infinity' THEN 0 ELSE
            (extract(year FROM expires)::bigint - {EPOCH:%Y}) * 12 + extract(month FROM expires)::bigint END) << 8)
    | coalesce(way, 0)
"""
"""A movement of a lot in one number: its day, day of recording, month of expiry and way."""

_READ_THROUGH = f"""
SELECT {MOVEMENT}
FROM projection_range r
JOIN guerdon.reward_event e
  ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
WHERE r.build = %(build)s AND {IS_MOVEMENT} AND e.debit <> 'issued'
"""
_BY_KEY = f"""
SELECT {MOVEMENT}
FROM projection_range r
CROSS JOIN LATERAL (
    SELECT * FROM guerdon.reward_event e
    WHERE e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
    OFFSET 0  -- without it PostgreSQL, where it expects few rows of a kind, reads the log from its beginning
) e
WHERE r.build = %(build)s AND {IS_MOVEMENT} AND e.debit <> 'issued'
"""

_CHANGES = newest(
    "changes", "guerdon.lot_day", build="%(build)s", lane="%(lane)s", granted_day="c.granted_day", day="c.day",
    recorded_day="c.recorded_day", way="c.way", expires="c.expires", left_day="c.left_day",
)  # fmt: skip

_ADD = f"""
INSERT INTO guerdon.lot_day AS d
    (build, lane, changes, granted_day, day, recorded_day, way, expires, left_day, points)
SELECT %(build)s, %(lane)s, coalesce({_CHANGES}, 0), c.*
FROM {{cells}}
ON CONFLICT (build, lane, granted_day, day, recorded_day, way, expires, left_day, era) DO UPDATE
SET changes = d.changes + 1, points = d.points + excluded.points
"""

ADD_CORRECTIONS = _ADD.format(
    cells="""(
    SELECT v.granted_day::date AS granted_day, v.day::date AS day, v.recorded_day::date AS recorded_day,
           v.way::smallint, v.expires::date AS expires, v.left_day::date AS left_day, sum(v.points)
    FROM (VALUES %%s) AS v (granted_day, day, recorded_day, way, expires, left_day, points)
    GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(v.points) <> 0 ORDER BY 1, 2, 3, 4, 5, 6
) c"""
)
"""Add corrections; rows of values come in the place of %s once the parameters are set."""

BEGIN = f"""
begun AS (
    INSERT INTO guerdon.reward_lot (build, shard, lot, granted_day, recorded_day, expires, issued)
    SELECT %(build)s, shard, lot, day, recorded_day, expires, amount FROM e WHERE lot IS NOT NULL
), issued AS (
    {
    _ADD.format(
        cells=f'''(
        SELECT day, day, recorded_day, {Way.ISSUED:d}::smallint, expires, day, sum(amount)
        FROM e WHERE lot IS NOT NULL GROUP BY day, recorded_day, expires ORDER BY day, recorded_day, expires
    ) c (granted_day, day, recorded_day, way, expires, left_day, points)'''
    )
}
)
"""
"""Begin the lots of the rewards in `e`."""


def _follow(movements: str) -> str:
    """Return the SQL that adds the further movements of lots, and returns the complex ones before and after.

    Movements are joined to nothing but their lots, one by one, as PostgreSQL does not know how many they are.
    """
    return f"""
WITH e AS MATERIALIZED ({movements}), m AS MATERIALIZED (
    SELECT e.*, l.granted_day, l.expires AS first_expires, l.is_complex AS was_complex
    FROM e CROSS JOIN LATERAL (
        SELECT * FROM guerdon.reward_lot n WHERE n.build = %(build)s AND n.shard = e.shard AND n.lot = e.lot
        OFFSET 0  -- else PostgreSQL may begin with all lots, and look for the movements of each
    ) l
), placed AS MATERIALIZED (
    SELECT m.*, m.was_complex OR bool_or(
               m.expires <> m.first_expires OR m.way IN ({Way.RESTORED:d}, {Way.REVERSED_FROM_EXPIRED:d})
           ) OVER (PARTITION BY m.shard, m.lot) IS TRUE AS is_complex
    FROM m
), changed AS MATERIALIZED (
    SELECT shard, lot, is_complex, array_agg({PACKED} ORDER BY pos) AS moves, array_agg(amount ORDER BY pos) AS points
    FROM placed WHERE way IS NOT NULL OR is_complex GROUP BY shard, lot, is_complex
), moved AS (
    UPDATE guerdon.reward_lot l
    SET is_complex = c.is_complex, moves = l.moves || c.moves, points = l.points || c.points
    FROM changed c WHERE l.build = %(build)s AND l.shard = c.shard AND l.lot = c.lot
), counted AS (
    {
        _ADD.format(
            cells='''(
        SELECT granted_day, day, recorded_day, way::smallint, expires, day, sum(amount)
        FROM placed WHERE way IS NOT NULL GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ) c (granted_day, day, recorded_day, way, expires, left_day, points)'''
        )
    }
)
SELECT l.granted_day, l.recorded_day, nullif(l.expires, 'infinity'), l.issued, l.moves, l.points, c.moves, c.points
FROM changed c CROSS JOIN LATERAL (
    SELECT * FROM guerdon.reward_lot n WHERE n.build = %(build)s AND n.shard = c.shard AND n.lot = c.lot OFFSET 0
) l
WHERE c.is_complex
"""


FOLLOW_FIRST = _follow(_READ_THROUGH)
"""Add the further movements of lots to shards that had no rows in the build before."""

FOLLOW = _follow(_BY_KEY)
"""Add the further movements of lots."""
