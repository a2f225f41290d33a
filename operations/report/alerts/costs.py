"""Warn of rules that cost more than they were meant to: budgets that end early, and members beyond their margin."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from operations.report.alerts.alert import ERASED, Alert
from operations.report.campaigns.budgets import MEAN_DAYS, budgets
from operations.report.money import cost_per_point, margin
from operations.report.movements import EARNED, MOVES
from operations.report.orders import ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.report.frame import Frame

BEYOND = f"""
WITH {ORDERS}, bought AS (
    SELECT member_id, sum(net) AS net FROM orders WHERE occurred_at >= %(since)s GROUP BY member_id
), given AS (
    SELECT e.member_id, min(e.occurred_at) AS since,
           sum({EARNED} * CASE WHEN e.unit = %(unit)s THEN %(cost)s ELSE 1 END) AS cost
    FROM guerdon.reward_event e
    WHERE {MOVES} AND e.unit IN (%(unit)s, %(currency)s) AND e.occurred_at >= %(since)s
    GROUP BY e.member_id
), compared AS (
    SELECT g.member_id, g.since, g.cost, coalesce(b.net, 0) * %(share)s AS allowed
    FROM given g LEFT JOIN bought b USING (member_id)
)
SELECT c.member_id, c.cost::float, c.allowed::float, c.since FROM compared c
WHERE c.cost >= %(least)s AND c.cost > c.allowed AND c.member_id NOT IN ({ERASED})
"""
"""Members whose points and cash cost more than a share of the net of their orders, without those who were erased."""


def budgets_that_end_early(of: Frame) -> Iterator[Alert]:
    """Yield campaigns whose budget, spent as in the last week, ends within some days, while its period goes on."""
    threshold = of.thresholds.budget_days
    for campaign, budget in budgets(of).items():
        if budget["ends_at"] is not None:
            days = (datetime.fromisoformat(budget["ends_at"]) - of.cut) / timedelta(days=1)
            if days <= threshold:
                since = of.cut - timedelta(days=MEAN_DAYS)
                yield Alert("budget_ends_early", threshold, days, "campaign", campaign, since)


def incentives_beyond_margin(of: Frame) -> Iterator[Alert]:
    """Yield members whose points and cash cost more than the margin of their orders, both in the time of the report.

    It needs the programme's margin, and what a point costs.
    """
    cost, share = cost_per_point(of), margin(of)
    if cost is None or share is None:
        return
    rows = of.rows(
        BEYOND,
        cost=float(cost),
        share=float(share) * of.thresholds.incentives_share,
        least=of.thresholds.incentives,
        currency=of.currency,
    )
    for member_id, spent, allowed, since in rows:
        yield Alert("incentives_beyond_margin", allowed, spent, "member_id", member_id, since)
