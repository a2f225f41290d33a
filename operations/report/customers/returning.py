"""Follow cohorts of members: who bought a second time, and who still buys, month after month."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from operations.report.frame import ratio
from operations.report.orders import FIRST_DAYS, JOINED
from operations.report.periods import add_months, midnight, month_name
from operations.report.rolled import cohorts as rolled
from operations.report.rolled import orders as rolled_orders
from operations.report.rolled.cells import knows_months
from operations.report.rolled.cohorts import Cohort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from operations.report.frame import Frame

WINDOWS_DAYS = (30, 90)
"""Within how many local days after the first order a second one is looked for."""

_COHORTS = {
    "by_signup": """
        SELECT shard, member_id, (occurred_at AT TIME ZONE %(zone)s)::date AS day FROM joined
        WHERE occurred_at >= %(since)s
    """,
    "by_first_order": "SELECT shard, member_id, day FROM first_days",
}


def repurchase(of: Frame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each window and month of the first order how many customers bought again within that window.

    Only months that lie a whole window before the cut are there. Days are local: an order on the last day of the window
    counts, whatever the hour.
    """
    customers: Counter[date] = Counter()
    waits: dict[date, Counter[int]] = defaultdict(Counter)
    for month, wait_days, members in second_orders(of):
        customers[month] += members
        if wait_days is not None:
            waits[month][wait_days] += members

    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for window in WINDOWS_DAYS:
        rows[f"{window}d"] = {
            month_name(month): _repeated(
                customers[month], sum(members for wait, members in waits[month].items() if wait <= window)
            )
            for month in sorted(customers)
            if add_months(month, 1) + timedelta(days=window) <= of.cut_day
        }
    return rows


def second_orders(of: Frame) -> list[tuple[date, int | None, int]]:
    """Return the customers by the month of the first order and the local days until the second one; None: of none."""
    if of.rolled:
        return rolled_orders.second_orders(of)
    return of.rows(
        f"""
        WITH {FIRST_DAYS}, waits AS (
            SELECT f.day, CASE WHEN bool_or(d.day = f.day AND d.orders > 1) THEN 0
                               ELSE min(d.day) FILTER (WHERE d.day > f.day) - f.day END AS days
            FROM first_days f JOIN member_days d USING (shard, member_id)
            GROUP BY shard, member_id, f.day
        )
        SELECT {month_of("day")}, days, count(*) FROM waits GROUP BY 1, 2
        """
    )


def retention(of: Frame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each month of the first signup, and of the first order, who bought in each whole month from then on.

    `retained` counts who bought in the month that is `k` months later, `rolling` who bought in it or in any later one.
    """
    return {
        name: {month_name(month): _triangle(of, month, cohort) for month, cohort in sorted(cohorts(of, name).items())}
        for name in _COHORTS
    }


def cohorts(of: Frame, name: str) -> dict[date, Cohort]:
    """Return the cohorts of a kind, `by_signup` or `by_first_order`, by the first day of their month."""
    if of.rolled and knows_months(of):
        return rolled.cohorts(of, name)
    rows = of.rows(
        f"""
        WITH {FIRST_DAYS}, {JOINED}, cohort AS (
            SELECT shard, member_id, {month_of("day")} AS month FROM ({_COHORTS[name]}) members
        ), bought AS (
            SELECT DISTINCT shard, member_id, {month_of("day")} AS month FROM member_days
        ), months AS (
            SELECT c.month AS cohort, b.month,
                   b.month IS NOT DISTINCT FROM max(b.month) OVER (PARTITION BY c.shard, c.member_id) AS is_last
            FROM cohort c LEFT JOIN bought b ON b.shard = c.shard AND b.member_id = c.member_id AND b.month >= c.month
        )
        SELECT cohort, month, count(*), count(*) FILTER (WHERE is_last) FROM months GROUP BY cohort, month
        """
    )
    by_month: dict[date, Cohort] = {}
    for begun, month, bought, last in rows:
        # each member has one last month, or, where they bought nothing, one row without a month
        cohort = by_month.get(begun, Cohort(0, Counter(), Counter()))
        if month is not None:
            cohort.in_month[month] += bought
            cohort.last_in_month[month] += last
        by_month[begun] = cohort._replace(members=cohort.members + last)
    return by_month


def month_of(day: str) -> str:
    """Return the SQL of the first day of the month of a date."""
    return f"date_trunc('month', {day}::timestamp)::date"


def whole_months(of: Frame, first: date) -> Iterator[tuple[int, date]]:
    """Yield each month from `first` on that ends by the cut: how many months later it is, and its first day."""
    k = 0
    while midnight(add_months(first, k + 1), of.zone) <= of.cut:
        yield k, add_months(first, k)
        k += 1


def _repeated(customers: int, repeated: int) -> dict[str, Any]:
    return {"customers": customers, "repeated": repeated, "rate": ratio(repeated, customers)}


def _triangle(of: Frame, first: date, cohort: Cohort) -> dict[str, Any]:
    cells = []
    for k, month in whole_months(of, first):
        retained = cohort.in_month[month]
        rolling = sum(members for last, members in cohort.last_in_month.items() if last >= month)
        cells.append(
            {
                "k": k,
                "retained": retained,
                "rate": ratio(retained, cohort.members),
                "rolling": rolling,
                "rolling_rate": ratio(rolling, cohort.members),
            }
        )
    return {"members": cohort.members, "cells": cells}
