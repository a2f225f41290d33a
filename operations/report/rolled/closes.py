"""Tell movements from before and after a close apart, although days hold both.

A close is an instant within a day, and a movement that was recorded after it does not count in a closed month. The sums
of days cannot tell that of the day on which a month was closed; of these few days the log says it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from operations.report.periods import midnight
from operations.report.rolled.reward_days import reward_table

if TYPE_CHECKING:
    from operations.report.frame import Frame
    from operations.report.liability.closes import Closes

_COLUMNS = "generation, type, unit, debit, credit, reason, amount, occurred_at, recorded_at"

_OF_DAYS_OF_CLOSES = f"""
WITH RECURSIVE bound AS (
    SELECT b.day, b.is_begin, b.at, h.shard, 1::bigint AS low, h.pos + 1 AS high
    FROM guerdon.generation_head h CROSS JOIN (
        SELECT n AS day, true AS is_begin, at FROM unnest(%(closing_from)s::timestamptz[]) WITH ORDINALITY u (at, n)
        UNION ALL
        SELECT n, false, at FROM unnest(%(closing_until)s::timestamptz[]) WITH ORDINALITY u (at, n)
    ) b
    WHERE h.generation = %(generation)s
    UNION ALL
    SELECT h.day, h.is_begin, h.at, h.shard, CASE WHEN h.is_before THEN h.middle + 1 ELSE h.low END,
           CASE WHEN h.is_before THEN h.high ELSE h.middle END
    FROM (
        SELECT s.*, (s.low + s.high) / 2 AS middle, (
                   SELECT e.recorded_at < s.at FROM guerdon.reward_event e
                   WHERE e.generation = %(generation)s AND e.shard = s.shard AND e.pos = (s.low + s.high) / 2
               ) AS is_before
        FROM bound s WHERE s.low < s.high
    ) h
), place AS (
    SELECT day, shard, min(low) FILTER (WHERE is_begin) AS first, min(low) FILTER (WHERE NOT is_begin) AS after
    FROM bound WHERE low = high GROUP BY day, shard
)
SELECT {_COLUMNS} FROM place p CROSS JOIN LATERAL (
    SELECT * FROM guerdon.reward_event e
    WHERE e.generation = %(generation)s AND e.shard = p.shard AND e.pos >= p.first AND e.pos < p.after
    OFFSET 0
) n
WHERE n.occurred_at < %(closed_until)s
"""
"""The rewards of closed months that were recorded on a day on which a month was closed.

No index has times: where such a day begins and ends in each shard is searched by halves.
"""


def rewards_by_closes(of: Frame, closes: Closes) -> str:
    """Return the SQL of a table of rewards in which a row is from before a close or from after it, never from both."""
    if not of.rolled or not closes.all:
        return reward_table(of)
    return f"""
    (
        SELECT {_COLUMNS} FROM {reward_table(of)} s
        WHERE recorded_at <> ALL(%(closing_from)s::timestamptz[]) OR occurred_at >= %(closed_until)s
        UNION ALL
        SELECT {_COLUMNS} FROM ({_OF_DAYS_OF_CLOSES}) c
    )
    """


def days_of_closes(of: Frame, closes: Closes) -> dict[str, Any]:
    """Return the parameters of `rewards_by_closes`."""
    if not closes.all:
        return {}
    days = sorted({of.local_day(each.closed_at) for each in closes.all})
    return {
        "closing_from": [midnight(day, of.zone) for day in days],
        "closing_until": [midnight(day + timedelta(days=1), of.zone) for day in days],
        "closed_until": closes.ends[-1],
    }
