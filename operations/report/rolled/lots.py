"""Read from the sums by days what became of lots: by the month of their grant, by their age, and by their expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.rolled.reward_days import KNOWN
from projections.reward_days.lots import LEFT_FOR_GOOD, Way

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame

_BACK = f"{Way.REVERSED_FROM_EXPIRED:d}"

_OUT = ", ".join(f"{way:d}" for way in LEFT_FOR_GOOD)

_OUTSTANDING = f"""
CASE WHEN way IN ({Way.ISSUED:d}, {Way.RESTORED:d}, {Way.LAPSES_AT:d}) THEN points
     WHEN way IN ({_OUT}) THEN -points ELSE 0 END
"""
"""The points that became outstanding, at an expiry; over all expiries the changes of expiry sum up to 0."""

_LOTS = f"guerdon.lot_day WHERE {KNOWN} AND granted_day < %(cut_day)s"
"""The cells of the lots that were granted before the cut; a movement from before the grant is of the grant's day."""


def vintages(of: Frame, since: date) -> list[tuple[Any, ...]]:
    """Return by month of the grant, from `since` on, and by month the points issued, reversed, and so on."""
    return of.rows(
        f"""
        SELECT date_trunc('month', granted_day)::date, date_trunc('month', greatest(day, granted_day))::date,
               coalesce(sum(points) FILTER (WHERE way = {Way.ISSUED:d}), 0),
               coalesce(sum(points) FILTER (WHERE way IN ({_BACK}, {Way.REVERSED_FROM_LOTS:d})), 0),
               coalesce(sum(points) FILTER (WHERE way = {Way.SETTLED:d}), 0),
               sum(CASE way WHEN {Way.CAPTURED:d} THEN points WHEN {Way.RESTORED:d} THEN -points ELSE 0 END),
               sum(CASE way WHEN {Way.EXPIRED:d} THEN points WHEN {_BACK} THEN -points ELSE 0 END),
               coalesce(sum(points) FILTER (WHERE way = {Way.ERASED:d}), 0)
        FROM {_LOTS} AND granted_day >= %(granted_since)s GROUP BY 1, 2
        """,
        granted_since=since,
    )


def ages_left(of: Frame) -> list[tuple[int, str, int]]:
    """Return by age in days, and by way, how many points left lots for good."""
    rows = of.rows(
        f"""
        SELECT greatest(left_day, granted_day) - granted_day,
               CASE WHEN way IN ({Way.CAPTURED:d}, {Way.REDEEMED_FOR_GOOD:d}) THEN 'red'
                    WHEN way IN ({Way.EXPIRED:d}, {Way.ERASED:d}, {Way.EXPIRED_FOR_GOOD:d}) THEN 'exp' ELSE 'rev' END,
               sum(points)
        FROM {_LOTS} AND (
            way IN ({_OUT}) OR way IN ({Way.REDEEMED_FOR_GOOD:d}, {Way.EXPIRED_FOR_GOOD:d}, {Way.REVERSED_FOR_GOOD:d})
        )
        GROUP BY 1, 2 HAVING sum(points) <> 0
        """,
    )
    return [(age, way, int(points)) for age, way, points in rows]


def ages_outstanding(of: Frame) -> list[tuple[int, int]]:
    """Return by age in days at the cut how many points are outstanding."""
    rows = of.rows(
        f"""
        SELECT %(cut_day)s - granted_day, sum({_OUTSTANDING}) FROM {_LOTS}
        GROUP BY granted_day HAVING sum({_OUTSTANDING}) <> 0
        """,
    )
    return [(age, int(points)) for age, points in rows]


def expiries(of: Frame) -> list[tuple[date | None, int]]:
    """Return by the first day of the month of expiry how many points are outstanding at the cut; None: never."""
    rows = of.rows(
        f"""
        SELECT nullif(expires, 'infinity'), sum({_OUTSTANDING}) FROM guerdon.lot_day WHERE {KNOWN}
        GROUP BY expires HAVING sum({_OUTSTANDING}) <> 0 ORDER BY expires
        """,
    )
    return [(month, int(points)) for month, points in rows]
