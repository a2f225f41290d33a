"""Stand in for what surrounds a fold: the books of a member who has none, and a judge with a defect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.ledger.memory_books import MemoryBooks

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.judge import Judges

VERSIONS: dict[int, Judges] = {}
NO_BOOKS = MemoryBooks(VERSIONS.__getitem__)


class Refusing:
    """Judge as the programme says, but fail on some events, as a defect would."""

    def __init__(self, judge: Any, fails: Callable[[Any], bool]) -> None:
        self._judge = judge
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)

    def judge(self, event: Any, state: Any, occurrence: Any) -> Any:
        if self._fails(event):
            raise ZeroDivisionError(f"by {event.member_id}\0")
        return self._judge.judge(event, state, occurrence)


def fails_on_e2(event: Any) -> bool:
    return bool(event.event_id == "e2")
