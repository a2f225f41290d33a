"""A member's lots stay indexed from event to event: an event costs what it touches, and not what the member has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ledger.holdings import holdings_of
from engine.member.agenda import Agenda
from engine.member.holdings import Holdings
from engine.member.lots import Lot
from engine.member.state import PAGE_LOTS, MemberState
from engine.programme.compile.module import compile_programme
from schemas.events import Purchase, Redemption, Refund
from tests.engine.books import turn_if_full
from tests.engine.one_member import OneMember
from tests.programme_text import loaded, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.events import MemberEvent

START_MS, HOUR_MS = 1_714_521_600_000, 3_600_000
OPEN = 400
PROGRAMME = written(
    """schema: guerdon/1
programme: holdings
timezone: Europe/Berlin
currency: EUR
points: {validity: ${open}h}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: held, on: purchase, when: {purchase.amount: {gte: 20.00}}, hold: 7h, give: [{points: 3}, {badge: b}]}
""",
    open=OPEN,
)


@pytest.fixture(autouse=True, scope="module")
def _every_member_has_many_lots() -> Iterator[None]:
    """Keep lots from the first page on, so that short histories are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.ledger.holdings.KEPT_FROM_LOTS", PAGE_LOTS)
        yield


class Kept(OneMember):
    """Fold the events of one member, and turn pages where states are stored between events."""

    def __init__(self, *, turns_pages: bool) -> None:
        super().__init__(compile_programme(loaded(PROGRAMME), 1))
        self.turns_pages = turns_pages

    def settle(self) -> None:
        if self.turns_pages:
            turn_if_full(self.state, self.books)


def bought(number: int, amount: int = 1_000) -> Purchase:
    return Purchase(
        event_id=f"p{number}", member_id="m", occurred_at=START_MS + number * HOUR_MS, order_id=f"o{number}",
        currency="EUR", amount=amount,
    )  # fmt: skip


@pytest.mark.parametrize("turns_pages", [False, True])
def test_an_event_looks_at_the_lots_that_are_due_and_not_at_all_that_are_open(
    monkeypatch: pytest.MonkeyPatch,
    turns_pages: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    looked: list[bytes] = []
    due_ms = Lot.due_ms

    def counted(lot: Lot) -> int | None:
        looked.append(lot.key)
        return due_ms.fget(lot)  # type: ignore[attr-defined,no-any-return]  # it is a property

    member = Kept(turns_pages=turns_pages)
    for number in range(OPEN):
        member.take(bought(number))
    member.take(bought(OPEN))  # the first lapses: what is due when is put in order here, once
    monkeypatch.setattr(Lot, "due_ms", property(counted))
    for number in range(OPEN + 1, 2 * OPEN):
        rewards = member.take(bought(number))
        assert [reward.posting.type for reward in rewards] == ["points.expired", "points.granted"]
    assert len(looked) < 30 * OPEN, "events look at more than a few lots each"


def test_a_refund_and_a_redemption_find_their_lots_without_looking_through_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    init = Holdings.__init__

    def counted(self: Holdings, state: MemberState, lots: list[Lot]) -> None:
        made.append(len(lots))
        init(self, state, lots)

    monkeypatch.setattr(Holdings, "__init__", counted)
    member = Kept(turns_pages=True)
    for number in range(50):
        member.take(bought(number))
    for number in range(50, 100):
        at_ms = START_MS + number * HOUR_MS
        head: dict[str, Any] = {"member_id": "m", "occurred_at": at_ms}
        refund = Refund(event_id=f"r{number}", order_id=f"o{number - 50}", refund_id=f"r{number}", amount=500, **head)
        assert [reward.amount for reward in member.take(refund)] == [5]
        spend = Redemption(event_id=f"x{number}", action="spend", redemption_id=f"x{number}", amount=1, **head)
        assert len(member.take(spend)) == 2
    assert len(made) <= 1, "the lots were gathered again"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 400)), max_size=60), st.booleans())
def test_kept_holdings_are_those_that_would_be_collected_again(steps: list[tuple[int, int]], turns_pages: bool) -> None:  # noqa: FBT001
    """Whatever an event does, the kept lots are all lots, and the next due instant is theirs."""
    kept, collected = Kept(turns_pages=turns_pages), Kept(turns_pages=turns_pages)
    number = 0
    for act, size in steps:
        # an order, a redemption or a refund
        number += 1 + size // 40
        head: dict[str, Any] = {"member_id": "m", "occurred_at": START_MS + number * HOUR_MS}
        event: MemberEvent = bought(number, 100 * size)
        if act == 3:
            event = Redemption(event_id=f"x{number}", action="spend", redemption_id=f"x{number}", amount=size, **head)
        elif act == 4:
            event = Refund(event_id=f"r{number}", order_id=f"o{size // 40}", refund_id=f"r{number}", **head)

        # both members decide alike, whether their lots are kept or collected again
        collected.books.parts().holdings = None
        collected.books.parts().reserved = None
        assert kept.take(event) == collected.take(event)
        assert kept.state == collected.state

        # and the indexes say what the lots say
        holdings = holdings_of(kept.state, kept.books)
        lots = [*kept.books.parts().lots(), *kept.state.lots]
        assert [lot.key for lot in holdings.lots] == [lot.key for lot in lots]
        assert holdings.agenda().next_ms() == Agenda(lots).next_ms()
        assert {key: lot.order_id for key, lot in holdings.by_key().items()} == {lot.key: lot.order_id for lot in lots}
