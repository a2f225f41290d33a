"""Report what customers have brought so far: their value by the month of their first order, month after month."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.customers.returning import month_of, whole_months
from operations.report.frame import ratio
from operations.report.money import cost_per_point, margin
from operations.report.orders import FIRST_DAYS
from operations.report.periods import month_name
from operations.report.rolled import orders as rolled
from operations.report.rolled.cells import knows_months

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from fractions import Fraction

    from operations.report.frame import Frame

    ByMonth = dict[date, Counter[date]]
    """Amounts of each cohort, by the first day of its month, in each month."""


class _Worth(NamedTuple):
    """Hold what a point costs in minor units, and the share of sales that the cost of goods leaves; None: unknown."""

    cost_per_point: Fraction | None
    margin: Fraction | None


def lifetime_value(of: Frame) -> dict[str, dict[str, Any]]:
    """Return for each month of the first order the running totals of its customers at the end of each whole month.

    `revenue` is the net of their orders, `points_redeemed` is net of restored points, and `reward_cost` is what those
    points cost. `clv_mean` is what a customer has brought after the cost of goods and points.
    """
    members = dict(cohort_sizes(of))
    revenue, redeemed = revenue_by_month(of), redeemed_by_month(of)
    worth = _Worth(cost_per_point(of), margin(of))
    return {
        month_name(first): {
            "members": members[first],
            "cells": [
                _cell(k, members[first], _until(month, revenue[first]), _until(month, redeemed[first]), worth)
                for k, month in whole_months(of, first)
            ],
        }
        for first in sorted(members)
    }


def cohort_sizes(of: Frame) -> list[tuple[date, int]]:
    """Return the number of members by the month of their first order."""
    if of.rolled:
        return rolled.cohort_sizes(of)
    return of.rows(f"WITH {FIRST_DAYS} SELECT {month_of('day')}, count(*) FROM first_days GROUP BY 1")


def revenue_by_month(of: Frame) -> ByMonth:
    """Return the net of the orders of each cohort by the orders' month, in minor units."""
    if of.rolled and knows_months(of):
        return _by_month(rolled.revenue(of))
    rows = of.rows(
        f"""
        WITH {FIRST_DAYS}
        SELECT {month_of("f.day")}, {month_of("d.day")}, sum(d.net)
        FROM member_days d JOIN first_days f USING (shard, member_id) GROUP BY 1, 2
        """
    )
    return _by_month(rows)


def redeemed_by_month(of: Frame) -> ByMonth:
    """Return the points that each cohort has redeemed by the month of the redemption, less those restored in it."""
    # `fact_member` has the first order as of now only
    first_days = FIRST_DAYS
    if of.rolled and of.known_before is None and knows_months(of):
        first_days = rolled.FIRST_DAYS
    rows = of.rows(
        f"""
        WITH {first_days}
        SELECT {month_of("f.day")}, {month_of(of.day("e.occurred_at"))},
               sum(CASE WHEN e.type = 'points.captured' THEN e.amount ELSE -e.amount END)
        FROM guerdon.reward_event e JOIN first_days f ON f.shard = e.shard AND f.member_id = e.member_id
        WHERE e.generation = %(generation)s AND e.type IN ('points.captured', 'points.restored')
          AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
        GROUP BY 1, 2
        """
    )
    return _by_month(rows)


def _by_month(rows: Iterable[tuple[date, date, Any]]) -> ByMonth:
    amounts: ByMonth = defaultdict(Counter)
    for cohort, month, amount in rows:
        amounts[cohort][month] += int(amount)
    return amounts


def _until(last: date, amounts: Counter[date]) -> int:
    """Return the sum of all amounts up to a month, those from before the cohort's own month too."""
    return sum(amount for month, amount in amounts.items() if month <= last)


def _cell(k: int, members: int, revenue: int, redeemed: int, worth: _Worth) -> dict[str, Any]:
    cost = None if worth.cost_per_point is None else redeemed * worth.cost_per_point
    value = None if cost is None or worth.margin is None else (revenue * worth.margin - cost) / members
    return {
        "k": k,
        "revenue": revenue,
        "points_redeemed": redeemed,
        "reward_cost": None if cost is None else float(cost),
        "revenue_mean": ratio(revenue, members),
        "clv_mean": None if value is None else float(value),
    }
