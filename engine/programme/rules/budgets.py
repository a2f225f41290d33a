"""Name the budgets that all members of a campaign share, and ask the books for their use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.model import LimitScope, Over, TimesLimit
from engine.programme.rules.occurrence import Budget

if TYPE_CHECKING:
    from engine.member.state import LimitUse
    from engine.programme.model import Limit, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence


def budget_of(rule: Rule, limit: Limit, *, is_weighed: bool = False) -> Budget:
    """Return a shared limit of a rule as a budget."""
    return Budget(
        key=budget_key(rule, limit.scope),
        rule_id=rule.id,
        most=limit.times if isinstance(limit, TimesLimit) else limit.amount,
        is_times=isinstance(limit, TimesLimit),
        trims=not isinstance(limit, TimesLimit) and limit.over is Over.TRIM,
        is_weighed=is_weighed,
    )


def budget_key(rule: Rule, scope: LimitScope) -> str:
    """Return the name of a budget's count: the campaign's, or the rule's own where the rule is in no campaign."""
    whose = f"rule:{rule.id}" if rule.campaign is None else f"campaign:{rule.campaign}"
    return f"{scope.unit}:{scope.every}:{whose}"


def shared_limit(rule: Rule, scope: LimitScope) -> Limit:
    """Return the limit of a shared scope; `check` lets a rule have only one for each."""
    return next(limit for limit in rule.limits if limit.scope == scope)


def has_budgets(programme: Programme) -> bool:
    """Whether a rule of the programme has a limit that all members share."""
    return any(limit.scope.is_shared for rule in programme.rules for limit in rule.limits)


def open_budget(occurrence: Occurrence, budget: Budget, period: int, asked: int) -> LimitUse:
    """Return all members' use of a budget, as the books of the occurrence know it."""
    assert occurrence.books is not None  # the fold of a programme with budgets brings them
    return occurrence.books.open_budget(budget, period, asked, occurrence)
