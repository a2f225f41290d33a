"""Read the figures of the installation from PostgreSQL: set aside, held, late, behind, used up, owed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
    """Hold the figures of one instant."""

    quarantined: Mapping[str, int]
    """Open records in quarantine, by reason."""

    stopped: int
    """Partitions that are stopped."""

    held: int
    """Members who are held."""

    tick_delay_s: float
    """How long the oldest overdue work of any member has waited."""

    projections: Mapping[str, int]
    """Positions of its log that each projection does not show yet; without the facts where they are off."""

    unpublished: int | None
    """Reward events that the topic does not have yet; None: they are not published."""

    budgets: Mapping[str, float]
    """The part of its budget that each campaign has used."""

    verified_s: float | None
    """When the live generation was last found whole; None: never."""


def read(cursor: Cursor, *, publishes: bool = True, folds_facts: bool = True) -> Figures:
    """Return the figures as of now."""
    projections = _pairs(cursor, "SELECT projection, sum(lag)::bigint FROM reward.freshness GROUP BY projection")
    if not folds_facts:
        projections.pop("facts", None)
    (stopped,) = one(cursor, "SELECT count(*) FROM guerdon.consumer_offset WHERE stopped IS NOT NULL")
    return Figures(
        quarantined=quarantine.counts(cursor),
        stopped=stopped,
        held=quarantine.count_suspended(cursor),
        tick_delay_s=_tick_delay_s(cursor),
        projections=projections,
        unpublished=publication.lag(cursor) if publishes else None,
        budgets=budgets_used(cursor),
        verified_s=_verified_s(cursor),
    )


def liability(cursor: Cursor) -> dict[str, float]:
    """Return by unit the amount that members may still use: pending, active and reserved."""
    cursor.execute(
        "SELECT unit, sum(pending + active + reserved)::float FROM guerdon.identified_member_balance GROUP BY unit"
    )
    return dict(cursor.fetchall())


def budgets_used(cursor: Cursor) -> dict[str, float]:
    """Return the part of its budget that each campaign has used in the present period; of several budgets the fullest.

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

    parts: dict[str, float] = {}
    for row, limit in limits.items():
        amount, times = used.get(row, (0, 0))
        parts[limit.owner] = max(parts.get(limit.owner, 0.0), (times if limit.is_times else amount) / limit.most)
    return parts


class _Limit(NamedTuple):
    """Say which campaign or rule a budget belongs to, and the most that it gives: in times, or as an amount."""

    owner: str
    most: int
    is_times: bool


def _limits(programme: Programme, now_ms: int) -> dict[tuple[str, int], _Limit]:
    """Return the limit of each shared budget, by the budget's key and its present period."""
    calendar = calendar_of(programme.timezone)
    limits: dict[tuple[str, int], _Limit] = {}
    for rule in programme.rules:
        for limit in rule.limits:
            if limit.scope.is_shared and isinstance(limit.scope.every, Every):
                budget = budget_of(rule, limit)
                row = (budget.key, period_of(limit.scope.every, now_ms, calendar))
                most = max(budget.most, limits[row].most if row in limits else 1)
                limits[row] = _Limit(rule.campaign or f"rule:{rule.id}", most, budget.is_times)
    return limits


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
