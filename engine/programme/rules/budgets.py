"""Name the budgets that a campaign's members share, and how a judge asks for what was used beyond a state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.programme.model import LimitScope, Over, TimesLimit

if TYPE_CHECKING:
    from engine.member.state import LimitUse, MemberState, Occurrence
    from engine.programme.model import Limit, Programme, Rule


@dataclass(frozen=True, slots=True)
class Budget:
    """Hold one limit of a rule that counts for all members together.

    `key` names the count: rules of one campaign share it, whatever most each of them allows. `is_weighed` says that a
    group asks which of its rules is worth most, and that nothing is given yet.
    """

    key: str
    rule_id: str
    most: int
    is_times: bool
    trims: bool
    is_weighed: bool = False

    def left(self, use: LimitUse) -> int:
        """Return what is left where `use` was used: an amount, or a number of times."""
        return max(self.most - (use.times if self.is_times else use.amount), 0)


class Budgets(Protocol):
    """Tell what was used of budgets by everybody."""

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period: counted by changing it, the same object each time.

        Args:
            budget: of the rule that asks.
            period: number of the calendar period, 0 for a lifetime.
            asked: how much the rule would give at most, or 1 for a number of times.
            occurrence: the event that is judged.
        """
        ...


class UseBooks(Budgets, Protocol):
    """Tell what was used beyond the member's state: of budgets by everybody, and of limits in ended periods."""

    def recall_uses(self, state: MemberState) -> None:
        """Bring the uses of ended periods that lie beyond the member's state back into it."""
        ...


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
