"""The fold: what an event gives, what limits let through, and what a member's state remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import msgpack

from engine.member.state import LimitUse, MemberState, is_full, turn_page
from engine.programme.compile.module import compile_programme
from engine.programme.interpret.interpreter import Interpreter
from schemas.canonical import event_identity, grant_key, refusal_key
from schemas.events import INT64_MAX, Erasure, Purchase, Refund, Share, Signup
from schemas.rewards import Posting, RewardEvent
from schemas.scalars import instant_from_iso
from tests.engine.books import PagedBooks
from tests.engine.one_member import OneMember
from tests.programme_text import head, loaded, rules, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge

    MakeJudge = Callable[[Programme, int], Judge]

BASE = "{id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]"
A_HUNDRED_A_DAY = BASE + ", limits: [{max: 100, per: member, every: day}]}"
DAY_MS = 86_400_000


@pytest.fixture(params=[compile_programme, Interpreter], ids=["compiled", "interpreted"])
def make_judge(request: pytest.FixtureRequest) -> MakeJudge:
    made: MakeJudge = request.param
    return made


class Member(OneMember):
    """Fold events into one member whose uses of limits turn their pages, by rules given as text."""

    def __init__(self, make_judge: MakeJudge, *each: str, timezone: str = "UTC", version: int = 1) -> None:
        self._make_judge, self._timezone = make_judge, timezone
        super().__init__(self._judge(each, version))
        self._pages = PagedBooks(self.judges.__getitem__)
        self.books = self._pages

    def _judge(self, each: tuple[str, ...], version: int) -> Judge:
        return self._make_judge(loaded(head(self._timezone) + rules(*each)), version)

    def activate(self, *each: str, version: int) -> None:
        self.judge = self.judges[version] = self._judge(each, version)

    def settle(self) -> None:
        if is_full(self.state):
            turn_page(self.state)
        self._pages.turn(self.state)

    def buy(self, amount: int, at: str = "2024-03-01T10:00:00Z", **fields: Any) -> list[tuple[str, int, str | None]]:
        rewards = self.take(purchase(amount, at, **fields))
        return [(r.posting.rule_id or "", r.amount, r.posting.reason) for r in rewards]


def purchase(amount: int, at: str = "2024-03-01T10:00:00Z", **fields: Any) -> Purchase:
    given = {"event_id": "e", "member_id": "m", "order_id": "o", "currency": "USD"} | fields
    return Purchase(amount=amount, occurred_at=instant_from_iso(at, "at"), **given)


def test_a_grant_says_all_that_the_log_needs(make_judge: MakeJudge) -> None:
    gives = "[{points: 5}, {points: {rate: 1, per: 1.00, of: purchase.amount}}]"
    rule = written("{id: base, on: purchase, campaign: spring, give: $gives}", gives=gives)
    first, second = Member(make_judge, rule, version=7).take(purchase(1999))
    posting = Posting(
        type="points.granted", unit="points", debit="issued", credit="active",
        rule_id="base", rule_version=7, campaign="spring",
    )  # fmt: skip
    at_ms = instant_from_iso("2024-03-01T10:00:00Z", "at")
    identity = event_identity("default", "e")
    assert first == RewardEvent(posting, 5, grant_key(identity, "base", "m", 0), at_ms, "o", None, at_ms)
    assert second == RewardEvent(posting, 19, grant_key(identity, "base", "m", 1), at_ms, "o", None, at_ms, None, 1)


def test_an_event_without_an_order_gives_without_one(make_judge: MakeJudge) -> None:
    member = Member(
        make_judge, "{id: hello, on: signup, give: [{points: 5}]}", "{id: s, on: share, give: [{points: 1}]}"
    )
    (hello,) = member.take(Signup(event_id="e", member_id="m", occurred_at=5))
    (share,) = member.take(Share(event_id="f", member_id="m", occurred_at=6, object="x", channel="link"))
    assert (hello.order_id, hello.amount, share.order_id, share.amount) == (None, 5, None, 1)


def test_higher_priority_goes_first_and_ties_go_by_id(make_judge: MakeJudge) -> None:
    member = Member(
        make_judge,
        "{id: b, on: purchase, give: [{points: 1}]}",
        "{id: z, on: purchase, priority: 5, give: [{points: 2}]}",
        "{id: a, on: purchase, give: [{points: 3}]}",
        "{id: y, on: purchase, priority: -1, give: [{points: 4}]}",
    )
    assert [rule for rule, *_ in member.buy(1)] == ["z", "a", "b", "y"]


@pytest.mark.parametrize(
    ("rounding", "cents", "points"),
    [
        ("floor", 1999, 29), ("floor", 1900, 28), ("half_up", 1900, 29), ("half_up", 1899, 28), ("ceil", 1900, 29),
        ("ceil", 1, 1), ("ceil", 0, None), ("floor", 66, None), ("floor", 67, 1), ("half_up", 33, None),
        ("half_up", 34, 1),
    ],
)  # fmt: skip
def test_a_rate_is_rounded_once(make_judge: MakeJudge, rounding: str, cents: int, points: int | None) -> None:
    rule = written(
        "{id: r, on: purchase, give: [{points: {rate: 1.5, per: 1.00, of: purchase.amount, round: $rounding}}]}",
        rounding=rounding,
    )
    assert Member(make_judge, rule).buy(cents) == ([] if points is None else [("r", points, None)])


def test_no_amount_passes_through_a_float(make_judge: MakeJudge) -> None:
    rule = "{id: r, on: purchase, give: [{points: {rate: 0.29, per: 1.00, of: purchase.amount}}]}"
    assert Member(make_judge, rule).buy(10_000) == [("r", 29, None)]
    assert Member(make_judge, BASE + "}").buy(INT64_MAX) == [("base", INT64_MAX // 100, None)]


def test_a_missing_basis_gives_nothing(make_judge: MakeJudge) -> None:
    rule = "{id: r, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.tax}}]}"
    assert Member(make_judge, rule).buy(500) == []
    assert Member(make_judge, rule).buy(500, tax=200) == [("r", 2, None)]


def test_an_award_beyond_64_bits_is_refused_and_uses_no_limit(make_judge: MakeJudge) -> None:
    rule = (
        "{id: r, on: purchase, give: [{points: {rate: 2, per: 0.01, of: purchase.amount}}],"
        " limits: [{times: 1, per: member, every: day}]}"
    )
    member = Member(make_judge, rule)
    assert member.buy(INT64_MAX) == [("r", INT64_MAX, "out_of_range")]
    assert member.buy(1) == [("r", 2, None)]
    assert member.buy(1) == [("r", 2, "limit_times")]


def test_the_largest_award_is_given_and_one_more_is_refused(make_judge: MakeJudge) -> None:
    rule = "{id: r, on: purchase, give: [{points: {rate: 7, per: 0.01, of: purchase.amount}}]}"
    assert INT64_MAX % 7 == 0
    assert Member(make_judge, rule).buy(INT64_MAX // 7) == [("r", INT64_MAX, None)]
    assert Member(make_judge, rule).buy(INT64_MAX // 7 + 1) == [("r", INT64_MAX, "out_of_range")]


@pytest.mark.parametrize("test", ["{gt: 0}", "{gte: 0}", "{lt: 9}", "{lte: 9}", "0", "[0, 1]", "{gte: 0, lte: 9}"])
def test_a_missing_field_makes_a_test_false(make_judge: MakeJudge, test: str) -> None:
    member = Member(
        make_judge, written("{id: r, on: purchase, when: {purchase.tax: $test}, give: [{points: 1}]}", test=test)
    )
    assert member.buy(1) == []
    assert len(member.buy(1, tax=0)) == (0 if test == "{gt: 0}" else 1)


def test_an_attribute_is_read_by_its_name(make_judge: MakeJudge) -> None:
    member = Member(make_judge, "{id: r, on: purchase, when: {event.attributes.till: 7}, give: [{points: 1}]}")
    assert member.buy(1) == member.buy(1, attributes={"tilt": "7"}) == member.buy(1, attributes={"till": "8"}) == []
    assert member.buy(1, attributes={"till": "7"}) == [("r", 1, None)]


def test_a_limit_trims_and_the_rest_is_refused(make_judge: MakeJudge) -> None:
    member = Member(make_judge, A_HUNDRED_A_DAY)
    assert member.buy(6_000) == [("base", 60, None)]
    assert member.buy(6_000) == [("base", 40, None), ("base", 20, "limit_max")]
    assert member.buy(6_000) == [("base", 60, "limit_max")]
    assert member.buy(6_000, "2024-03-02T00:00:00Z") == [("base", 60, None)]


def test_a_refusal_is_no_movement_and_has_its_own_key(make_judge: MakeJudge) -> None:
    grant, refusal = Member(make_judge, A_HUNDRED_A_DAY).take(purchase(12_345))
    posting = Posting(type="reward.refused", unit="points", rule_id="base", rule_version=1, reason="limit_max")
    key = refusal_key(event_identity("default", "e"), "base", "m", 0, "limit_max")
    assert grant.amount == 100
    assert refusal == RewardEvent(posting, 23, key, grant.occurred_at_ms, "o")


def test_a_limit_may_refuse_what_does_not_fit(make_judge: MakeJudge) -> None:
    member = Member(make_judge, BASE + ", limits: [{max: 100, per: member, every: day, over: refuse}]}")
    assert member.buy(6_000) == [("base", 60, None)]
    assert member.buy(6_000) == [("base", 60, "limit_max")]
    assert member.buy(4_000) == [("base", 40, None)]


def test_times_counts_how_often_a_rule_gives(make_judge: MakeJudge) -> None:
    rule = "{id: r, on: purchase, give: [{points: 5}, {points: 2}], limits: [{times: 2, per: member, every: day}]}"
    member = Member(make_judge, rule)
    assert member.buy(1) == member.buy(1) == [("r", 5, None), ("r", 2, None)]
    assert member.buy(1) == [("r", 5, "limit_times"), ("r", 2, "limit_times")]


def test_an_award_of_nothing_uses_no_limit(make_judge: MakeJudge) -> None:
    member = Member(make_judge, BASE + ", limits: [{times: 1, per: member, every: day}]}")
    assert member.buy(99) == []
    assert member.state.limits == {}
    assert member.buy(100) == [("base", 1, None)]


def test_two_limits_of_a_rule_both_hold(make_judge: MakeJudge) -> None:
    limits = "[{max: 100, per: member, every: day}, {times: 2, per: member, every: day}]"
    member = Member(make_judge, written("$base, limits: $limits}", base=BASE, limits=limits))
    assert member.buy(9_000) == [("base", 90, None)]
    assert member.buy(9_000) == [("base", 10, None), ("base", 80, "limit_max")]
    assert member.buy(9_000) == [("base", 90, "limit_times")]


def test_the_gives_of_a_rule_share_its_limit(make_judge: MakeJudge) -> None:
    rule = "{id: r, on: purchase, give: [{points: 60}, {points: 60}], limits: [{max: 100, per: member, every: day}]}"
    assert Member(make_judge, rule).buy(1) == [("r", 60, None), ("r", 40, None), ("r", 20, "limit_max")]


def test_a_day_is_a_local_day(make_judge: MakeJudge) -> None:
    member = Member(make_judge, A_HUNDRED_A_DAY, timezone="Asia/Shanghai")
    assert member.buy(10_000, "2024-03-05T15:59:59.999Z") == [("base", 100, None)]
    assert member.buy(10_000, "2024-03-05T16:00:00Z") == [("base", 100, None)]
    assert member.buy(10_000, "2024-03-06T15:59:59Z") == [("base", 100, "limit_max")]


def test_a_late_event_counts_in_its_own_day(make_judge: MakeJudge) -> None:
    member = Member(make_judge, A_HUNDRED_A_DAY)
    member.buy(7_000, "2024-03-01T10:00:00Z")
    member.buy(5_000, "2024-03-08T10:00:00Z")
    assert member.buy(9_000, "2024-03-01T23:00:00Z") == [("base", 30, None), ("base", 60, "limit_max")]
    assert member.buy(9_000, "2024-03-04T10:00:00Z") == [("base", 90, None)]
    assert member.buy(9_000, "2024-03-04T11:00:00Z") == [("base", 10, None), ("base", 80, "limit_max")]
    assert member.buy(9_000, "2024-03-08T11:00:00Z") == [("base", 50, None), ("base", 40, "limit_max")]
    (newest,), (ended,) = member.state.limits.values(), member.state.ended.values()
    assert [newest.period - use.period for use in ended] == [7, 4]


def test_a_late_event_of_a_week_ago_still_counts(make_judge: MakeJudge) -> None:
    member = Member(make_judge, A_HUNDRED_A_DAY)
    member.buy(1_000, "2024-03-08T23:59:59Z")
    assert member.buy(9_000, "2024-03-01T00:00:00Z") == [("base", 90, None)]
    assert member.buy(9_000, "2024-03-01T00:00:00Z") == [("base", 10, None), ("base", 80, "limit_max")]


def test_the_clock_never_moves_back(make_judge: MakeJudge) -> None:
    member = Member(make_judge, BASE + "}")
    member.buy(100, "2024-03-02T10:00:00Z")
    member.buy(100, "2024-03-01T10:00:00Z")
    assert member.state.clock_ms == instant_from_iso("2024-03-02T10:00:00Z", "at")
    member.take(Refund(event_id="r", member_id="m", occurred_at=member.state.clock_ms + 1, order_id="o", refund_id="r"))
    assert member.state.clock_ms == instant_from_iso("2024-03-02T10:00:00.001Z", "at")


def test_a_new_version_keeps_counting_and_keys_do_not_name_it(make_judge: MakeJudge) -> None:
    member = Member(make_judge, A_HUNDRED_A_DAY)
    (first,) = member.take(purchase(8_000))
    member.activate(A_HUNDRED_A_DAY.replace("100,", "90,"), version=2)
    second, _ = member.take(purchase(8_000))
    assert (second.amount, second.posting.rule_version, first.posting.rule_version) == (10, 2, 1)
    assert first.reward_key == second.reward_key
    member.activate(A_HUNDRED_A_DAY.replace("100,", "10,"), version=3)
    assert member.buy(8_000) == [("base", 80, "limit_max")]


def test_erasure_is_remembered(make_judge: MakeJudge) -> None:
    member = Member(make_judge, BASE + "}")
    assert member.take(Erasure(event_id="e", member_id="m", occurred_at=1)) == []
    assert member.state.erased


def test_a_state_survives_storage_and_stays_small(make_judge: MakeJudge) -> None:
    rules = [A_HUNDRED_A_DAY.replace("id: base", f"id: rule-number-{n}") for n in range(3)]
    member = Member(make_judge, *rules)
    first_ms = instant_from_iso("2024-01-01T10:00:00Z", "at")
    for day in range(400):
        member.take(Purchase(**{**_fields(), "occurred_at": first_ms + day * DAY_MS}))
    stored = msgpack.encode(member.state)
    assert msgpack.decode(stored, type=MemberState) == member.state
    assert len(stored) < 1_200


def _fields() -> dict[str, Any]:
    return {"event_id": "e", "member_id": "m", "order_id": "o", "currency": "USD", "amount": 20_000}


def test_a_state_that_was_stored_with_fewer_fields_can_be_read() -> None:
    stored = msgpack.encode([5, {"member:day:base": [19_000, 7, 1]}])
    assert msgpack.decode(stored, type=MemberState) == MemberState(5, {"member:day:base": LimitUse(19_000, 7, 1)})
