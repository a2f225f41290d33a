"""Say in SQL how rewards are added up by days."""

from __future__ import annotations

from engine.store.eras import newest
from projections.reward_days.texts_of_lots import BEGIN, EXPIRES, LOT

PARTICIPANT, REDEEMER, EARNING_ORDER, ACTIVE = 1, 2, 3, 4
"""The measures of `reward_count`."""

_KIND = "type, unit, debit, credit, reason, campaign, item"

REWARD = f"""
       e.shard, e.seq, e.member_id, e.amount, e.recorded_at, e.type, e.unit, e.debit, e.credit, e.reason, e.campaign,
       CASE WHEN e.unit IN ('gift', 'coupon') OR e.type = 'tier.changed' THEN e.item END AS item,
       (e.occurred_at AT TIME ZONE %(zone)s)::date AS day,
       (e.recorded_at AT TIME ZONE %(zone)s)::date AS recorded_day,
       CASE WHEN 'active' IN (e.credit, e.debit) THEN (e.expires_at AT TIME ZONE %(zone)s)::date END AS lapses,
       CASE WHEN e.debit = 'issued' AND e.unit = 'points' THEN {LOT} END AS lot,
       CASE WHEN e.debit = 'issued' AND e.unit = 'points' THEN {EXPIRES} END AS expires
"""
"""The columns of a reward `e` that are added up, and of points the lot that it begins."""

SUMS = f"""
SELECT day, recorded_day, {_KIND}, sum(amount) AS amount, count(*) AS rewards,
       max(recorded_at) AS recorded_at
FROM e GROUP BY day, recorded_day, {_KIND}
"""
"""The sums of the rewards in `e`."""

IS_PARTICIPATION = "e.type IN ('points.granted', 'points.captured')"

TOOK_PART = f"""
SELECT e.shard, e.member_id, m.measure, e.day, min(e.recorded_day) AS recorded_day
FROM e CROSS JOIN LATERAL (
    VALUES ({PARTICIPANT:d}), (CASE WHEN e.type = 'points.captured' THEN {REDEEMER:d} END)
) m (measure)
WHERE {IS_PARTICIPATION} AND m.measure IS NOT NULL GROUP BY 1, 2, 3, 4
"""
"""The days on which members took part by the rewards in `e`."""

EARNING_ORDERS = """
SELECT (s.occurred_at AT TIME ZONE %(zone)s)::date AS day, g.recorded_day, count(*) AS number
FROM (
    SELECT shard, seq, min(recorded_day) AS recorded_day FROM e
    WHERE type IN ('points.granted', 'cash.granted', 'coupon.issued', 'gift.awarded', 'benefit.granted')
    GROUP BY shard, seq
) g
JOIN guerdon.source_event s ON s.shard = g.shard AND s.seq = g.seq AND s.kind = 'purchase'
GROUP BY 1, 2
"""
"""The orders that a reward in `e` is of."""

LAPSING = """
SELECT lapses AS day, recorded_day, sum(CASE WHEN credit = 'active' THEN amount ELSE -amount END) AS number
FROM e WHERE lapses IS NOT NULL GROUP BY lapses, recorded_day
"""
"""The active amounts that the rewards in `e` add, of all units, by the day on which they lapse."""

_READ_THROUGH = f"""
SELECT {REWARD}
FROM projection_range r
JOIN guerdon.reward_event e
  ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
WHERE r.build = %(build)s
"""
_BY_KEY = f"""
SELECT {REWARD}
FROM projection_range r
CROSS JOIN LATERAL (
    SELECT * FROM guerdon.reward_event e
    WHERE e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
    OFFSET 0  -- without it PostgreSQL, where it expects few rows of a type, reads the log from its beginning
) e
WHERE r.build = %(build)s
"""

NEAR = """
    CASE WHEN {previous} > '-infinity' AND {previous} < least(
             date_trunc('month', {day}::timestamp), date_trunc('week', {day}::timestamp)
         )::date
         THEN date_trunc('month', {previous}::timestamp)::date ELSE {previous} END
"""
"""The day before another one, as it is counted: from afar its month is enough, as no report begins within a month."""

_SUM_CHANGES = newest(
    "changes", "guerdon.reward_day", build="%(build)s", lane="%(lane)s", day="s.day", recorded_day="s.recorded_day",
    kind="s.kind",
)  # fmt: skip
_COUNT_CHANGES = newest(
    "changes", "guerdon.reward_count", build="%(build)s", lane="%(lane)s", measure="c.measure", day="c.day",
    previous="c.previous", recorded_day="c.recorded_day",
)  # fmt: skip

