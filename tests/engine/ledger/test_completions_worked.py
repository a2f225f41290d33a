"""Completions and levels by hand: referrals and voids, limits, versions, and what is kept for how long."""

from __future__ import annotations

from typing import Any

from engine.evaluate import advance, fold
from engine.explain.event import Explainer
from engine.intake.own_events import Forwarded, ForwardedDecision, ForwardedPurchase, ForwardedRefund, ForwardedSignup
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import event_identity
from schemas.events import Decision, Purchase, Refund
from tests.engine.ledger.test_completions import HEAD, HOUR_MS, START_MS, Account

DAY_MS = 24 * HOUR_MS

OF_FRIENDS = """
referral: {block: []}
rules:
- {id: spent, on: referral, when: {referral.event: purchase},
   challenge: {sum: referral.amount, gte: 100.00}, give: [{points: {rate: 1, per: 1.00, of: referral.amount}}]}
- {id: joined, on: referral, when: {referral.event: signup}, challenge: {count: 2}, give: [{points: 1000}]}
"""


class Friends:
    """Forward to a member what their referees do."""

    def __init__(self) -> None:
        self.account = Account(OF_FRIENDS)
        self.bought: dict[str, ForwardedPurchase] = {}
        self.count = 0

    def forward(self, referee: str, kind: Any, *, flagged: bool = False, **fields: Any) -> None:
        self.count += 1
        at_ms = START_MS + self.count * HOUR_MS
        did = kind(event_id=f"f{self.count}", member_id=referee, occurred_at=at_ms, **fields)
        purchase = None
        if isinstance(did, ForwardedPurchase):
            self.bought[did.order_id] = did
        elif isinstance(did, ForwardedRefund):
            purchase = self.bought[did.order_id]
        self.account.take(
            Forwarded(
                event_id=f"to-ann-{self.count}", member_id="ann", occurred_at=at_ms, referee_id=referee, event=did,
                number=1, spend=0, flagged=flagged, purchase=purchase,
            )
        )  # fmt: skip

    def buy(self, referee: str, order_id: str, amount: int, *, flagged: bool = False) -> None:
        self.forward(referee, ForwardedPurchase, flagged=flagged, order_id=order_id, currency="EUR", amount=amount)

    def give_back(self, referee: str, order_id: str, amount: int | None = None) -> None:
        self.forward(referee, ForwardedRefund, order_id=order_id, refund_id=f"r{self.count}", amount=amount)

    def decide(self, referee: str, action: str) -> None:
        self.forward(referee, ForwardedDecision, action=action, reason="seen")


def test_what_referees_return_leaves_the_challenges_of_their_referrer() -> None:
    friends = Friends()
    friends.buy("bob", "o1", 6_000)
    friends.buy("cat", "o2", 7_000)
    friends.buy("dan", "o3", 5_000)
    assert friends.account.kept(rule="spent") == 70
    friends.give_back("bob", "o1", 3_000)  # 30 + 70 still are 100.00
    assert friends.account.kept(rule="spent") == 70
    friends.give_back("bob", "o1", 1)  # 29.99 + 70.00, and with the 50.00 of o3 it is enough again
    assert friends.account.kept(rule="spent") == 50
    friends.give_back("dan", "o3", 2_000)
    assert friends.account.kept(rule="spent") == 30
    friends.give_back("cat", "o2")
    assert friends.account.kept(rule="spent") == 0


def test_a_voided_referral_takes_what_the_referee_has_counted_with_it() -> None:
    friends = Friends()
    for referee in ("bob", "cat"):
        friends.forward(referee, ForwardedSignup)
        friends.buy(referee, f"of-{referee}", 6_000)
    assert friends.account.kept() == 1_060
    friends.decide("bob", "referral_void")
    assert friends.account.kept() == 0
    friends.forward("dan", ForwardedSignup)
    friends.buy("dan", "of-dan", 4_000)
    assert friends.account.kept() == 1_040
    friends.decide("dan", "referral_void")
    assert friends.account.kept() == 0


