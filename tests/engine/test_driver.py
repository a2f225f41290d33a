"""The driver of the fold: what it passes over, what it remembers, and what it hands to its ports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from engine.driver import Advance, MemberStep, perform
from engine.ledger.adjustments import adjustment
from engine.ledger.contests import Won
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import PAGE_LOTS, MemberState, turn_page
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from schemas.events import Erasure, Purchase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.rewards import RewardEvent

PROGRAMME = """
schema: guerdon/1
programme: driven
timezone: UTC
currency: EUR
points: {validity: 1d}
rules:
- {id: base, on: purchase, give: [{points: 5}]}
"""
AT_MS = 1_714_521_600_000
DAY_MS = 86_400_000
SEQ = 7
EVERYTHING_COUNTS: frozenset[int] | None = None


@dataclass
class Member:
    member_id: str = "m"
    state: MemberState = field(default_factory=MemberState)


class Recording:
    """Note each call of a port."""

    def __init__(self, counted: frozenset[int] | None = EVERYTHING_COUNTS, *, turns_pages: bool = False) -> None:
        loaded = load_programme(PROGRAMME, "p.yaml")
        assert loaded.programme is not None
        self.judge = compile_programme(loaded.programme, 1)
        self.counted = counted
        self.pages = self if turns_pages else None
        self.member = Member()
        self.calls: list[Any] = []
        self._books = MemoryBooks({1: self.judge}.__getitem__)

    def books_of(self, step: MemberStep[Member]) -> MemoryBooks:
        self.calls.append(("books", step.seq))
        return self._books

    def remember(self, _step: MemberStep[Member], purchase: Purchase) -> None:
        self.calls.append(("remember", purchase.event_id))

    def bring(self, _step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        self.calls.append(("bring", [reward.posting.type for reward in rewards]))

    def fail(self, _step: MemberStep[Member], error: Exception) -> None:
        self.calls.append(("fail", type(error)))

    def turn_page(self, member: Member) -> None:
        self.calls.append("turn page")
        turn_page(member.state)

    def perform(self, cause: Any, waited_seq: int = 0) -> list[Any]:
        """Perform a step, and return what the ports were asked for."""
        self.calls.clear()
        occurrence = Occurrence(b"i" * 32, SEQ, AT_MS)
        perform(MemberStep(self.member, cause, self.judge, occurrence, "e", waited_seq), self)
        return list(self.calls)


def purchase(number: int = 1) -> Purchase:
    return Purchase(
        event_id=f"e{number}", member_id="m", order_id=f"o{number}", currency="EUR", amount=1_000,
        occurred_at=AT_MS + number,
    )  # fmt: skip


def test_a_purchase_is_remembered_before_it_is_judged_and_its_rewards_are_brought() -> None:
    assert Recording().perform(purchase()) == [("remember", "e1"), ("books", SEQ), ("bring", ["points.granted"])]


def test_a_tick_lets_happen_what_is_due() -> None:
    ports = Recording()
    ports.perform(purchase())
    assert ports.perform(Advance(AT_MS + 2 * DAY_MS)) == [("books", SEQ), ("bring", ["points.expired"])]


@pytest.mark.parametrize(
    "cause", [purchase(), Advance(AT_MS), Won("m", "c", 1, AT_MS, 1, 5), adjustment(2, "m", "points", 5, AT_MS)]
)
def test_every_step_of_a_suspended_member_is_passed_over(cause: Any) -> None:
    ports = Recording()
    ports.member.state.suspended_since = 3
    assert ports.perform(cause) == []


@pytest.mark.parametrize("cause", [Advance(AT_MS), Won("m", "c", 1, AT_MS, 1, 5)])
def test_time_and_contests_pass_an_erased_member_by(cause: Any) -> None:
    ports = Recording()
    ports.member.state.erased = True
    assert ports.perform(cause) == []


def test_the_erasure_itself_is_performed_though_the_member_is_marked_as_erased_before() -> None:
    ports = Recording()
    ports.perform(purchase())
    ports.member.state.erased = True
    assert ports.perform(Erasure(event_id="x", member_id="m", occurred_at=AT_MS + 2))[-1] == (
        "bring", ["points.expired"],
    )  # fmt: skip


def test_a_tick_that_waited_comes_before_the_erasure_that_waited_with_it() -> None:
    """The member was held, a tick and an erasure waited: released, what was due expires as it would have then."""
    ports = Recording()
    ports.perform(purchase())
    ports.member.state.erased = True
    assert ports.perform(Advance(AT_MS + 2 * DAY_MS), waited_seq=4) == [("books", 4), ("bring", ["points.expired"])]


def test_an_adjustment_counts_only_towards_the_generations_that_its_port_names() -> None:
    towards_2 = adjustment(2, "m", "points", 5, AT_MS)
    assert Recording(EVERYTHING_COUNTS).perform(towards_2)
    assert Recording(frozenset((2,))).perform(towards_2)
    assert Recording(frozenset((3,))).perform(towards_2) == []


def test_an_error_in_judging_goes_to_its_port_and_brings_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("engine.driver.fold", fail)
    assert Recording().perform(purchase()) == [("remember", "e1"), ("books", SEQ), ("fail", ZeroDivisionError)]


def test_the_page_of_a_full_state_is_turned_where_somebody_turns_pages() -> None:
    turning, keeping = Recording(turns_pages=True), Recording()
    for number in range(PAGE_LOTS - 1):
        assert "turn page" not in turning.perform(purchase(number))
        keeping.perform(purchase(number))
    assert turning.perform(purchase(PAGE_LOTS))[-1] == "turn page"
    assert keeping.perform(purchase(PAGE_LOTS))[-1] == ("bring", ["points.granted"])
    assert (turning.member.state.pages, keeping.member.state.pages) == (1, 0)
