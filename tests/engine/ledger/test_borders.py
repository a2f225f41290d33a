"""The ledger at its borders: a debt of exactly one, the very last instant, exactly what is left."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.in_memory import Document, balance, event, given, judged
from tests.programme_text import written

RATE = "- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]%s}\n"
BASE = "rules:\n" + RATE % ""
LONG_AND_SHORT = """\
rules:
- {id: long, on: share, when: {share.object: long}, give: [{points: {amount: 10, validity: 30d}}]}
- {id: short, on: share, when: {share.object: short}, give: [{points: {amount: 10, validity: 5d}}]}
"""
MUG = "catalogue: [{id: mug, kind: gift, points: 10, stock: 1}]\nreserve_for: 1d\n"


def bought(number: int, at: str, amount: int, who: str = "ann") -> dict[str, Any]:
    return event(number, "purchase", who, at, order_id=f"o{number}", currency="EUR", amount=amount)


def returned(number: int, at: str, order: int, **fields: Any) -> dict[str, Any]:
    return event(number, "refund", "ann", at, order_id=f"o{order}", refund_id=f"r{number}", **fields)


def redeemed(number: int, action: str, at: str, who: str = "ann", **fields: Any) -> dict[str, Any]:
    return event(number, "redemption", who, at, action=action, **{"redemption_id": f"x{number}"} | fields)


def shared(number: int, at: str, what: str = "x") -> dict[str, Any]:
    return event(number, "share", "ann", at, object=what, channel="link")


def columns(document: Document, *names: str, who: str = "ann") -> tuple[Any, ...]:
    row = balance(document, who)
    return tuple(row[name] for name in names)


def refusals(document: Document, who: str = "ann") -> list[str]:
    return [row["reason"] for row in given(document, who, "reward.refused")]


# Debt.


@pytest.mark.parametrize("points", [1, 2])
def test_the_next_grant_settles_a_debt_even_of_one_point(points: int) -> None:
    """Points of an order are spent, and the order comes back: that many are owed. The next order pays them first."""
    first = [
        bought(1, "2026-03-01", 100 * points),
        redeemed(2, "spend", "2026-03-02", amount=points),
        returned(3, "2026-03-03", 1),
    ]
    assert columns(judged(BASE, first), "debt", "available") == (points, -points)
    document = judged(BASE, [*first, bought(4, "2026-03-04", 500)])
    assert columns(document, "debt", "settled", "active", "available") == (0, points, 5 - points, 5 - points)


def test_points_that_leave_their_hold_settle_a_debt() -> None:
    rules = "rules:\n" + RATE % ", when: {purchase.amount: {lt: 5.00}}"
    rules += "- {id: late, on: purchase, when: {purchase.amount: {gte: 5.00}}, hold: 2d, give: [{points: 5}]}\n"
    events = [
        bought(1, "2026-03-01", 300),
        redeemed(2, "spend", "2026-03-02", amount=3),
        returned(3, "2026-03-03", 1),
        bought(4, "2026-03-04", 500),
    ]
    assert columns(judged(rules, events), "pending", "debt") == (5, 3)
    assert columns(judged(rules, events, "2026-03-06T10:00:00Z"), "pending", "debt", "available") == (0, 0, 2)


# Spending and giving back.


def test_the_sooner_expiry_is_spent_first_though_it_was_granted_later() -> None:
    events = [shared(1, "2026-03-01", "long"), shared(2, "2026-03-02", "short")]
    document = judged(LONG_AND_SHORT, [*events, redeemed(3, "spend", "2026-03-03", amount=10)])
    assert columns(document, "active", "next_expiry_at") == (10, "2026-03-31T10:00:00Z")


def test_of_equal_expiries_the_older_grant_is_spent_first() -> None:
    rules = "points: {validity: 1d, round_expiry: month}\n" + BASE
    document = judged(
        rules,
        [
            bought(1, "2026-03-01", 1_000),
            bought(2, "2026-03-02", 1_000),
            redeemed(3, "reserve", "2026-03-03", amount=10),
        ],
    )
    older, _ = given(document, "ann", "points.granted")
    (reserved,) = given(document, "ann", "points.reserved")
    assert reserved["lot"] == older["reward_key"]


def test_points_go_back_first_to_the_lot_that_was_taken_last() -> None:
    """15 points take all of the short lot and half of the long one; 5 of them go back to the long one."""
    document = judged(
        LONG_AND_SHORT,
        [
            shared(1, "2026-03-01", "long"),
            shared(2, "2026-03-02", "short"),
            redeemed(3, "spend", "2026-03-03", amount=15),
            redeemed(4, "restore", "2026-03-04", redemption_id="x3", amount=5),
        ],
    )
    assert columns(document, "active", "spent", "next_expiry_at") == (10, 10, "2026-03-31T10:00:00Z")


def test_a_whole_restore_takes_the_reward_back() -> None:
    events = [
        bought(1, "2026-03-01", 1_000),
        redeemed(2, "spend", "2026-03-02", reward="mug"),
        redeemed(3, "restore", "2026-03-03", redemption_id="x2", amount=9),
    ]
    assert given(judged(MUG + BASE, events), "ann", "gift.revoked") == []
    document = judged(MUG + BASE, [*events, redeemed(4, "restore", "2026-03-04", redemption_id="x2")])
    assert [row["reason"] for row in given(document, "ann", "gift.revoked")] == ["restored"]
    assert columns(document, "spent", "available") == (0, 10)


def test_the_last_of_a_stock_can_be_taken_and_comes_back_when_its_reservation_lapses() -> None:
    """Ann reserves the only mug and leaves it: bob, refused before the day is over, has it afterwards."""
    events = [
        bought(1, "2026-03-01", 1_000),
        bought(2, "2026-03-01", 1_000, "bob"),
        redeemed(3, "reserve", "2026-03-02", reward="mug"),
        redeemed(4, "reserve", "2026-03-03T09:59:59Z", "bob", reward="mug"),
    ]
    assert refusals(judged(MUG + BASE, events), "bob") == ["out_of_stock"]
    lapse = {"type": "tick", "occurred_at": "2026-03-03T10:00:00Z"}
    again = redeemed(5, "reserve", "2026-03-03T10:00:00Z", "bob", reward="mug")
    document = judged(MUG + BASE, [*events, lapse, again])
    assert [row["reason"] for row in given(document, "ann", "points.voided")] == ["lapsed"]
    assert columns(document, "reserved", who="bob") == (10,)


def test_a_reservation_lapses_though_something_else_was_due_before() -> None:
    """Half of the short lot is reserved on its last day; the other half expires first, and the reserved one with it."""
    document = judged(
        "reserve_for: 3d\n" + LONG_AND_SHORT,
        [shared(1, "2026-03-01", "short"), redeemed(2, "reserve", "2026-03-05", amount=5)],
        "2026-03-08T10:00:00Z",
    )
    assert columns(document, "reserved", "expired") == (0, 10)
    assert [row["occurred_at"] for row in given(document, "ann", "points.expired")] == [
        "2026-03-06T10:00:00Z",
        "2026-03-08T10:00:00Z",
    ]


def test_an_item_is_handed_over_at_the_end_of_its_hold_and_revoked_with_its_order() -> None:
    rules = "rules:\n- {id: gift, on: purchase, hold: 2d, give: [{coupon: c}]}\n"
    document = judged(rules, [bought(1, "2026-03-01", 100), returned(2, "2026-03-10", 1)])
    assert [(row["type"], row["amount"]) for row in document["reward_events"]] == [
        ("coupon.issued", 1),
        ("coupon.released", 1),
        ("coupon.revoked", 1),
    ]


def test_points_that_come_back_at_the_instant_of_their_expiry_expire_and_settle_no_debt() -> None:
    rules = "reserve_for: 9d\n" + LONG_AND_SHORT + RATE % ""
    document = judged(
        rules,
        [
            shared(1, "2026-03-01", "short"),
            redeemed(2, "reserve", "2026-03-02", amount=10),
            bought(3, "2026-03-03", 500),
            redeemed(4, "spend", "2026-03-04", amount=5),
            returned(5, "2026-03-05", 3),
            redeemed(6, "void", "2026-03-06T10:00:00Z", redemption_id="x2"),
        ],
    )
    assert columns(document, "expired", "debt") == (10, 5)


@pytest.mark.parametrize(("order", "refused"), [(1_999, ["below_minimum"]), (2_000, [])])
def test_a_reward_for_orders_of_an_amount_can_be_had_for_exactly_that(order: int, refused: list[str]) -> None:
    mug = "catalogue: [{id: mug, kind: gift, points: 10, min_order: 20.00}]\n"
    spend = redeemed(2, "spend", "2026-03-02", reward="mug", order_id="o3", order_amount=order)
    assert refusals(judged(mug + BASE, [bought(1, "2026-03-01", 1_000), spend])) == refused


def test_exactly_what_is_reserved_can_be_captured() -> None:
    events = [bought(1, "2026-03-01", 1_000), redeemed(2, "reserve", "2026-03-02", amount=5)]
    more = redeemed(3, "capture", "2026-03-03", redemption_id="x2", amount=6)
    exactly = redeemed(4, "capture", "2026-03-04", redemption_id="x2", amount=5)
    document = judged(BASE, [*events, more, exactly])
    assert refusals(document) == ["exceeds_reserved"]
    assert columns(document, "spent", "available") == (5, 5)


# Refunds.


@pytest.mark.parametrize(("at", "refused"), [("10:00:00Z", []), ("10:00:00.001Z", ["refund_window_closed"])])
def test_a_refund_is_in_time_up_to_the_last_instant_of_its_window(at: str, refused: list[str]) -> None:
    rules = "refunds: {window: 30d}\n" + BASE
    document = judged(rules, [bought(1, "2026-03-01", 1_000), returned(2, f"2026-03-31T{at}", 1)])
    assert refusals(document) == refused
    assert columns(document, "available") == (10 if refused else 0,)


def test_a_limit_gets_back_what_was_taken_and_not_what_was_forgiven() -> None:
    """The points of the order are spent, so its refund takes none of them: the day's ten stay used."""
    rules = "refunds: {negative: within_balance}\nrules:\n"
    rules += RATE % ", limits: [{max: 10, per: member, every: day}]"
    document = judged(
        rules,
        [
            bought(1, "2026-03-01T08:00:00Z", 1_000),
            redeemed(2, "spend", "2026-03-01T09:00:00Z", amount=10),
            returned(3, "2026-03-01T10:00:00Z", 1),
            bought(4, "2026-03-01T11:00:00Z", 1_000),
        ],
    )
    assert refusals(document) == ["forgiven", "limit_max"]
    assert columns(document, "granted", "debt") == (10, 0)