def test_what_a_flagged_referral_completes_again_is_held_until_it_is_released() -> None:
    friends = Friends()
    friends.buy("bob", "o1", 6_000)
    friends.buy("cat", "o2", 7_000)
    friends.buy("dan", "o3", 8_000, flagged=True)
    friends.give_back("bob", "o1")
    assert (friends.account.kept(rule="spent"), friends.account.state.available) == (80, 0)
    friends.decide("dan", "referral_release")
    friends.forward("bob", ForwardedSignup)
    assert friends.account.state.available == 80


def test_a_limit_gets_back_what_an_undone_completion_took_and_has_it_for_the_next() -> None:
    account = Account(
        "rules:\n- {id: r, on: purchase, challenge: {sum: purchase.amount, gte: 100.00, repeat: after_completion},"
        " give: [{coupon: C}], limits: [{times: 1, per: member}]}\n"
    )
    account.buy(1, START_MS, 10_000)
    account.buy(2, START_MS + 1, 10_000)
    assert account.kept("coupon") == 1
    account.give_back(1, 1, START_MS + 2)
    assert account.kept("coupon") == 0
    account.buy(3, START_MS + 3, 10_000)
    assert account.kept("coupon") == 1


def test_an_order_that_came_while_the_only_completion_stood_counts_when_it_is_undone() -> None:
    account = Account(
        "rules:\n- {id: r, on: purchase, challenge: {sum: purchase.amount, gte: 100.00},"
        " give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"
    )
    for order, amount in ((1, 10_000), (2, 3_000), (3, 8_000)):
        account.buy(order, START_MS + order, amount)
    assert account.kept() == 100

    # the third order completes the challenge where the first did: 80 points for its 80.00
    rewards = account.give_back(1, 1, START_MS + DAY_MS)
    assert [(each.posting.type, each.amount, each.occurred_at_ms, each.order_id) for each in rewards] == [
        ("points.reversed", 100, START_MS + DAY_MS, "o1"),
        ("challenge.completed", 1, START_MS + DAY_MS, "o3"),
        ("points.granted", 80, START_MS + DAY_MS, "o3"),
    ]

    account.give_back(2, 3, START_MS + DAY_MS, 500)  # what is left of it is 75.00, and 30.00 + 75.00 still are enough
    assert account.kept() == 75


def test_a_completion_is_final_and_forgotten_when_nothing_of_it_can_be_returned() -> None:
    account = Account(
        "refunds: {window: 30d}\nrules:\n"
        "- {id: r, on: purchase, challenge: {count: 2, within: 10d}, give: [{points: {amount: 5, validity: 1d}}]}\n"
        "- {id: other, on: purchase, give: [{points: {amount: 1, validity: 1d}}]}\n"
    )
    account.buy(1, START_MS, 100)
    account.buy(2, START_MS + DAY_MS, 100)

    # sixty days later the orders can no longer be returned
    late_ms = START_MS + 60 * DAY_MS
    account.buy(3, late_ms, 100)
    (reward,) = account.give_back(1, 1, late_ms)
    assert reward.posting.reason == "refund_window_closed"
    assert account.kept(rule="r") == 5

    for number in range(20):  # pages turn, and the ledger forgets
        account.buy(10 + number, late_ms + number, 100)

    # no completion, no contribution and no window is left
    pages = account.books[0].parts().pages.values()
    assert [each for page in pages for each in page.completions] == account.state.completions == []
    counted = [facts for page in pages for facts in page.orders.values()] + list(account.state.orders.values())
    assert [facts for facts in counted if facts.counted] == []
    assert account.state.memory is not None
    assert account.state.memory.windows == {}


def test_a_completion_is_judged_again_by_the_version_that_judged_its_order() -> None:
    rule = "rules:\n- {id: r, on: purchase, challenge: {sum: purchase.amount, gte: 100.00}, give: [{points: %d}]}\n"
    account, later = Account(rule % 7), Account(rule % 9)
    account.buy(1, START_MS, 10_000)
    account.buy(2, START_MS + 1, 10_000)
    for books, first, second in zip(account.books, account.judges, later.judges, strict=True):
        books._judge = lambda version, one=first, two=second: one if version == 1 else two  # type: ignore[misc] # noqa: SLF001
        second.version = 2
    account.judges = later.judges
    account.give_back(1, 1, START_MS + 2)
    assert account.kept() == 7


