"""Decisions do not depend on when a ledger forgets: the live fold and a replay forget at different events."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.member.referral import Referral
from schemas.events import Decision, Purchase, Refund
from tests.engine.books import turn_if_full
from tests.engine.ledger.test_extremes import HEAD, Stored, admitted, bought
from tests.strategies.extremes import DAY_MS, event, next_ms, programme
from tests.system.load import START_MS

RULES = "refunds: {window: 30d}\nrules:\n- {id: r, on: purchase, give: [{points: 5}]}\n"


def returned(number: int, at_ms: int, **fields: Any) -> Refund:
    return Refund(event_id=f"r{number}", member_id="m", occurred_at=at_ms, order_id="o0", refund_id="r", **fields)


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("again", [{}, {"amount": 1}])
def test_a_refund_that_comes_again_after_its_order_may_be_forgotten_is_refused_alike(
    forgets: bool,  # noqa: FBT001  a parameter of the test
    again: dict[str, int],
) -> None:
    member = Stored(f"{HEAD}{RULES}")
    member.take(bought(0, START_MS))
    member.take(returned(1, START_MS + 1))
    member.tick(START_MS + 60 * DAY_MS)
    if forgets:
        member.forget()
    (refused,) = member.take(returned(2, START_MS + 2, **again))
    assert (refused.posting.type, refused.posting.reason) == ("reward.refused", "refund_window_closed")


OF_FRIENDS = """\
points: {validity: %s}
refunds: {window: 30d, negative: unlimited}
rules:
- {id: r, on: purchase, when: {member.referrer: {exists: true}}, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""  # noqa: E501  a programme has lines of its own length


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize(("validity", "taken"), [("none", 8 * 100 + 50), ("40d", 0)], ids=["open lots", "closed lots"])
def test_a_void_long_after_takes_what_refunds_have_left_and_nothing_of_what_may_be_forgotten(
    forgets: bool,  # noqa: FBT001  a parameter of the test
    validity: str,
    taken: int,
) -> None:
    member = Stored(f"{HEAD}{OF_FRIENDS % validity}")
    member.state.referral = Referral("ann")
    for number in range(9):
        member.take(bought(number, START_MS + number, 10_000))
    member.take(returned(1, START_MS + 10, amount=5_000))
    turn_if_full(member.state, member.books)
    member.tick(START_MS + 60 * DAY_MS)
    if forgets:
        member.forget()
    void = Decision(
        event_id="v", member_id="m", occurred_at=START_MS + 60 * DAY_MS, action="referral_void", reason="two accounts"
    )
    rewards = member.take(void)
    assert sum(reward.amount for reward in rewards if reward.posting.type == "points.reversed") == taken


@pytest.mark.parametrize("seed", range(20))
def test_a_ledger_that_forgets_decides_as_one_that_never_does(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  a test must repeat
    body = programme(rng)
    forgetful, other = Stored(body), Stored(body)
    orders = set[str]()
    at_ms = START_MS
    for number in range(60):
        at_ms = next_ms(rng, at_ms)
        happened = event(rng, number, at_ms)
        if not admitted(happened) or (isinstance(happened, Purchase) and happened.order_id in orders):
            continue
        if isinstance(happened, Purchase):
            orders.add(happened.order_id)
        assert list(forgetful.take(happened)) == list(other.take(happened)), happened
        forgetful.forget()
