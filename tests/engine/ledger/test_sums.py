"""Sums over many events stop at 64 bits, are the same for both ways of judging, and can always be stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from engine.intake.own_events import Attribution
from engine.member.windows import Window
from engine.programme.compile.module import compile_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.referral.tracker import Tracker
from engine.store.members.ledgers import encoded_parts
from engine.store.members.member_states import encode_state
from schemas.events import INT64_MAX, Activity, Item, Purchase, Refund, Signup
from tests.engine.one_member import OneMember
from tests.programme_text import loaded
from tests.system.load import START_MS

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

    MakeJudge = Callable[[Programme, int], Judge]

PROGRAMME = """\
schema: guerdon/1
programme: sums
timezone: UTC
currency: USD
refunds: {window: 30d, negative: unlimited}
metrics:
  recent: {sum: purchase.amount, over: 30d}
  spend: {sum: purchase.amount}
  pieces: {sum: purchase.units, over: 30d}
  all_pieces: {sum: purchase.units}
  score: {sum: activity.score, over: 30d}
tiers:
  metric: status
  window: rolling 30d
  levels: [{id: a, from: 0}, {id: b, from: 9223372036854775807}]
rules:
- {id: recent, on: purchase, when: {history.recent: {gte: 92233720368547758.07}}, give: [{points: 1}]}
- {id: spend, on: purchase, when: {history.spend: {gte: 92233720368547758.07}}, give: [{points: 1}]}
- {id: pieces, on: purchase, when: {history.pieces: {gte: 1}, history.all_pieces: {gte: 1}}, give: [{points: 1}]}
- {id: of-history, on: purchase, give: [{points: {rate: 1, per: 1.00, of: history.recent}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 0.01, of: purchase.amount}}, {status: 9223372036854775807}]}
- {id: risen, on: tier, give: [{points: 1}, {status: 9223372036854775807}]}
- {id: much, on: purchase, give: [{points: 1}],
   challenge: {sum: purchase.amount, gte: 92233720368547758.07, within: 30d, repeat: after_completion}}
- {id: many, on: purchase, give: [{points: 1}],
   challenge: {sum: purchase.units, gte: 9, within: 30d, repeat: after_completion}}
- {id: ever, on: purchase, give: [{points: 1}],
   challenge: {sum: purchase.units, gte: 9, repeat: after_completion}}
