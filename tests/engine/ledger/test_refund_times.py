"""Refunds depend on their own times only, not on where a batch ends or how far a backlog reaches."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from engine.member.referral import Referral
from engine.member.state import turn_page
from engine.member.windows import LATE_MS
from engine.programme.file.load import load_programme
from schemas.events import Decision, MemberEvent, Refund, Share
from tests.engine.books import turn_if_full
from tests.engine.ledger.test_extremes import HEAD, Stored, bought
from tests.programme_text import written
from tests.strategies.extremes import DAY_MS
from tests.strategies.refund_histories import DELAYS, TEXT, Event, History, brought, histories, simulated
from tests.system.load import START_MS

if TYPE_CHECKING:
    from engine.programme.model import Programme

WINDOW = "refunds: {window: 30d, negative: unlimited}\n"
RATE = "- {id: r, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"
REFERRAL = "referral: {claim_window: 7d}\n"
FRIEND = "- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1}, give: [{points: 200}]}\n"


@cache
def checked(text: str) -> Programme:
    programme = load_programme(text, "p.yaml").programme
    assert programme is not None
    return programme


@settings(max_examples=100, deadline=None)
@given(histories(), DELAYS)
def test_how_late_what_referees_do_is_passed_on_gives_and_takes_nothing(history: History, delays: list[int]) -> None:
    programme = checked(TEXT)
    expected = brought(simulated(programme, history.all()))
    assert brought(simulated(programme, history.delayed(delays))) == expected


def refunded(order: int, at_ms: int, number: int = 1, **fields: Any) -> Refund:
    return Refund(
        event_id=f"r{number}", member_id="m", occurred_at=at_ms, order_id=f"o{order}", refund_id=f"r{number}", **fields
    )


def shared(at_ms: int) -> Share:
    """Return something that moves the clock on and gives nothing."""
    return Share(event_id=f"h{at_ms}", member_id="m", occurred_at=at_ms, object="x", channel="link")


def outcome(member: Stored, event: MemberEvent) -> list[tuple[str, int, str | None]]:
    return [(each.posting.type, each.amount, each.posting.reason) for each in member.take(event)]


REVERSED = [("points.reversed", 10, "refund")]
CLOSED = [("reward.refused", 0, "refund_window_closed")]


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize(
    ("clock_ms", "expected"),
    [(30 * DAY_MS + LATE_MS, REVERSED), (30 * DAY_MS + LATE_MS + 1, CLOSED)],
    ids=["just known", "forgotten"],
)
@pytest.mark.parametrize("late_ms", [0, 200 * DAY_MS])
def test_an_order_is_known_for_a_window_and_seven_days_after_it_was_judged(
    forgets: bool,  # noqa: FBT001  a parameter of the test
    late_ms: int,
    clock_ms: int,
    expected: list[tuple[str, int, str | None]],
) -> None:
    member = Stored(f"{HEAD}{WINDOW}rules:\n{RATE}")
    member.take(shared(START_MS + late_ms))
    member.take(bought(0, START_MS))
    member.take(shared(START_MS + late_ms + clock_ms))
    _let_forget(member, forgets=forgets)
    assert outcome(member, refunded(0, START_MS + 2 * DAY_MS)) == expected


def _let_forget(member: Stored, *, forgets: bool) -> None:
    if forgets:
        member.books.parts().pages[member.state.pages] = turn_page(member.state)
        member.forget()


@pytest.mark.parametrize("late_ms", [0, 200 * DAY_MS])
def test_what_a_metric_counted_of_an_order_that_earned_nothing_is_known_as_long(late_ms: int) -> None:
    """Only orders of members with the badge count. It ends at once; the ledger still knows that the order counted."""
    metric = "metrics: {orders: {count: purchase, where: {member.held.vip: true}}}\n"
    badge = "- {id: badge, on: share, when: {share.object: x}, give: [{badge: vip}]}\n"
    again = "- {id: again, on: purchase, when: {history.orders: {gte: 1}}, give: [{points: 10}]}\n"
    member = Stored(f"{HEAD}{WINDOW}{metric}rules:\n{badge}{again}")
    member.take(shared(START_MS - DAY_MS))
    member.take(Share(event_id="h", member_id="m", occurred_at=START_MS + late_ms, object="y", channel="link"))
    assert outcome(member, bought(0, START_MS)) == []
    _let_forget(member, forgets=True)
    member.forget()
    assert outcome(member, refunded(0, START_MS + DAY_MS)) == []
    assert outcome(member, bought(1, START_MS + late_ms + DAY_MS)) == []


def test_a_void_takes_back_what_was_judged_long_after_it_occurred() -> None:
    rule = RATE.replace("on: purchase,", "on: purchase, when: {member.referrer: {exists: true}},")
    member = Stored(
        written("${head}points: {validity: 3d}\n${window}rules:\n$rule", head=HEAD, window=WINDOW, rule=rule)
    )
    member.state.referral = Referral("ann")
    member.take(shared(START_MS + 200 * DAY_MS))
    for number in range(9):
        member.take(bought(number, START_MS + number))
        turn_if_full(member.state, member.books)
    member.forget()
    void = Decision(
        event_id="v", member_id="m", occurred_at=START_MS + DAY_MS, action="referral_void", reason="two accounts"
    )
    assert outcome(member, void) == [("points.reversed", 10, "referral_void")] * 9


def test_pages_of_orders_without_lots_do_not_grow_together() -> None:
    """Late orders that earn nothing fill pages of eight at most, and are forgotten when their time is up."""
    member = Stored(f"{HEAD}{WINDOW}rules:\n{RATE.replace('rate: 1', 'rate: 0.000001')}")
    member.take(shared(START_MS + 200 * DAY_MS))
    for number in range(40):
        member.take(bought(number, START_MS + number))
        if turn_if_full(member.state, member.books):
            member.forget()
    parts = member.books.parts()
    assert [len(page.orders) for page in parts.pages.values()] == [8] * 5
    member.take(shared(START_MS + 240 * DAY_MS))
    member.forget()
    assert parts.pages == {}


def event(number: int, kind: str, who: str, day: str, **fields: Any) -> Event:
    at = f"2024-{day}T10:00:00Z"
    return {"type": kind, "event_id": f"e{number}", "member_id": who, "occurred_at": at, **fields}


def order(number: int, who: str, day: str, amount: int = 3_000) -> Event:
    return event(number, "purchase", who, day, order_id=f"o{number}", currency="USD", amount=amount)


def returned(number: int, of: int, day: str, **fields: Any) -> Event:
    return event(number, "refund", "bob", day, order_id=f"o{of}", refund_id=f"r{number}", **fields)


JOINED = [event(1, "signup", "ann", "01-01"), event(2, "signup", "bob", "01-02", referrer_id="ann")]
REFERRED = f"{HEAD}{WINDOW}{REFERRAL}rules:\n{FRIEND}"


def passed_on(text: str, *events: Event) -> list[tuple[str, str, int, str | None]]:
    """Return what the referrer's account says of a referee's refunds."""
    refunds = {f"forwarded:default:{each['event_id']}" for each in events if each["type"] == "refund"}
    return [
        (reward["event_id"].rpartition(":")[2], reward["type"], reward["amount"], reward["reason"])
        for reward in simulated(checked(text), [*JOINED, *events])
        if reward["event_id"] in refunds
    ]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([returned(4, 3, "01-05")], [("e4", "points.reversed", 200, "refund")], id="in time"),
        pytest.param(
            [returned(4, 3, "01-05", amount=3_001)], [("e4", "reward.refused", 3_001, "refund_exceeds")], id="exceeds"
        ),
        pytest.param([returned(4, 3, "03-01")], [("e4", "reward.refused", 0, "refund_window_closed")], id="closed"),
        pytest.param(
            [returned(4, 3, "01-05"), returned(5, 3, "01-06")],
            [("e4", "points.reversed", 200, "refund"), ("e5", "reward.refused", 0, "nothing_left")],
            id="nothing left",
        ),
        pytest.param(
            [order(6, "ann", "08-01"), returned(4, 3, "01-05")],
            [("e4", "reward.refused", 0, "refund_window_closed")],
            id="forgotten",
        ),
        pytest.param([order(4, "bob", "01-05"), returned(5, 4, "01-06")], [], id="earned nothing"),
        pytest.param(
            [order(6, "ann", "08-01"), order(4, "bob", "01-05"), returned(5, 4, "01-06")], [], id="earned nothing, late"
        ),
    ],
)
def test_a_refund_that_is_passed_on_takes_back_or_says_why_not(
    events: list[Event], expected: list[tuple[str, str, int, str | None]]
) -> None:
    assert passed_on(REFERRED, order(3, "bob", "01-04"), *events) == expected


def test_a_refund_of_a_late_order_is_counted_where_orders_are_numbered() -> None:
    """o3 of January comes after one of August; once it is back, the next order is the second one again."""
    rule = FRIEND.replace("referral.number: 1", "referral.number: 2").replace("friend", "second")
    late = [order(4, "bob", "08-01"), order(3, "bob", "01-04"), order(5, "bob", "08-02"), returned(6, 3, "01-06")]
    rewards = simulated(checked(REFERRED + rule), [*JOINED, *late, returned(7, 5, "08-03"), order(8, "bob", "08-04")])
    given = [(each["event_id"].rpartition(":")[2], each["rule_id"]) for each in rewards if each["rule_id"] == "second"]
    assert given == [("e3", "second"), ("e6", "second"), ("e8", "second")]


def test_what_refunds_have_claimed_of_a_late_order_is_kept_as_long_as_it_is_known() -> None:
    member = Stored(f"{HEAD}{WINDOW}rules:\n{RATE}")
    member.take(shared(START_MS + 200 * DAY_MS))
    member.take(bought(0, START_MS))
    assert outcome(member, refunded(0, START_MS + 1, amount=400)) == [("points.reversed", 4, "refund")]
    _let_forget(member, forgets=True)
    assert outcome(member, refunded(0, START_MS + 2, 2, amount=601)) == [("reward.refused", 601, "refund_exceeds")]
    assert outcome(member, refunded(0, START_MS + 2, 3)) == [("points.reversed", 6, "refund")]


@pytest.mark.parametrize("late_ms", [0, 131 * DAY_MS])
def test_a_window_gives_up_a_late_order_though_it_has_forgotten_the_days_around_it(late_ms: int) -> None:
    """A rule gives to members without an order for 30 days; a late order counts for the next one until its refund."""
    metric = "metrics: {recent: {sum: purchase.amount, over: 30d}}\n"
    rare = RATE.replace("give:", "when: {history.recent: {lt: 1.00}}, give:")
    member = Stored(f"{HEAD}{WINDOW}{metric}rules:\n{rare}")
    member.take(bought(8, START_MS - 40 * DAY_MS))
    member.take(bought(9, START_MS + late_ms - 31 * DAY_MS))
    member.take(shared(START_MS + late_ms))
    assert outcome(member, bought(0, START_MS)) == [("points.granted", 10, None)]
    assert outcome(member, bought(1, START_MS + 1)) == []
    assert outcome(member, refunded(0, START_MS + 2)) == REVERSED
    assert outcome(member, refunded(1, START_MS + 3, 2)) == []
    assert outcome(member, bought(2, START_MS + 4)) == [("points.granted", 10, None)]
