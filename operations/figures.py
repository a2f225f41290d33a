"""Read what PostgreSQL knows of how things stand: what is set aside, held, late, behind, used up, owed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.programme.conditions import Every
from engine.programme.interpret.facts import period_of
from engine.programme.localtime import calendar_of
from engine.programme.rules.budgets import budget_of
from engine.store import programmes, quarantine
from engine.store.cursor import one
from engine.store.generations import live_generation
from engine.store.kafka import publication

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.programme.model import Programme
    from engine.store.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Figures:
    """Hold how things stand at one instant.

    `tick_delay_s` is for how long the earliest thing that is due to a member has been due, `budgets` which part of a
    campaign's budget is used, `verified_s` when the live generation was last found whole, None: never.
    """

    quarantined: Mapping[str, int]
    stopped: int
    held: int
    tick_delay_s: float
    projections: Mapping[str, int]
    unpublished: int | None
    budgets: Mapping[str, float]
    verified_s: float | None


def read(cursor: Cursor, *, publishes: bool = True) -> Figures:
    """Return the figures as of now."""
    (stopped,) = one(cursor, "SELECT count(*) FROM guerdon.consumer_offset WHERE stopped IS NOT NULL")
    return Figures(
        quarantine.counts(cursor),
        stopped,
        quarantine.count_suspended(cursor),
        _tick_delay_s(cursor),
        _pairs(cursor, "SELECT projection, sum(lag)::bigint FROM reward.freshness GROUP BY projection"),
        publication.lag(cursor) if publishes else None,
        budgets_used(cursor),
        _verified_s(cursor),
    )


def liability(cursor: Cursor) -> dict[str, float]:
    """Return by unit what members hold, pending, active and reserved: what may still be asked for."""
    cursor.execute("SELECT unit, sum(pending + active + reserved)::float FROM reward.member_balance GROUP BY unit")
    return dict(cursor.fetchall())


def budgets_used(cursor: Cursor) -> dict[str, float]:
    """Return which part of its budget each campaign has used in the present periods, of several the fullest.

    A rule that belongs to no campaign is named `rule:ID`.
    """
    version = programmes.active(cursor)
    if version is None:
        return {}
    limits = _limits(programmes.judged_as(cursor, version.version), live_generation.now_ms(cursor))
    if not limits:
        return {}
    cursor.execute(
        """
        SELECT budget, period, amount, times FROM guerdon.budget
        WHERE (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::bigint[]))
        """,
        ([key for key, _ in limits], [period for _, period in limits]),
    )
    used = {(key, period): (amount, times) for key, period, amount, times in cursor.fetchall()}
    found: dict[str, float] = {}
    for row, (whose, most, is_times) in limits.items():
        amount, times = used.get(row, (0, 0))
        found[whose] = max(found.get(whose, 0.0), (times if is_times else amount) / most)
    return found


def _limits(programme: Programme, now_ms: int) -> dict[tuple[str, int], tuple[str, int, bool]]:
    """Return by a budget's key and present period whose it is, the most that may be given, and whether that counts."""
    calendar = calendar_of(programme.timezone)
    found: dict[tuple[str, int], tuple[str, int, bool]] = {}
    for rule in programme.rules:
        for limit in rule.limits:
            if limit.scope.is_shared and isinstance(limit.scope.every, Every):
                budget = budget_of(rule, limit)
                row = (budget.key, period_of(limit.scope.every, now_ms, calendar))
                most = max(budget.most, found[row][1] if row in found else 1)
                found[row] = (rule.campaign or f"rule:{rule.id}", most, budget.is_times)
    return found


def _tick_delay_s(cursor: Cursor) -> float:
    (delay_s,) = one(
        cursor,
        """
        SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(due.due_at)), 0), 0)::float
        FROM guerdon.shard_head h CROSS JOIN LATERAL (
            SELECT due_at FROM guerdon.member_state m WHERE m.shard = h.shard AND due_at IS NOT NULL
            ORDER BY due_at LIMIT 1
        ) due
        """,
    )
    return float(delay_s)


def _verified_s(cursor: Cursor) -> float | None:
    cursor.execute(
        """
        SELECT extract(epoch FROM v.at)::float FROM guerdon.verified v JOIN guerdon.generation g USING (generation)
        WHERE g.status = 'live'
        """
    )
    row = cursor.fetchone()
    return None if row is None else float(row[0])


def _pairs(cursor: Cursor, query: str) -> dict[str, int]:
    cursor.execute(query)
    return {str(name): int(count) for name, count in cursor.fetchall()}
