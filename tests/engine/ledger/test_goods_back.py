"""An order without any goods left counts as wholly returned, whatever cents remain of its money."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st

from tests.engine.in_memory import Document, balance, event, given, judged

PROGRAMME = """referral: {}
metrics: {orders: {count: purchase}, spent: {sum: purchase.amount}}
catalogue: [{id: mug, points: 5, kind: gift}, {id: pay, kind: money, points_per: {1: 0.01}}]
rules:
- {id: hello, on: signup, give: [{points: 100}]}
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: first, on: purchase, when: {history.orders: 0}, give: [{coupon: first}]}
- {id: stamp, on: purchase, when: {items: {some: {category: coffee}}}, give: [{coupon: stamp}]}
- {id: rich, on: purchase, when: {history.spent: {gte: 5.00}}, give: [{coupon: rich}]}
- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1}, give: [{points: 200}]}
- {id: much, on: referral, when: {referral.event: purchase, referral.spend: {gte: 15.00}}, give: [{coupon: spends}]}
"""
ANN = event(1, "signup", "ann", "2026-03-01")
BOB = event(2, "signup", "bob", "2026-03-02", referrer_id="ann")
Line = tuple[str, int, int]


def bought(number: int, *lines: Line, amount: int | None = None) -> dict[str, Any]:
    """Return order N of N March, with lines of a category, pieces and money."""
    items = [
        {"line_id": str(at), "sku": category, "category": category, "quantity": pieces, "amount": money}
        for at, (category, pieces, money) in enumerate(lines)
    ]
    total = sum(money for _, _, money in lines) if amount is None else amount
    fields = {"order_id": f"o{number}", "currency": "EUR", "amount": total} | ({"items": items} if items else {})
    return event(number, "purchase", "bob", f"2026-03-{number:02}", **fields)


def back(number: int, order: int, *lines: tuple[int, int, int], **fields: Any) -> dict[str, Any]:
    """Return a refund of lines: which, how many pieces and how much money."""
    items = [{"line_id": str(at), "quantity": pieces, "amount": money} for at, pieces, money in lines]
    fields |= {"items": items} if items else {}
    return event(
        number, "refund", "bob", f"2026-03-{number:02}", order_id=f"o{order}", refund_id=f"r{number}", **fields
    )


def earned(document: Document) -> tuple[list[Any], list[Any]]:
    """Return what both members have in the end: points and held rewards."""
    keys = ("granted", "available", "reversed", "spent")
    balances = [[balance(document, who)[key] for key in keys] for who in ("ann", "bob")]
    return balances, sorted((row["member_id"], row["item"]) for row in document["rewards"] if row["status"] == "active")


pieces = st.lists(st.tuples(st.sampled_from(("coffee", "bun")), st.integers(1, 4), st.integers(2, 2_000)), max_size=3)


@settings(max_examples=60, deadline=None)
@given_by(pieces.filter(bool), st.data())
def test_all_goods_back_for_less_is_what_the_whole_order_back_is(lines: list[Line], data: st.DataObject) -> None:
    """Once every piece is back, in any steps and for any money, the order equals one refunded whole."""
    steps = []
    for at, (_, count, money) in enumerate(lines):
        first = data.draw(st.integers(0, count))
        paid = data.draw(st.integers(0, money))
        part = data.draw(st.integers(0, paid))
        steps += [(at, first, part), (at, count - first, paid - part)]
    order = data.draw(st.permutations(steps))
    refunds = [back(4 + n, 3, step) for n, step in enumerate(order)]
    after = bought(20, ("bun", 1, 1_000))
    whole = judged(PROGRAMME, [ANN, BOB, bought(3, *lines), back(4, 3), after])
    parts = judged(PROGRAMME, [ANN, BOB, bought(3, *lines), *refunds, after])
    assert earned(parts) == earned(whole)


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ([(0, 3, 999)], 0),
        ([(0, 2, 999)], 1),  # a piece is still there
        ([(0, 2, 0), (0, 1, 0)], 0),  # given back for nothing
        ([(0, 3, 1000)], 0),
    ],
)
def test_what_counts_is_pieces(sent: list[tuple[int, int, int]], left: int) -> None:
    refunds = [back(4 + n, 3, step) for n, step in enumerate(sent)]
    document = judged(PROGRAMME, [ANN, BOB, bought(3, ("coffee", 3, 1000)), *refunds])
    assert len([row for row in document["rewards"] if row["item"] == "first" and row["status"] == "active"]) == left
    assert balance(document, "ann")["available"] == 100 + 200 * left


def test_a_refund_that_names_no_pieces_leaves_them_there() -> None:
    only_money = event(4, "refund", "bob", "2026-03-04", order_id="o3", refund_id="r4",
                       items=[{"line_id": "0", "amount": 999}])  # fmt: skip
    document = judged(PROGRAMME, [ANN, BOB, bought(3, ("coffee", 3, 1000)), only_money])
    assert balance(document, "ann")["available"] == 300
    assert given(document, "bob", "coupon.revoked") == []


def test_a_line_that_is_back_but_for_a_cent_is_no_line() -> None:
    """The bun stays, and the order with it, without coffee. A line of money alone stays as long as its money."""
    order = bought(3, ("coffee", 1, 500), ("bun", 1, 500))
    document = judged(PROGRAMME, [ANN, BOB, order, back(4, 3, (0, 1, 499))])
    revoked = [row["item"] for row in given(document, "bob", "coupon.revoked")]
    assert revoked == ["stamp"]
    assert balance(document, "bob")["available"] == 100 + 5
    fee = bought(3, ("coffee", 1, 500), ("delivery", 0, 500))
    document = judged(PROGRAMME, [ANN, BOB, fee, back(4, 3, (0, 1, 500))])
    assert balance(document, "bob")["available"] == 100 + 5


def test_what_paid_for_it_comes_back_whole() -> None:
    spend = [
        event(3, "redemption", "bob", "2026-03-03T09:00:00Z", action="spend", redemption_id=f"x{reward}", reward=reward,
              order_id="o3", order_amount=1000, **fields)
        for reward, fields in (("pay", {"amount": 50}), ("mug", {}))
    ]  # fmt: skip
    spend[1]["event_id"] = "e30"
    document = judged(PROGRAMME, [ANN, BOB, *spend, bought(3, ("coffee", 3, 1000)) | {"event_id": "e31"},
                                  back(4, 3, (0, 3, 999))])  # fmt: skip
    assert balance(document, "bob")["spent"] == 0
    assert [row["amount"] for row in given(document, "bob", "points.restored")] == [5, 50]


def test_the_cent_is_not_asked_for_again_and_the_next_order_is_the_first() -> None:
    refunds = [back(4, 3, (0, 3, 999)), back(5, 3, amount=1), back(6, 3)]
    document = judged(PROGRAMME, [ANN, BOB, bought(3, ("coffee", 3, 1000)), *refunds, bought(7, amount=1000)])
    assert [row["reason"] for row in given(document, "bob", "reward.refused")] == ["nothing_left", "nothing_left"]
    assert balance(document, "ann")["available"] == 300, "the second is the friend's first again, and counted once"


def test_a_whole_refund_twice_takes_one_order_off_the_number() -> None:
    """The first of bob's two orders comes back, in two refunds: his third is his second then."""
    orders = [bought(3, amount=1000), bought(4, amount=1000)]
    document = judged(PROGRAMME, [ANN, BOB, *orders, back(5, 3), back(6, 3), bought(7, amount=1000)])
    assert balance(document, "ann")["available"] == 100


def test_more_pieces_than_were_bought_take_nothing_off_the_number_either() -> None:
    document = judged(PROGRAMME, [ANN, BOB, bought(3, ("bun", 1, 1000)), back(4, 3, (0, 2, 1000)), bought(5, amount=1)])
    assert [row["reason"] for row in given(document, "bob", "reward.refused")] == ["refund_exceeds"]
    assert balance(document, "ann")["granted"] == 300
