"""Hold members in memory, and connect the driver of the fold with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.member.state import MemberState

if TYPE_CHECKING:
    from engine.driver import MemberStep, Pages
    from engine.ledger.books import Books
    from engine.ledger.memory.books import MemoryBooks
    from schemas.events import Purchase


@dataclass(slots=True)
class MemoryMember:
    """Hold a member with their books."""

    member_id: str
    books: MemoryBooks
    state: MemberState = field(default_factory=MemberState)


class MemoryPorts:
    """Answer the driver from memory; a subclass takes the reward events."""

    counted: frozenset[int] | None = None
    pages: Pages[MemoryMember] | None = None

    def books_of(self, step: MemberStep[MemoryMember]) -> Books:
        """Return the books that lie with the member."""
        return step.member.books

    def remember(self, step: MemberStep[MemoryMember], purchase: Purchase) -> None:
        """Remember a purchase: there is no log to ask."""
        step.member.books.record(purchase, step.judge.version)

    def fail(self, _step: MemberStep[MemoryMember], error: Exception) -> None:
        """Raise the error: nobody is suspended here."""
        raise error
