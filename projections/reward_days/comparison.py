"""Compare the sums by days with the log, up to where both are folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.differences import sentence
from projections.gaps import is_folded
from projections.reward_days.comparison_of_lots import difference_of_cells, difference_of_lots
from projections.reward_days.texts import (
    ACTIVE,
    EARNING_ORDER,
    EARNING_ORDERS,
    LAPSING,
    NEAR,
    PARTICIPANT,
    REDEEMER,
    REWARD,
    SUMS,
    TOOK_PART,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

NAME = "reward_day"

_LOGGED = f"""
e AS MATERIALIZED (
    SELECT {REWARD}
    FROM guerdon.reward_event e
    JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
     AND coalesce(c.shard = ANY(%(shards)s), true)
    WHERE e.generation = %(generation)s AND {is_folded("e")}
)
"""

_DAYS = f"""
WITH {_LOGGED}
SELECT member_id, day, p.recorded_day, f.recorded_day
FROM (
    SELECT shard, member_id, measure, day, recorded_day FROM guerdon.participation_day
    WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)
) p
FULL JOIN ({TOOK_PART}) f USING (shard, member_id, measure, day)
WHERE p.recorded_day IS DISTINCT FROM f.recorded_day ORDER BY 1, 2 LIMIT 1
"""

_SUMS = f"""
WITH {_LOGGED}, projected AS (
    SELECT day, concat_ws(' ', recorded_day, type, unit, debit, credit, reason, campaign, item) AS kind,
           concat_ws(' ', sum(amount), sum(rewards), max(recorded_at)) AS line
    FROM guerdon.reward_day WHERE build = %(build)s GROUP BY 1, 2
), logged AS (
    SELECT day, concat_ws(' ', recorded_day, type, unit, debit, credit, reason, campaign, item) AS kind,
           concat_ws(' ', sum(amount), sum(rewards), max(recorded_at)) AS line
    FROM ({SUMS}) s GROUP BY 1, 2
)
SELECT day, kind, p.line, f.line FROM projected p FULL JOIN logged f USING (day, kind)
WHERE p.line IS DISTINCT FROM f.line ORDER BY 1, 2 LIMIT 1
"""

# the days of a member in the order in which they were recorded; those of one day of recording in their own order
_COUNTS = f"""
WITH {_LOGGED}, counted AS (
    SELECT d.measure, w.day, {NEAR.format(previous="coalesce(w.previous, '-infinity')", day="w.day")} AS previous,
           d.recorded_day, w.sign AS number
    FROM guerdon.participation_day d
    LEFT JOIN LATERAL (
        SELECT max(b.day) AS day FROM guerdon.participation_day b
        WHERE b.build = d.build AND b.shard = d.shard AND b.member_id = d.member_id AND b.measure = d.measure
          AND b.day < d.day AND b.recorded_day <= d.recorded_day
    ) before ON true
    LEFT JOIN LATERAL (
        SELECT min(a.day) AS day FROM guerdon.participation_day a
        WHERE a.build = d.build AND a.shard = d.shard AND a.member_id = d.member_id AND a.measure = d.measure
          AND a.day > d.day AND a.recorded_day < d.recorded_day
    ) after ON true
    CROSS JOIN LATERAL (
        VALUES (d.day, before.day, 1), (after.day, before.day, -1), (after.day, d.day, 1)
    ) w (day, previous, sign)
    WHERE d.build = %(build)s AND w.day IS NOT NULL
    UNION ALL
    SELECT {EARNING_ORDER:d}, o.day, '-infinity', o.recorded_day, o.number FROM ({EARNING_ORDERS}) o
    UNION ALL
    SELECT {ACTIVE:d}, a.day, '-infinity', a.recorded_day, a.number FROM ({LAPSING}) a
), logged AS (
    SELECT measure, day, previous, recorded_day, sum(number) AS number FROM counted
    GROUP BY 1, 2, 3, 4 HAVING sum(number) <> 0
), projected AS (
    SELECT measure, day, previous, recorded_day, sum(number) AS number FROM guerdon.reward_count
    WHERE build = %(build)s GROUP BY 1, 2, 3, 4 HAVING sum(number) <> 0
)
SELECT day, measure, p.number, f.number
FROM projected p FULL JOIN logged f USING (measure, day, previous, recorded_day)
WHERE p.number IS DISTINCT FROM f.number ORDER BY 1, 2 LIMIT 1
"""

_MEASURES = {
    PARTICIPANT: "members who took part", REDEEMER: "members who redeemed",
    EARNING_ORDER: "orders with a grant", ACTIVE: "amounts that lapse",
}  # fmt: skip


def difference(
    cursor: Cursor, build: int, generation: int, zone: str | None, shards: Sequence[int] | None
) -> str | None:
    """Return a sentence about the first row that is not as the log says; None: all are."""
    where: dict[str, object] = {"build": build, "generation": generation, "zone": zone, "shards": shards}
    cursor.execute(_DAYS, where)
    row = cursor.fetchone()
    if row is not None:
        member_id, day, projected, logged = row
        return sentence(f"member {member_id}, taking part on {day}", projected, logged, NAME)
    problem = difference_of_lots(cursor, where)
    if problem is not None or (shards is not None and 0 not in shards):
        return problem

    where["shards"] = None
    cursor.execute(_SUMS, where)
    row = cursor.fetchone()
    if row is not None:
        day, kind, projected, logged = row
        return sentence(f"rewards of {day}, recorded on {kind}", projected, logged, NAME)

    cursor.execute(_COUNTS, where)
    row = cursor.fetchone()
    if row is not None:
        day, measure, projected, logged = row
        return sentence(f"{_MEASURES[measure]} on {day}", projected, logged, NAME)
    return difference_of_cells(cursor, where)
