"""The ledger judges any terms and events, in time, and its decisions can be stored."""

from __future__ import annotations

import random
from typing import Any

import pytest

from engine.evaluate import fold
from engine.intake import admit
from engine.ledger.forget import forget
from engine.programme.compile.module import compile_programme
from engine.store.logs.binary_copy import pack_timestamp
from engine.store.members.ledgers import encoded_parts
from engine.store.members.member_states import encode_state
from schemas.bounds import OCCURRED_AT_MS_FIRST
from schemas.events import INT64_MAX, Activity, Decision, Erasure, MemberEvent, Profile, Purchase, Redemption, Signup
from schemas.rejection import Rejected
from tests.engine.one_member import OneMember
from tests.programme_text import loaded, written
from tests.strategies.extremes import DAY_MS, event, next_ms, programme
from tests.system.load import START_MS

HEAD = """
schema: guerdon/1
programme: p
timezone: America/New_York
currency: USD
"""


class Stored(OneMember):
    """Fold one member's events in memory, and assert that each step can be stored."""

    def __init__(self, body: str) -> None:
        super().__init__(compile_programme(loaded(body), 1))
        self.keys: set[bytes] = set()

    def forget(self) -> None:
        """Forget what no event can need, as each transaction does."""
        forget(self.books.parts(), self.state, lambda _version: self.judge)

    def settle(self) -> None:
        assert encode_state(self.state)
        assert all(encoded_parts(self.books.parts()).values())
        for reward in self.latest:
            assert 0 <= reward.amount <= INT64_MAX
            assert reward.reward_key not in self.keys
            self.keys.add(reward.reward_key)
            for at_ms in (reward.occurred_at_ms, reward.available_at_ms, reward.expires_at_ms):
                assert pack_timestamp(at_ms)
        for lot in self.state.lots:
            assert min(lot.pending, lot.active, lot.reserved, lot.spent, lot.expired) >= 0
        assert self.state.due_ms is None or self.state.due_ms > self.state.clock_ms


def bought(number: int, at_ms: int, amount: int = 1_000) -> Purchase:
    head: dict[str, Any] = {"event_id": f"p{number}", "member_id": "m", "occurred_at": at_ms}
    return Purchase(**head, order_id=f"o{number}", currency="USD", amount=amount)


def admitted(event_: MemberEvent | Profile) -> bool:
    try:
        admit.check(event_, currency="USD", latest_ms=None)
    except Rejected:
        return False
    return True


@pytest.mark.parametrize("seed", range(30))
def test_no_terms_and_no_event_bring_about_what_cannot_be_stored(seed: int) -> None:
    """Amounts of 2^63 - 1 again and again, times from 1972 to 2999, windows from a minute to a hundred years."""
    rng = random.Random(seed)  # noqa: S311  a test must repeat
    member, orders = Stored(programme(rng)), set[str]()
    at_ms = rng.choice([OCCURRED_AT_MS_FIRST, START_MS, 32_503_680_000_000 - 10**10])

    for number in range(50):
        at_ms = next_ms(rng, at_ms)
        happened = event(rng, number, at_ms)
        if not admitted(happened) or (getattr(happened, "order_id", None) in orders and isinstance(happened, Purchase)):
            continue

        if isinstance(happened, Purchase):
            orders.add(happened.order_id)
        if rng.random() < 0.2:
            member.tick(at_ms)
        member.take(happened)
        if rng.random() < 0.3:
            member.forget()

    # everything open lapses at once
    member.take(Erasure(event_id="gone", member_id="m", occurred_at=at_ms))


def test_a_member_of_20_000_open_lots_is_released_and_expires_in_seconds() -> None:
    """Each at an instant of its own; looking at every lot for each of them took 40 s for 4,000 lots."""
    rule = "- {id: r, on: purchase, hold: 14d, give: [{points: 7}, {benefit: {id: lounge, for: 60d}}]}"
    member = Stored(written("${head}points: {validity: 90d}\nrules:\n$rule\n", head=HEAD, rule=rule))
    for number in range(10_000):
        fold(
            member.state,
            bought(number, START_MS + number),
            member.place("default", f"p{number}", START_MS),
            member.judge,
            member.books,
        )
    rewards = member.tick(START_MS + 120 * DAY_MS)
    assert len(rewards) == 4 * 10_000
    assert [lot for lot in member.state.lots if lot.is_open] == []
    assert member.state.memory is not None
    assert member.state.memory.possessed == {}


def test_thirty_idle_years_are_made_up_for_in_order() -> None:
    rule = "- {id: r, on: birthday, give: [{points: {amount: 12, validity: 1mo}}]}"
    member = Stored(f"{HEAD}rules:\n{rule}\n")
    member.take(Signup(event_id="s", member_id="m", occurred_at=START_MS, birthday="1980-02-29"))
    rewards = member.tick(START_MS + 30 * 366 * DAY_MS)
    assert [reward.posting.type for reward in rewards] == ["points.granted", "points.expired"] * 30
    assert [reward.occurred_at_ms for reward in rewards] == sorted(reward.occurred_at_ms for reward in rewards)


TIERS = """
tiers:
  metric: status
  window: {window}
  downgrade: {downgrade}
  grace: {grace}
  levels: [{{id: low, from: 0}}, {{id: mid, from: 50}}, {{id: high, from: 100}}]
"""


