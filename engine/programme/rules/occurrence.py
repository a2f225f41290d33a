"""Hold what a judge needs besides an event and a state: the event's place in the log, and uses kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from engine.member.state import LimitUse, MemberState


@dataclass(frozen=True, slots=True)
class Budget:
    """Hold one limit of a rule that counts for all members together."""

    key: str
    """Names the count; rules of one campaign share it, even if they allow different amounts."""

    rule_id: str
    most: int

    is_times: bool
    """Whether it limits how often the rule gives, not how much."""

    trims: bool
    """Whether an award that does not fit is trimmed, not refused."""

    is_weighed: bool = False
    """Whether a group only asks which of its rules is worth most, so that nothing is given yet."""

    def left(self, use: LimitUse) -> int:
        """Return the amount, or the number of times, that a use leaves."""
        return max(self.most - (use.times if self.is_times else use.amount), 0)


class Budgets(Protocol):
    """Know the joint use of budgets by all members."""

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period; the caller counts by changing it, as it is always the same.

        Args:
            budget: the budget of the rule that asks.
            period: the number of the calendar period, 0 for a lifetime.
            asked: how much the rule would give at most, or 1 for a number of times.
            occurrence: the event that is judged.
        """
        ...


class UseBooks(Budgets, Protocol):
    """Know the uses that are not in the member's state: of budgets, and of limits in ended periods."""

    def recall_uses(self, state: MemberState) -> None:
        """Bring the member's uses of ended periods back into the state."""
        ...

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount, or a number of times, back to a budget's period; its use never falls below 0."""
        ...


class Occurrence(Struct, frozen=True, gc=False):
    """Place an event in the recorded order.

    `identity` is the 32-byte event identity, `seq` its position in its shard, times are milliseconds since 1970 UTC.
    `books` know the uses of budgets and of limits in ended periods; the fold adds them where rules may ask for either.
    They are never stored.
    """

    identity: bytes
    seq: int
    recorded_at_ms: int
    books: UseBooks | None = None

    def with_books(self, books: UseBooks) -> Occurrence:
        """Return the same place with books."""
        return Occurrence(self.identity, self.seq, self.recorded_at_ms, books)
