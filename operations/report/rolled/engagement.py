"""Count members and orders for the report of engagement from rollups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.report.rolled.cells import known, measure_days, members_by_period

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame


def active_members(of: Frame) -> dict[date | None, int]:
    """Return how many members were active in a period, by its first day, and in all of them (None)."""
    return members_by_period(of, "active")


def order_days(of: Frame) -> list[tuple[date, int]]:
    """Return how many orders each day had."""
    return [(each.day, each.amount) for each in measure_days(of, "order")]


def member_days(of: Frame) -> list[tuple[date, int]]:
    """Return by how much the members became more on each day before the cut."""
    rows = of.rows(
        f"""
        SELECT day, sum(amount) FROM {known(of)} WHERE measure = 'member' AND day < %(cut_day)s
        GROUP BY day HAVING sum(amount) <> 0
        """
    )
    return [(day, int(members)) for day, members in rows]
