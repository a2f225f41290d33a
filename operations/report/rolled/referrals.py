"""Count shares, touches and signups from rollups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.report.rolled.cells import WITHIN, known, measure_days

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame


def fact_days(of: Frame, table: str) -> list[tuple[date, int]]:
    """Return the number of facts on each day, by the name of their table, such as `fact_share`."""
    return [(each.day, each.amount) for each in measure_days(of, table.removeprefix("fact_"))]


def joined_days(of: Frame) -> list[tuple[date, int]]:
    """Return how many members joined on each day, by their first signup."""
    return [(each.day, each.amount) for each in measure_days(of, "joined")]


def channels(of: Frame) -> list[tuple[str, str, int]]:
    """Return shares, touches and members' first signups, each by channel, in the order of both."""
    return of.rows(
        f"""
        SELECT CASE measure WHEN 'joined' THEN 'signup' ELSE measure END, name, sum(amount)::bigint
        FROM {known(of)} WHERE {WITHIN} AND measure IN ('share', 'touch', 'joined')
        GROUP BY measure, name HAVING sum(amount) <> 0 ORDER BY 1, 2
        """
    )
