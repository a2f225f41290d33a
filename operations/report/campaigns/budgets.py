"""Say how much of a campaign's budget is used in its period, and when it runs out at the pace of the last week."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.ledger.movements import REVOKED
from engine.programme.conditions import Every
from engine.programme.localtime import calendar_of
from engine.programme.periods import bounds_of
from engine.programme.rules.budgets import budget_key, budget_of
from operations.report.engagement import GRANTS

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame

MEAN_DAYS = 7
"""The number of full days before the cut that say how fast a budget is used."""


_AWARDS = (*GRANTS, "status.granted", "badge.awarded")


class _Budget(NamedTuple):
    """Hold a budget of the programme, the rules that share it, and the period that holds the end of the report."""

    unit: str
    """`times`, or the unit of the amount."""

    every: Every
    most: int
    rules: frozenset[str]
    since: datetime
    until: datetime


class _Day(NamedTuple):
    """Hold what a rule gave on a local day, less what refunds took back of it: an amount, and how often."""

    rule_id: str
    unit: str
    day: date
    amount: int
    times: int


def budgets(of: Frame) -> dict[str, dict[str, Any]]:
    """Return the budget of each campaign that has one; of several the one that is used up furthest.

    The log says how much is used, and so it is known for any generation and at any time: all that the rules gave in the
    period, less what refunds have taken back of it; in points, in minor units, or a number of times.
    """
    budgets_of = _budgets(of)
    rules = {rule for campaign in budgets_of.values() for budget in campaign for rule in budget.rules}
    days = _days(of, sorted(rules)) if rules else []
    used = {name: [_used(of, budget, days) for budget in campaign] for name, campaign in budgets_of.items()}
    return {name: max(rows, key=lambda row: Fraction(row["used"], row["limit"] or 1)) for name, rows in used.items()}


def _budgets(of: Frame) -> dict[str, list[_Budget]]:
    """Return the budgets of each campaign in the programme of the report."""
    calendar = calendar_of(of.zone)
    last_ms = int(of.cut.timestamp() * 1000) - 1

    # rules of one campaign share a budget; where they allow different amounts, the greatest is its limit
    shared: defaultdict[tuple[str, str], list[tuple[Every, str, int, str]]] = defaultdict(list)
    for rule in of.programme.rules:
        for limit in rule.limits:
            scope = limit.scope
            if scope.is_shared and rule.campaign is not None and isinstance(scope.every, Every):
                key = (rule.campaign, budget_key(rule, scope))
                shared[key].append((scope.every, scope.unit, budget_of(rule, limit).most, rule.id))

    by_campaign: defaultdict[str, list[_Budget]] = defaultdict(list)
    for (campaign, _), limits in shared.items():
        every, unit = limits[0][:2]
        first_ms, end_ms = bounds_of(every, last_ms, calendar)
        by_campaign[campaign].append(
            _Budget(
                unit, every, max(most for _, _, most, _ in limits), frozenset(rule for *_, rule in limits),
                since=datetime.fromtimestamp(first_ms / 1000, UTC), until=datetime.fromtimestamp(end_ms / 1000, UTC),
            )
        )  # fmt: skip
    return dict(by_campaign)


def _used(of: Frame, budget: _Budget, days: list[_Day]) -> dict[str, Any]:
    own = [each for each in days if each.rule_id in budget.rules and budget.unit in ("times", each.unit)]
    begins, ends = of.local_day(budget.since), of.local_day(of.cut)

    def taken(first: date) -> int:
        return sum(each.times if budget.unit == "times" else each.amount for each in own if first <= each.day < ends)

    used = taken(begins)
    left = max(budget.most - used, 0)
    week = taken(ends - timedelta(days=MEAN_DAYS))
    ends_at = of.cut + timedelta(days=MEAN_DAYS * left / week) if week > 0 else None
    return {
        "limit": budget.most,
        "used": used,
        "left": left,
        "ends_at": None if ends_at is None or ends_at >= budget.until else ends_at.isoformat(timespec="seconds"),
        "unit": budget.unit,
        "every": str(budget.every),
    }


def _days(of: Frame, rules: list[str]) -> list[_Day]:
    """Return what some rules gave on each local day, by unit; what was taken back of it counts on the same day."""
    rows = of.rows(
        f"""
        WITH back AS (
            SELECT e.shard, e.lot, sum(e.amount) AS amount FROM guerdon.reward_event e
            WHERE e.generation = %(generation)s AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
              AND (e.credit = 'reversed' OR e.type::text = ANY(%(taken_back)s))
              AND e.reason IN ('refund', 'referral_void')
            GROUP BY e.shard, e.lot
        ), given AS (
            SELECT e.rule_id, e.unit, e.shard, e.seq, {of.day("e.occurred_at")} AS day, sum(e.amount) AS amount,
                   coalesce(sum(b.amount), 0) AS back
            FROM guerdon.reward_event e LEFT JOIN back b ON b.shard = e.shard AND b.lot = e.reward_key
            WHERE e.generation = %(generation)s AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
              AND e.rule_id = ANY(%(rules)s) AND e.type::text = ANY(%(awards)s)
            GROUP BY 1, 2, 3, 4, 5
        )
        SELECT rule_id, unit, day, sum(amount - back), count(*) FILTER (WHERE back < amount)
        FROM given GROUP BY 1, 2, 3
        """,
        rules=rules,
        awards=list(_AWARDS),
        taken_back=list(REVOKED.values()),
    )
    return [_Day(rule_id, unit, day, int(amount), times) for rule_id, unit, day, amount, times in rows]
