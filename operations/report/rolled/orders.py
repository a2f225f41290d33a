"""Add up orders and refunds, and follow cohorts of buyers, from rollups."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from operations.report.rolled.cells import COHORTS, WITHIN, known, measure_days, members_by_period

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame

ORDER_MEASURES = ("order", "amount", "net", "gross", "net_positive", "gross_net_positive")
"""The sums of the orders of a day, in the order in which reports have them."""

FIRST_DAYS = """
first_days AS (
    SELECT shard, member_id, (first_order_at AT TIME ZONE %(zone)s)::date AS day FROM guerdon.fact_member
    WHERE build = %(facts)s AND first_order_at >= %(since)s AND first_order_at < %(cut)s
)
"""
"""The day of each member's first order, as a common table expression: as of now, where `knows_months`."""


def order_days(of: Frame) -> list[tuple[date, list[int]]]:
    """Return the sums of ORDER_MEASURES of each day."""
    sums: dict[date, dict[str, int]] = defaultdict(dict)
    for measure, day, amount in measure_days(of, *ORDER_MEASURES):
        sums[day][measure] = amount
    return [(day, [of_day.get(measure, 0) for measure in ORDER_MEASURES]) for day, of_day in sums.items()]


def refund_days(of: Frame) -> list[tuple[date, int]]:
    """Return how much was refunded on each day, by the refund's own time."""
    return [(each.day, each.amount) for each in measure_days(of, "refund")]


def buyers(of: Frame) -> dict[date | None, int]:
    """Return how many members bought in a period, by its first day, and in all of them (None)."""
    return members_by_period(of, "buyer")


def second_orders(of: Frame) -> list[tuple[date, int | None, int]]:
    """Return customers by the month of the first order and the days until the second; None: of none that counts.

    A second one that came more than 90 days later does not: no window is that long.
    """
    return of.rows(
        f"""
        SELECT date_trunc('month', day::timestamp)::date,
               CASE WHEN later > '-infinity' AND later < %(cut_day)s THEN later - day END, sum(amount)::bigint
        FROM {known(of)} WHERE {WITHIN} AND measure = 'second' GROUP BY 1, 2 HAVING sum(amount) <> 0
        """
    )


def cohort_sizes(of: Frame) -> list[tuple[date, int]]:
    """Return the number of members by the month of their first order."""
    return of.rows(
        f"""
        SELECT date_trunc('month', day::timestamp)::date, sum(amount)::bigint
        FROM {known(of)} WHERE {WITHIN} AND measure = 'second' GROUP BY 1 HAVING sum(amount) <> 0
        """
    )


def revenue(of: Frame) -> list[tuple[date, date, int]]:
    """Return the month of buyers' first order, the month of their orders, and what is left of these, in minor units.

    Call this only where `knows_months(of)` is true.
    """
    return of.rows(
        f"""
        SELECT day, later, sum(amount) FROM {known(of)} WHERE {COHORTS} AND measure = 'revenue' GROUP BY day, later
        """
    )