_ADD_SUMS = f"""
INSERT INTO guerdon.reward_day AS d
    (build, lane, changes, day, recorded_day, {_KIND}, amount, rewards, recorded_at, kind)
SELECT %(build)s, %(lane)s, coalesce({_SUM_CHANGES}, 0), s.*
FROM (SELECT g.*, md5(({_KIND})::text)::uuid AS kind FROM ({SUMS}) g ORDER BY day, recorded_day, kind) s
ON CONFLICT (build, lane, day, recorded_day, kind, era) DO UPDATE
SET changes = d.changes + 1, amount = d.amount + excluded.amount, rewards = d.rewards + excluded.rewards,
    recorded_at = greatest(d.recorded_at, excluded.recorded_at)
"""

_ADD_COUNTS = f"""
INSERT INTO guerdon.reward_count AS d (build, lane, changes, measure, day, previous, recorded_day, number)
SELECT %(build)s, %(lane)s, coalesce({_COUNT_CHANGES}, 0), c.*
FROM {{counts}}
ON CONFLICT (build, lane, measure, day, previous, recorded_day, era) DO UPDATE
SET changes = d.changes + 1, number = d.number + excluded.number
"""

ADD_PAIRS = _ADD_COUNTS.format(
    counts=f"""(
    SELECT v.measure, v.day, {NEAR.format(previous="v.previous", day="v.day")} AS previous, v.recorded_day,
           sum(v.members)
    FROM (
        SELECT v.measure, v.day::date AS day, coalesce(v.previous::date, '-infinity') AS previous,
               v.recorded_day::date AS recorded_day, v.members
        FROM (VALUES %%s) AS v (day, previous, recorded_day, measure, members)
    ) v
    GROUP BY 1, 2, 3, 4 HAVING sum(v.members) <> 0 ORDER BY 1, 2, 3, 4
) c"""
)
"""Add pairs of days; rows of values come in the place of %s once the parameters are set."""


def _fold(*, rewards: str, exists: str, last_day: str, known: str) -> str:
    """Return the SQL that adds the rewards of a range up, and returns the members with days out of their order.

    A member's days are in order if none lies before one that is known, or was recorded before one that lies before it.

    Args:
        rewards: the query of the rewards.
        exists: what to do with a day of a member that is known.
        last_day: the last of a member's days that are known.
        known: all of them.
    """
    return f"""
WITH e AS MATERIALIZED ({rewards}), summed AS (
    {_ADD_SUMS}
), {BEGIN}, day AS (
    INSERT INTO guerdon.participation_day (build, shard, member_id, measure, day, recorded_day)
    SELECT %(build)s, p.* FROM ({TOOK_PART}) p ORDER BY shard, member_id, measure, day
    {exists}
    RETURNING shard, member_id, measure, day, recorded_day
), follows AS (
    SELECT d.*, lag(d.day) OVER member AS before,
           lag(d.recorded_day) OVER member > d.recorded_day AS is_late
    FROM day d WINDOW member AS (PARTITION BY d.shard, d.member_id, d.measure ORDER BY d.day)
), placed AS (
    SELECT f.shard, f.member_id, f.measure, f.day, f.recorded_day, coalesce(f.before, l.day, '-infinity') AS previous,
           bool_or(f.is_late IS TRUE OR (f.before IS NULL AND l.day > f.day))
           OVER (PARTITION BY f.shard, f.member_id, f.measure) IS TRUE AS is_late
    FROM follows f LEFT JOIN LATERAL ({last_day}) l ON f.before IS NULL
), counted AS (
    {
        _ADD_COUNTS.format(
            counts=f'''(
        SELECT measure, day, {NEAR.format(previous="previous", day="day")}, recorded_day, count(*)
        FROM placed WHERE NOT is_late GROUP BY 1, 2, 3, 4
        UNION ALL
        SELECT {EARNING_ORDER:d}, o.day, '-infinity', o.recorded_day, o.number FROM ({EARNING_ORDERS}) o
        UNION ALL
        SELECT {ACTIVE:d}, a.day, '-infinity', a.recorded_day, a.number FROM ({LAPSING}) a
        ORDER BY 1, 2, 3, 4
    ) c (measure, day, previous, recorded_day, number)'''
        )
    }
)
SELECT measure, {known}, array_agg(day), array_agg(recorded_day)
FROM placed WHERE is_late GROUP BY shard, member_id, measure
"""


FIRST = _fold(
    rewards=_READ_THROUGH, exists="", last_day="SELECT NULL::date AS day", known="ARRAY[]::date[]"
)  # fmt: skip
"""Fold shards that have no rows in the build yet."""

ADD = _fold(
    rewards=_BY_KEY,
    exists="ON CONFLICT DO NOTHING",
    last_day="""
        SELECT n.day FROM guerdon.participation_day n
        WHERE n.build = %(build)s AND n.shard = f.shard AND n.member_id = f.member_id AND n.measure = f.measure
        ORDER BY n.day DESC LIMIT 1
    """,
    known="""ARRAY(
        SELECT n.day FROM guerdon.participation_day n
        WHERE n.build = %(build)s AND n.shard = placed.shard AND n.member_id = placed.member_id
          AND n.measure = placed.measure
    )""",
)
"""Fold further rewards."""
