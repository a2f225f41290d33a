"""Count budgets in memory for `simulate`, or answer as recorded where one member's history is folded again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.member.state import LimitUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.programme.rules.occurrence import Budget, Occurrence


class MemoryBudgets:
    """Count what all members use, in the order of their events."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, int], LimitUse] = {}

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:  # noqa: ARG002  other books record who asks
        """Return the use of a budget in a period."""
        return self._uses.setdefault((budget.key, period), LimitUse(period))

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give back to a budget's period."""
        use = self._uses.get((key, period))
        if use is not None:
            use.take_back(amount, times)


class Asking(NamedTuple):
    """Name one question for a budget: which rule asked at which event, and whether to give or to weigh."""

    identity: bytes
    rule_id: str
    key: str
    period: int
    is_weighed: bool


class RecordedBudgets:
    """Answer with the recorded use where a budget cut a reward; everywhere else there was enough.

    Args:
        recorded: the use at each question that was answered with a cut.
    """

    def __init__(self, recorded: Mapping[Asking, LimitUse]) -> None:
        self._recorded = recorded

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:  # noqa: ARG002  the record does not depend on it
        """Return the recorded use, a new object each time: the use by other members in between is unknown."""
        asking = Asking(occurrence.identity, budget.rule_id, budget.key, period, budget.is_weighed)
        use = self._recorded.get(asking)
        return LimitUse(period) if use is None else LimitUse(period, use.amount, use.times)

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Do nothing: the next event that was cut has its own record."""