def test_a_number_of_times_is_given_back_only_with_the_whole_order() -> None:
    rules = "rules:\n" + RATE % ", limits: [{times: 1, per: member, every: day}]"
    events = [bought(1, "2026-03-01T08:00:00Z", 1_000), returned(2, "2026-03-01T09:00:00Z", 1, amount=500)]
    part = judged(rules, [*events, bought(3, "2026-03-01T11:00:00Z", 1_000)])
    assert refusals(part) == ["limit_times"]
    rest = returned(4, "2026-03-01T10:00:00Z", 1)
    whole = judged(rules, [*events, rest, bought(3, "2026-03-01T11:00:00Z", 1_000)])
    assert refusals(whole) == []


def test_a_budget_gets_back_what_an_order_returns() -> None:
    rules = "rules:\n" + RATE % ", campaign: spring, limits: [{max: 10, per: campaign, every: lifetime}]"
    events = [bought(1, "2026-03-01", 1_000), returned(2, "2026-03-02", 1), bought(3, "2026-03-03", 1_000, "bob")]
    assert columns(judged(rules, events), "available", who="bob") == (10,)


@pytest.mark.parametrize(
    ("negative", "expected"),
    [("only_pending", (7, 5, 0)), ("within_balance", (2, 10, 0)), ("unlimited", (0, 10, 3))],
)
def test_how_far_a_refund_takes_points_is_up_to_the_programme(negative: str, expected: tuple[int, ...]) -> None:
    """Of 10 points 5 are pending and 3 were spent; where debts are possible, no other order has active points."""
    rules = written("refunds: {negative: $negative}\nrules:\n", negative=negative)
    rules += RATE % ", when: {purchase.amount: {lt: 10.00}}"
    rules += "- {id: big, on: purchase, when: {purchase.amount: {gte: 10.00}}, give: [{points: 5}]}\n"
    rules += "- {id: late, on: purchase, when: {purchase.amount: {gte: 10.00}}, hold: 9d, give: [{points: 5}]}\n"
    document = judged(
        rules,
        [
            bought(1, "2026-03-01", 1_000),
            redeemed(2, "spend", "2026-03-02", amount=3),
            bought(3, "2026-03-03", 500 if negative != "unlimited" else 0),
            returned(4, "2026-03-04", 1),
        ],
    )
    assert columns(document, "active", "reversed", "debt") == expected