LEVELS = """
tiers: {metric: status, window: calendar_year, levels: [{id: a, from: 0}, {id: b, from: 20}, {id: c, from: 60}]}
rules:
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: b, on: tier, when: {tier.to: b}, give: [{points: 100}, {status: 5}]}
- {id: c, on: tier, when: {tier.to: c}, give: [{points: 1000}, {badge: B}]}
- {id: fell, on: tier, when: {tier.from: c}, give: [{points: 1}]}
"""


def test_no_level_stands_on_what_came_with_it() -> None:
    account = Account(LEVELS)
    account.buy(1, START_MS, 1_600)
    account.buy(2, START_MS + 1, 500)
    assert account.kept() == 100
    rewards = account.give_back(1, 2, START_MS + 2)  # 16 of the orders and 5 of the level would be enough
    assert [(each.posting.type, each.amount) for each in rewards] == [
        ("status.reversed", 5), ("points.reversed", 100), ("status.reversed", 5), ("tier.changed", 16),
    ]  # fmt: skip


def test_a_level_that_a_refund_leaves_gives_nothing_and_one_reached_again_does() -> None:
    account = Account(LEVELS)
    account.buy(1, START_MS, 5_000)
    account.buy(2, START_MS + 1, 5_000)
    assert account.kept() == 1_100
    account.give_back(1, 2, START_MS + 2)
    assert (account.kept(), account.kept("badge")) == (100, 0)
    account.buy(3, START_MS + 3, 900)
    assert (account.kept(), account.kept("badge")) == (1_100, 1)
    jumped = Account(LEVELS)
    jumped.buy(1, START_MS, 9_000)
    jumped.give_back(1, 1, START_MS + 1, 5_000)
    assert jumped.kept() == 0  # b was jumped over, and stays so


def test_what_a_review_takes_leaves_the_rewards() -> None:
    account = Account(LEVELS)
    account.buy(1, START_MS, 9_000)
    place = Occurrence(event_identity("default", "tick"), 2, 0)
    rewards = advance("m", account.state, place, account.judges[0], account.books[0], START_MS + 1_000 * DAY_MS)
    assert [each.posting.type for each in rewards] == ["tier.changed", "points.granted"]
    assert account.state.tier_state is not None
    assert (account.state.tier_state.level, account.state.tier_state.reached) == ("a", [])


def test_an_operators_minus_of_status_takes_the_level_with_its_rewards() -> None:
    account = Account(LEVELS)
    account.buy(1, START_MS, 7_000)
    account.take(
        Decision(
            event_id="d",
            member_id="m",
            occurred_at=START_MS + 1,
            action="adjust",
            amount=-15,
            unit="status",
            reason="x",
        )
    )
    assert account.kept() == 0


def test_why_tells_what_a_refund_has_completed_again() -> None:
    programme = load_programme(
        HEAD + "rules:\n- {id: r, on: purchase, challenge: {sum: purchase.amount, gte: 100.00}, give: [{points: 7}]}\n",
        "p",
    ).programme
    assert programme is not None
    state = MemberState()
    explainer = Explainer(programme, 1)
    books = MemoryBooks(lambda _: explainer)

    # either order completes the challenge; the first does, and is returned
    events: list[Any] = [
        Purchase(
            event_id=f"p{n}", member_id="m", occurred_at=START_MS + n, order_id=f"o{n}", currency="EUR", amount=10_000
        )
        for n in (1, 2)
    ]
    events.append(Refund(event_id="r", member_id="m", occurred_at=START_MS + 3, order_id="o1", refund_id="r"))

    # only the refund is explained
    for number, event in enumerate(events):
        if isinstance(event, Purchase):
            books.record(event, 1)
        else:
            explainer.explained = []
        fold(state, event, Occurrence(event_identity("default", event.event_id), number, 0), explainer, books)
    (explanation,) = explainer.explained
    assert (explanation.rule, explanation.completed, explanation.sentence) == ("r", True, "r: gave 7 points")