- {id: often, on: purchase, give: [{points: 9223372036854775807}], limits: [{times: 100, per: member, every: 7d}]}
- {id: scored, on: activity, when: {history.score: {gte: 1}}, give: [{points: 1}]}
"""


class Member(OneMember):
    """Fold events into one member, and assert after each that the member can be stored."""

    def settle(self) -> None:
        assert encode_state(self.state)
        assert all(encoded_parts(self.books.parts()).values())
        assert all(0 <= reward.amount <= INT64_MAX for reward in self.latest)


@pytest.fixture(params=[compile_programme, Interpreter], ids=["compiled", "interpreted"])
def member(request: pytest.FixtureRequest) -> Member:
    return Member(request.param(loaded(PROGRAMME), 1))


def order(number: int, amount: int = INT64_MAX, lines: int = 0, after_ms: int = 0) -> Purchase:
    """Return a purchase; its lines, if any, have the largest possible quantity."""
    items = [
        Item(line_id=f"{at}", sku="s", quantity="999999999999.999999", amount=amount if at == 0 else 0)
        for at in range(lines)
    ]
    return Purchase(
        event_id=f"p{number}", member_id="m", occurred_at=START_MS + number * 1_000 + after_ms, order_id=f"o{number}",
        currency="USD", amount=amount, gross=amount, items=tuple(items) or None,
    )  # fmt: skip


def refund(number: int, amount: int | None = None) -> Refund:
    return Refund(
        event_id=f"r{number}", member_id="m", occurred_at=START_MS + 3_600_000 + number, order_id=f"o{number}",
        refund_id="r", amount=amount,
    )  # fmt: skip


def given_by(rewards: list[RewardEvent], rule: str) -> int:
    return sum(reward.posting.rule_id == rule and reward.posting.debit == "issued" for reward in rewards)


def test_a_metric_over_a_window_stops_at_the_most_that_can_be_stored(member: Member) -> None:
    given = [given_by(member.take(order(number)), "recent") for number in range(12)]
    assert given == [0] + [1] * 11, "the first purchase finds nothing, every later one at least the most"


def test_what_is_returned_lowers_a_sum_from_there_and_never_below_nothing(member: Member) -> None:
    for number in range(4):
        member.take(order(number))
    for number in range(4):
        member.take(refund(number))
    assert member.state.memory is not None
    (spend,) = [value for key, value in member.state.memory.counters.items() if key.startswith("spend")]
    (recent,) = [window for key, window in member.state.memory.windows.items() if key.startswith("recent")]
    assert spend == [0]
    assert sum(recent.amounts) == 0
    assert given_by(member.take(order(9)), "spend") == 0
    assert given_by(member.take(order(10)), "spend") == 1


def test_quantities_of_many_lines_add_up_beyond_64_bits(member: Member) -> None:
    for number in range(5):
        rewards = member.take(order(number, lines=60))
        assert (given_by(rewards, "many"), given_by(rewards, "ever")) == (1, 1)
    for number in range(5):
        member.take(refund(number))
    assert given_by(member.take(order(9, 100)), "recent") == 0


def test_status_of_one_event_may_be_more_than_can_be_stored(member: Member) -> None:
    rewards = member.take(order(0))
    assert any(reward.posting.type == "tier.changed" for reward in rewards)
    assert sum(reward.amount for reward in rewards if reward.posting.unit == "status") > 2 * INT64_MAX


def test_a_sum_of_scores_stays_within_what_can_be_stored_on_both_sides(member: Member) -> None:
    for number, score in enumerate([INT64_MAX] * 3 + [-INT64_MAX - 1] * 5):
        member.take(
            Activity(event_id=f"a{number}", member_id="m", occurred_at=START_MS + number, kind="survey", score=score)
        )


amounts = st.sampled_from((0, 1, 5, 2**62, INT64_MAX - 1, INT64_MAX))
steps = st.lists(
    st.tuples(
        st.sampled_from(("order", "refund", "lines")), st.integers(0, 5), amounts, st.integers(0, 40 * 86_400_000)
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_both_ways_of_judging_say_the_same_of_sums_at_their_edges(found: list[tuple[str, int, int, int]]) -> None:
    compiled, interpreted = (Member(make(loaded(PROGRAMME), 1)) for make in (compile_programme, Interpreter))
    for number, (kind, of, amount, after_ms) in enumerate(found):
        event: MemberEvent = (
            refund(of, amount or None) if kind == "refund" else order(number, amount, 30 * (kind == "lines"), after_ms)
        )
        assert compiled.take(event) == interpreted.take(event)
        assert encode_state(compiled.state) == encode_state(interpreted.state)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(-INT64_MAX, INT64_MAX)), max_size=30), st.integers(0, 100))
def test_a_window_says_no_sum_that_cannot_be_stored(entries: list[tuple[int, int]], until: int) -> None:
    window = Window()
    for at, amount in entries:
        window.enter(at, amount, 1, -1)
    within = [amount for at, amount in entries if at <= until]
    assert -INT64_MAX <= window.amount(-1, until) <= INT64_MAX
    assert window.amount(-1, until) == window.total(-1, until)[0]
    if all(abs(sum(part)) <= INT64_MAX for part in _prefixes(within)) and len({at for at, _ in entries}) == len(
        entries
    ):
        assert window.amount(-1, until) == sum(within)


def _prefixes(values: list[int]) -> list[list[int]]:
    return [values[:end] for end in range(len(values) + 1)]


def test_what_a_referee_spends_stops_at_the_most_that_can_be_stored() -> None:
    attributed = Attribution(event_id="a", member_id="m", occurred_at=START_MS, status="attributed", referrer_id="ann")
    tracker = Tracker.of(attributed, Signup(event_id="s", member_id="m", occurred_at=START_MS))
    orders: dict[str, Purchase] = {}
    spends: list[int] = []
    events: list[MemberEvent] = [order(number) for number in range(4)]
    events += [refund(number) for number in range(4)]
    for event in events:
        if isinstance(event, Purchase):
            orders[event.order_id] = event
        for forwarded in tracker.forward(event, orders.get, lambda at_ms: at_ms + 30 * 86_400_000):
            spends.append(forwarded.spend)
            assert msgpack.encode(forwarded)
        assert msgpack.encode(tracker)
    assert spends == [INT64_MAX] * 4 + [0] * 4