def test_expired_points_are_not_charged_to_other_lots() -> None:
    events = [bought(1, "2026-03-01", 1_000), bought(2, "2026-03-07", 500), returned(3, "2026-03-08", 1)]
    document = judged("points: {validity: 5d}\n" + BASE, events)
    assert columns(document, "reversed", "available", "debt") == (10, 5, 0)


def test_money_that_paid_comes_back_in_proportion_rounded_down() -> None:
    """70 points paid for 30.00; a third of it comes back: 23 points, and with the rest the other 47."""
    pay = "catalogue: [{id: pay, kind: money, points_per: {1: 0.01}}]\n"
    events = [
        bought(1, "2026-03-01", 10_000),
        redeemed(2, "spend", "2026-03-02", reward="pay", amount=70, order_id="o3", order_amount=3_000),
        bought(3, "2026-03-03", 3_000),
        returned(4, "2026-03-04", 3, amount=1_000),
        returned(5, "2026-03-05", 3),
    ]
    document = judged(pay + BASE, events)
    assert [row["amount"] for row in given(document, "ann", "points.restored")] == [23, 47]


def test_refunds_in_parts_claim_no_more_than_the_whole() -> None:
    events = [bought(1, "2026-03-01", 1_000), bought(2, "2026-03-01T11:00:00Z", 700)]
    parts = [returned(3 + part, f"2026-03-0{3 + part}", 1, amount=250) for part in range(4)]
    documents = [judged(BASE, [*events, *parts[:count]]) for count in range(5)]
    assert [balance(document, "ann")["reversed"] for document in documents] == [0, 3, 5, 8, 10]


