"""Read leaderboards page by page; erased members have pseudonyms."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from operations.rows import dictionaries

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


class Metric(StrEnum):
    """Name what leaderboards rank by."""

    POINTS = "points"
    REFERRALS = "referrals"
    SHARES = "shares"


_MONTHS = """
SELECT to_char(month, 'YYYY-MM') FROM (
    SELECT generate_series(date_trunc('month', min(b.first)), max(b.last), '1 month') AS month FROM (
        SELECT (SELECT p.day FROM guerdon.points_day p WHERE p.build = l.build AND p.shard = s.shard
                ORDER BY p.day LIMIT 1) AS first,
               (SELECT p.day FROM guerdon.points_day p WHERE p.build = l.build AND p.shard = s.shard
                ORDER BY p.day DESC LIMIT 1) AS last
        FROM guerdon.live_build l CROSS JOIN guerdon.shard_head s WHERE l.projection = 'leaderboard'
    ) b
) m ORDER BY month DESC
"""
"""The key of the table finds each shard's first and last day; the days between are not read."""


def periods(cursor: Cursor) -> list[str]:
    """Return the periods that can be asked for, but days: all, and the months since the first points."""
    cursor.execute(_MONTHS)
    return ["all", *(f"month:{month}" for (month,) in cursor.fetchall())]


def leaders(cursor: Cursor, period: str, metric: Metric, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Return the places after a rank, by rank.

    Args:
        cursor: of a snapshot.
        period: day:YYYY-MM-DD, month:YYYY-MM or all.
        metric: the number that ranks.
        after: the rank after which to begin; 0: from the first.
        limit: the most places.
    """
    return dictionaries(
        cursor,
        """
        SELECT rank, member_id, value FROM reward.leaderboard
        WHERE period = %s AND metric = %s AND rank > %s ORDER BY rank LIMIT %s
        """,
        (period, metric.value, after, limit),
    )