@pytest.mark.parametrize("grace", ["none", "5d"])
def test_a_rolling_tier_that_falls_one_level_at_a_time_falls_on_at_the_sums_next_fall_or_a_window_later(
    grace: str,
) -> None:
    tiers = TIERS.format(window="rolling 30d", downgrade="one_down", grace=grace)
    rule = "- {id: r, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}"
    member = Stored(f"{HEAD}{tiers}rules:\n{rule}\n")
    member.take(bought(1, START_MS, 10_000))
    member.take(bought(2, START_MS + 20 * DAY_MS, 100))
    falls = [reward for reward in member.tick(START_MS + 200 * DAY_MS) if reward.posting.type == "tier.changed"]
    days = [(reward.occurred_at_ms - START_MS) // DAY_MS for reward in falls]
    assert [reward.posting.item for reward in falls] == ["mid", "low"]
    assert days == ([30, 50] if grace == "none" else [35, 55])


def test_a_rolling_tier_of_a_member_who_stopped_falls_one_level_a_window() -> None:
    tiers = TIERS.format(window="rolling 30d", downgrade="one_down", grace="none")
    rule = "- {id: r, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}"
    member = Stored(f"{HEAD}{tiers}rules:\n{rule}\n")
    member.take(bought(1, START_MS, 10_000))
    falls = member.tick(START_MS + 200 * DAY_MS)
    assert [(reward.posting.item, (reward.occurred_at_ms - START_MS) // DAY_MS) for reward in falls] == [
        ("mid", 30), ("low", 60),
    ]  # fmt: skip


@pytest.mark.parametrize("is_ticked", [False, True])
def test_status_given_for_a_birthday_or_a_level_counts_when_it_is_given_whether_a_tick_came_or_not(
    *, is_ticked: bool
) -> None:
    tiers = TIERS.format(window="lifetime", downgrade="never", grace="none")
    rules = (
        "- {id: b, on: birthday, give: [{status: 50}]}\n- {id: t, on: tier, when: {tier.to: mid}, give: [{status: 60}]}"
    )
    member = Stored(f"{HEAD}{tiers}rules:\n{rules}\n")
    member.take(Signup(event_id="s", member_id="m", occurred_at=START_MS, birthday="1990-06-01"))
    rewards = list(member.tick(START_MS + 60 * DAY_MS)) if is_ticked else []
    rewards += member.take(Activity(event_id="a", member_id="m", occurred_at=START_MS + 80 * DAY_MS, kind="login"))
    changes = [reward for reward in rewards if reward.posting.type == "tier.changed"]
    assert [(reward.posting.item, reward.amount) for reward in changes] == [("mid", 50), ("high", 110)]
    assert len({reward.occurred_at_ms for reward in changes}) == 1


def decided(number: int, **fields: Any) -> Decision:
    return Decision(event_id=f"d{number}", member_id="m", occurred_at=START_MS + number, **fields)


def test_nobody_owes_more_than_64_bits_hold() -> None:
    member = Stored(written("${head}rules:\n- {id: r, on: share, give: [{points: 1}]}\n", head=HEAD))
    turns = [member.take(decided(number, action="adjust", amount=-INT64_MAX)) for number in range(2)]
    assert [[(each.posting.type, each.posting.reason, each.amount) for each in rewards] for rewards in turns] == [
        [("points.reversed", "adjusted", INT64_MAX)], [("reward.refused", "out_of_range", INT64_MAX)],
    ]  # fmt: skip
    assert member.state.debts == {"points": INT64_MAX}


def test_an_opening_of_less_than_nothing_is_refused() -> None:
    member = Stored(written("${head}rules:\n- {id: r, on: share, give: [{points: 1}]}\n", head=HEAD))
    (refused,) = member.take(decided(1, action="opening", amount=-1))
    assert (refused.posting.type, refused.posting.reason, refused.amount) == ("reward.refused", "out_of_range", 1)


def test_a_correction_below_nothing_tells_a_level_of_0_and_the_next_gain_counts_from_where_it_is() -> None:
    tiers = TIERS.format(window="lifetime", downgrade="balance_based", grace="none")
    member = Stored(written("$head${tiers}rules:\n- {id: r, on: share, give: [{points: 1}]}\n", head=HEAD, tiers=tiers))
    amounts = (60, -500, 460)
    turns = [member.take(decided(n, action="adjust", amount=each, unit="status")) for n, each in enumerate(amounts)]
    changes = [each for rewards in turns for each in rewards if each.posting.type == "tier.changed"]
    assert [(each.posting.item, each.amount) for each in changes] == [("mid", 60), ("low", 0)]


def test_a_money_reward_is_worth_at_most_what_64_bits_hold() -> None:
    pay = "catalogue: [{id: pay, kind: money, points_per: {1: 92233720368547758.07}}]"
    member = Stored(written("$head$pay\nrules:\n- {id: r, on: share, give: [{points: 1}]}\n", head=HEAD, pay=pay))
    for number in range(3):
        member.take(decided(number, action="adjust", amount=INT64_MAX))
    head: dict[str, Any] = {"event_id": "x", "member_id": "m", "occurred_at": START_MS + 9}
    rewards = member.take(Redemption(**head, action="spend", redemption_id="x", reward="pay"))
    assert [(each.posting.type, each.amount) for each in rewards] == [("points.reserved", 1), ("points.captured", 1)]
