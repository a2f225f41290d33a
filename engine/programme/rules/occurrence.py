"""Hold what is judged besides an event and a state: its place in the log, and what was used beyond the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from engine.member.state import LimitUse, MemberState


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

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount, or so many times, back to a budget's period; it never falls below 0."""
        ...


class Occurrence(Struct, frozen=True, gc=False):
    """Place an event in the recorded order: what the fold knows besides the event's own fields.

    `identity` is the 32-byte event identity, `seq` its position in its shard, times are milliseconds since 1970 UTC.
    `books` tell what was used of budgets, and of limits longer ago; the fold adds them where rules may ask for either.
    They are never stored.
    """

    identity: bytes
    seq: int
    recorded_at_ms: int
    books: UseBooks | None = None

    def with_books(self, books: UseBooks) -> Occurrence:
        """Return the same place with the books as they are there."""
        return Occurrence(self.identity, self.seq, self.recorded_at_ms, books)
