"""Draw the sums by days that the rewards of a long log would have left, from the orders that `rollups` has drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one
from projections.reward_days.lots import Way
from projections.reward_days.texts import EARNING_ORDER, NEAR, PARTICIPANT, REDEEMER

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

_LOTS = """
CREATE TEMPORARY TABLE lot ON COMMIT DROP AS
SELECT day AS granted_day, amount / 100 AS points, member %% 5 = 0 AS is_redeemed,
       date_trunc('month', (day + 365)::timestamp)::date AS expires,
       day + CASE WHEN member %% 5 = 0 THEN (amount * 7 + member) %% 365 ELSE 365 END AS left_day
FROM bought
"""

_REWARD_DAYS = """
INSERT INTO guerdon.reward_day (build, lane, changes, kind, day, recorded_day, recorded_at, type, unit, debit, credit,
                                campaign, amount, rewards)
SELECT %(build)s, 0, 0, md5(k.type::text || k.credit::text || k.campaign)::uuid, l.day, l.day, l.day, k.type, 'points',
       k.debit, k.credit, k.campaign, sum(l.points), count(*)
FROM (
    SELECT granted_day AS day, points, 'issued' AS what FROM lot
    UNION ALL
    SELECT left_day, points, CASE WHEN is_redeemed THEN 'spent' ELSE 'expired' END FROM lot WHERE left_day <= %(last)s
) l
CROSS JOIN LATERAL (VALUES
    ('issued', 'points.granted'::guerdon.reward_type, 'issued'::guerdon.account, 'active'::guerdon.account),
    ('spent', 'points.captured', 'active', 'spent'), ('expired', 'points.expired', 'active', 'expired')
) w (what, type, debit, credit)
CROSS JOIN LATERAL (SELECT w.*, 'campaign-' || l.points %% 8 AS campaign) k
WHERE w.what = l.what GROUP BY k.type, k.debit, k.credit, k.campaign, l.day
"""

_COUNTS = """
INSERT INTO guerdon.reward_count (build, lane, changes, measure, day, previous, recorded_day, number)
SELECT %(build)s, 0, 0, {measure}, day, {previous}, day, count(*) FROM {rows} GROUP BY 5, 6
"""
_PREVIOUS = NEAR.format(previous="coalesce(previous, '-infinity')", day="day")
_OTHER_DAY = "bought WHERE (previous IS NULL OR day > previous)"

_LOT_DAYS = f"""
INSERT INTO guerdon.lot_day (build, lane, changes, granted_day, expires, day, recorded_day, left_day, way, points)
SELECT %(build)s, 0, 0, granted_day, expires, granted_day, granted_day, granted_day, {Way.ISSUED:d}, sum(points)
FROM lot GROUP BY granted_day, expires
UNION ALL
SELECT %(build)s, 0, 0, granted_day, expires, left_day, left_day, left_day,
       CASE WHEN is_redeemed THEN {Way.CAPTURED:d} ELSE {Way.EXPIRED:d} END, sum(points)
FROM lot WHERE left_day <= %(last)s GROUP BY granted_day, expires, left_day, is_redeemed
"""


def fill(cursor: Cursor, last: str) -> None:
    """Write the cells of rewards of the orders in the temporary table `bought`, up to a day."""
    (build,) = one(
        cursor, "SELECT build FROM guerdon.projection_build WHERE projection = 'reward_day' AND status = 'live'"
    )
    where = {"build": build, "last": last}
    for query in (
        _LOTS,
        _REWARD_DAYS,
        _COUNTS.format(measure=PARTICIPANT, previous=_PREVIOUS, rows=_OTHER_DAY),
        _COUNTS.format(measure=REDEEMER, previous=_PREVIOUS, rows=f"{_OTHER_DAY} AND member %% 5 = 0"),
        _COUNTS.format(measure=EARNING_ORDER, previous="date '-infinity'", rows="bought"),
        _LOT_DAYS,
    ):
        cursor.execute(query, where)

    # the projection is at the head of a log of one reward a shard
    cursor.execute(
        "INSERT INTO guerdon.rollup_zone SELECT %s, shard, 'America/New_York' FROM guerdon.shard_lock", (build,)
    )
    cursor.execute("UPDATE guerdon.projection_cursor SET pos = 1 WHERE build = %s", (build,))
    cursor.execute("UPDATE guerdon.generation_head SET pos = 1")
