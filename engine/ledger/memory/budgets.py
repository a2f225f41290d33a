"""Count budgets in memory for `simulate`, and answer as they were for whoever folds one member's history anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.member.state import LimitUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.programme.rules.occurrence import Budget, Occurrence


class MemoryBudgets:
    """Count what members use, in the order in which they come."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, int], LimitUse] = {}

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:  # noqa: ARG002  who asks, and for how much, matters to others
        """Return the use of a budget in a period."""
        return self._uses.setdefault((budget.key, period), LimitUse(period))

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give back to a budget's period."""
        use = self._uses.get((key, period))
        if use is not None:
            use.take_back(amount, times)


class Asking(NamedTuple):
    """Name one question for a budget: who asked, at which event, whether to give or to weigh."""

    identity: bytes
    rule_id: str
    key: str
    period: int
    is_weighed: bool


class RecordedBudgets:
    """Answer as it was recorded where a budget stood in the way; everywhere else there was enough.

    Args:
        recorded: what was used, by question.
    """

    def __init__(self, recorded: Mapping[Asking, LimitUse]) -> None:
        self._recorded = recorded

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:  # noqa: ARG002  what was asked is known
        """Return what was used when this was asked; a new object each time, as others' uses are not known."""
        asking = Asking(occurrence.identity, budget.rule_id, budget.key, period, budget.is_weighed)
        use = self._recorded.get(asking)
        return LimitUse(period) if use is None else LimitUse(period, use.amount, use.times)

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Take note of nothing: what was left afterwards is recorded with the next event that was cut."""