def test_a_completion_stands_while_exactly_its_goal_is_left() -> None:
    rules = "rules:\n- {id: r, on: purchase, challenge: {sum: purchase.amount, gte: 100.00}, give: [{points: 5}]}\n"
    events = [
        bought(1, "2026-03-01", 6_000),
        bought(2, "2026-03-02", 6_000),
        returned(3, "2026-03-03", 1, amount=2_000),
    ]
    exactly = judged(rules, events)
    assert given(exactly, "ann", "points.reversed") == []
    assert len(given(exactly, "ann", "challenge.completed")) == 1
    less = judged(rules, [*events, returned(4, "2026-03-04", 1, amount=1)])
    assert columns(less, "reversed", "available") == (5, 0)


# Tiers.

TIERS = (
    "tiers: {metric: status, window: calendar_year, grace: 30d,"
    " levels: [{id: low, from: 0}, {id: gold, from: 10, benefits: [lounge]}]}\n"
    "rules:\n- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"
)


def tier(document: Document) -> str:
    return str(document["tiers"][0]["tier"])


@pytest.mark.parametrize(("amount", "level"), [(999, "low"), (1_000, "gold")])
def test_a_level_is_reached_by_exactly_its_start(amount: int, level: str) -> None:
    assert tier(judged(TIERS, [bought(1, "2025-03-01", amount)])) == level


