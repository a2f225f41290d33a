"""Fold the events of one member by a programme written in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.evaluate import advance, fold
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import event_identity
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge
    from schemas.events import MemberEvent, Profile
    from schemas.rewards import RewardEvent


class OneMember:
    """Fold one member's events by one judge; subclasses act after each event in `settle`.

    Args:
        judge: the version in force; another one can be set at any time.
        books: what lies beyond the state; None: a ledger in memory.
    """

    def __init__(self, judge: Judge, books: MemoryBooks | None = None) -> None:
        self.judges: dict[int, Judge] = {judge.version: judge}
        self.judge = judge
        self.state = MemberState()
        self.books = MemoryBooks(self.judges.__getitem__) if books is None else books
        self.seq = 0
        self.latest: list[RewardEvent] = []

    def take(self, event: MemberEvent | Profile) -> list[RewardEvent]:
        """Judge an event at the next place of the log."""
        if isinstance(event, Purchase):
            self.books.record(event, self.judge.version)
        here = self.place(event.source, event.event_id, event.occurred_at)
        return self._settled(fold(self.state, event, here, self.judge, self.books))

    def tick(self, until_ms: int) -> list[RewardEvent]:
        """Move the member's clock on to an instant."""
        here = self.place("guerdon", f"tick-{self.seq}", until_ms)
        return self._settled(advance("m", self.state, here, self.judge, self.books, until_ms))

    def _settled(self, rewards: Sequence[RewardEvent]) -> list[RewardEvent]:
        self.latest = list(rewards)
        self.settle()
        return self.latest

    def place(self, source: str, event_id: str, recorded_ms: int) -> Occurrence:
        """Return the next place of the log."""
        self.seq += 1
        return Occurrence(event_identity(source, event_id), self.seq, recorded_ms)

    def settle(self) -> None:
        """Act after an event, whose reward events are `latest`; here nothing happens."""


class BothWays:
    """Fold one member's events by the compiled and by the interpreted programme, which must agree."""

    def __init__(self, programme: Programme) -> None:
        self.members = (OneMember(compile_programme(programme, 1)), OneMember(Interpreter(programme, 1)))

    @property
    def states(self) -> tuple[MemberState, MemberState]:
        """Return the member's state by each way."""
        compiled, interpreted = self.members
        return compiled.state, interpreted.state

    def take(self, event: MemberEvent | Profile) -> list[RewardEvent]:
        """Judge an event both ways."""
        compiled, interpreted = (member.take(event) for member in self.members)
        assert compiled == interpreted
        assert self.states[0] == self.states[1]
        return compiled
