"""Provide what surrounds a fold in tests: empty books, paged books, and a judge with a defect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import msgpack

from engine.ledger.memory.books import MemoryBooks
from engine.member.state import LimitUse, bring_back_uses, has_many_uses, is_full, turn_page, turn_uses
from engine.programme.rules.limits import kept_from_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from engine.ledger.books import Activation
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge

VERSIONS: dict[int, Judge] = {}
NO_BOOKS = MemoryBooks(VERSIONS.__getitem__)


class Refusing:
    """Judge as the programme says, but fail on some events, as a defect would."""

    def __init__(self, judge: Any, fails: Callable[[Any], bool]) -> None:
        self._judge = judge
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)

    def rewards_for(self, event: Any, state: Any, occurrence: Any) -> Any:
        if self._fails(event):
            raise ZeroDivisionError(f"by {event.member_id}\0")
        return self._judge.rewards_for(event, state, occurrence)


def fails_on_e2(event: Any) -> bool:
    return bool(event.event_id == "e2")


class PagedBooks(MemoryBooks):
    """Keep uses of ended periods in pages beyond the state, as PostgreSQL does, and drop those that are forgotten."""

    def __init__(self, judge: Callable[[int], Judge], schedule: Sequence[Activation] = ()) -> None:
        super().__init__(judge, schedule=schedule)
        self.pages: dict[int, bytes] = {}
        self.recalls = 0

    def turn(self, state: MemberState) -> None:
        if not has_many_uses(state):
            return
        kept_ms = kept_from_ms(self.judge(state.version).programme, state.clock_ms)
        page = turn_uses(state, kept_ms)
        if page is not None:
            kept = {number: each for number, each in self._read() if _ended_ms(each) >= kept_ms}
            self.pages = {number: msgpack.encode(each) for number, each in kept.items()}
            self.pages[state.use_pages] = msgpack.encode(page)

    def recall_uses(self, state: MemberState) -> None:
        self.recalls += 1
        for _, page in self._read():
            bring_back_uses(state, page)
        self.pages, state.use_pages = {}, 0

    def _read(self) -> Iterator[tuple[int, dict[str, list[LimitUse]]]]:
        for number, body in self.pages.items():
            yield number, msgpack.decode(body, type=dict[str, list[LimitUse]])


def _ended_ms(page: dict[str, list[LimitUse]]) -> int:
    return max(use.ended_ms for uses in page.values() for use in uses)


def turn_if_full(state: MemberState, books: MemoryBooks) -> bool:
    """Turn the page of a full state, as a transaction does, and say whether it was full."""
    if not is_full(state):
        return False
    page = turn_page(state)
    books.parts().pages[state.pages] = page
    return True