@pytest.mark.parametrize(("until", "level"), [("2026-12-31T23:59:59.999Z", "gold"), ("2027-01-31T00:00:00Z", "low")])
def test_a_level_lasts_through_the_next_year_and_the_grace(until: str, level: str) -> None:
    assert tier(judged(TIERS, [bought(1, "2025-03-01", 1_000)], until)) == level


@pytest.mark.parametrize("again", ["2026-05-01", "2027-01-20"])
def test_a_level_is_kept_by_exactly_its_start_within_the_year_or_the_grace(again: str) -> None:
    events = [bought(1, "2025-03-01", 1_000), bought(2, again, 1_000)]
    document = judged(TIERS, events, "2027-06-01T00:00:00Z")
    assert tier(document) == "gold"
    assert [row["reason"] for row in given(document, "ann", "tier.changed")] == ["reached"]


def test_a_benefit_that_a_rule_gave_does_not_end_with_the_level() -> None:
    rules = TIERS + "- {id: visit, on: share, give: [{benefit: lounge}]}\n"
    events = [bought(1, "2025-03-01", 1_000), shared(2, "2025-03-02")]
    document = judged(rules, events, "2027-06-01T00:00:00Z")
    assert tier(document) == "low"
    assert sorted(row["status"] for row in document["rewards"] if row["item"] == "lounge") == ["active", "revoked"]


def test_the_reward_for_a_level_can_reach_the_next_and_that_one_the_highest() -> None:
    """A purchase makes silver, its reward gold, and the reward for that diamond; each ends a benefit."""
    rules = """\
tiers:
  metric: status
  window: lifetime
  levels:
  - {id: low, from: 0}
  - {id: silver, from: 10, benefits: [bar]}
  - {id: gold, from: 20, benefits: [lounge]}
  - {id: diamond, from: 30, benefits: [car]}
rules:
"""
    rules += "- {id: status, on: purchase, give: [{status: 10}]}\n"
    rules += "- {id: step, on: tier, when: {tier.to: [silver, gold]}, give: [{status: 10}]}\n"
    document = judged(rules, [bought(1, "2025-03-01", 100)])
    changes = given(document, "ann", "tier.changed")
    assert [(row["item"], row["reason"], row["amount"]) for row in changes] == [
        ("silver", "reached", 10),
        ("gold", "reached", 20),
        ("diamond", "reached", 30),
    ]
    assert [row["item"] for row in document["rewards"] if row["status"] == "active"] == ["car"]


# Referrals.


@pytest.mark.parametrize(
    ("released", "until", "expected"),
    [
        ("2026-03-05", "2026-03-17T09:59:59Z", (200, 0)),
        ("2026-03-05", "2026-03-17T10:00:00Z", (0, 200)),
        ("2026-03-20", "2026-03-20T10:00:00Z", (0, 200)),
    ],
)
def test_a_released_reward_waits_for_the_hold_of_its_rule(released: str, until: str, expected: tuple[int, ...]) -> None:
    """Ann and bob share a device, so bob's order is held back for her; its rule has a hold of 14 days anyway."""
    rules = "referral: {flag: [same_device]}\nrules:\n"
    rules += "- {id: friend, on: referral, when: {referral.event: purchase}, hold: 14d, give: [{points: 200}]}\n"
    device = {"identity": {"device": "d"}}
    document = judged(
        rules,
        [
            event(1, "signup", "ann", "2026-03-01", **device),
            event(2, "signup", "bob", "2026-03-02", referrer_id="ann", **device),
            bought(3, "2026-03-03", 1_000, "bob"),
            event(4, "decision", "bob", released, action="referral_release", reason="a family"),
        ],
        until,
    )
    assert columns(document, "pending", "available") == expected


# Opening balances.


def test_an_opening_balance_is_taken_only_before_anything_else() -> None:
    opening = event(2, "decision", "ann", "2026-03-02", action="opening", amount=50, reason="moved in")
    assert columns(judged(BASE, [opening, bought(3, "2026-03-03", 100)]), "available") == (51,)
    document = judged(BASE, [bought(1, "2026-03-01", 100), opening])
    assert refusals(document) == ["not_first"]
    assert columns(document, "available") == (1,)
