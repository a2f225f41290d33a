"""Name the budgets that a campaign's members share, and how a judge asks for what was used beyond a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.model import LimitScope, Over, TimesLimit
from engine.programme.rules.occurrence import Budget

if TYPE_CHECKING:
    from engine.member.state import LimitUse
    from engine.programme.model import Limit, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence


def budget_of(rule: Rule, limit: Limit, *, is_weighed: bool = False) -> Budget:
    """Return the budget of a rule that one of its limits is."""
    if isinstance(limit, TimesLimit):
        return Budget(budget_key(rule, limit.scope), rule.id, limit.times, True, False, is_weighed)  # noqa: FBT003  fields
    trims = limit.over is Over.TRIM
    return Budget(budget_key(rule, limit.scope), rule.id, limit.amount, False, trims, is_weighed)  # noqa: FBT003  as above


def budget_key(rule: Rule, scope: LimitScope) -> str:
    """Return the name of a budget's count: the campaign's, or the rule's own where it belongs to none."""
    whose = f"rule:{rule.id}" if rule.campaign is None else f"campaign:{rule.campaign}"
    return f"{scope.unit}:{scope.every}:{whose}"


def shared_limit(rule: Rule, scope: LimitScope) -> Limit:
    """Return the limit of a shared scope; `check` lets a rule have one of each."""
    return next(limit for limit in rule.limits if limit.scope == scope)


def has_budgets(programme: Programme) -> bool:
    """Whether a rule of the programme has a limit that all members share."""
    return any(limit.scope.is_shared for rule in programme.rules for limit in rule.limits)


def open_budget(occurrence: Occurrence, budget: Budget, period: int, asked: int) -> LimitUse:
    """Return what everybody has used of a budget, from where the event's occurrence has it."""
    assert occurrence.books is not None  # noqa: S101  the fold of a programme with budgets brings them
    return occurrence.books.open_budget(budget, period, asked, occurrence)
