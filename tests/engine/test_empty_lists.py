"""An empty list or map counts as missing, in whichever field, for both ways of judging and for explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.explain.event import Explainer
from engine.intake.admit import check
from engine.member.profile import profile_after
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.rules.occurrence import Occurrence
from schemas.events import Item, Profile, Purchase, Refund, Signup, Tender
from schemas.json_events import event_from_object
from tests.engine.in_memory import balance, event, judged
from tests.programme_text import written

if TYPE_CHECKING:
    from engine.programme.rules.judge import Judge
    from schemas.events import Event
    from schemas.rewards import RewardEvent

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: EUR\nsegments: {buyer: {time.month: {gte: 1}}}\n"
TESTS = (
    "purchase.coupons: {exists: true}", "purchase.coupons: {exists: false}", "purchase.coupons: {contains: A}",
    "purchase.coupons: {contains_any: [A, B]}", "purchase.coupons: {contains_all: [A, B]}",
    "not: {purchase.coupons: {contains: A}}", "not: {purchase.coupons: {exists: true}}",
    "purchase.categories: {exists: true}", "purchase.brands: {exists: false}", "purchase.skus: {contains: a}",
    "not: {purchase.brands: {contains_any: [x]}}", "purchase.units: {exists: false}", "purchase.units: {gte: 0}",
    "items: {some: {category: food}}", "items: {all: {category: food}}", "items: {none: {category: food}}",
    "items: {sum: amount, gte: 0.00}", "purchase.tender.card: 0.00", "purchase.tender.card: {gt: 0.00}",
    "event.attributes.x: {exists: true}", "event.attributes.x: {ne: a}", "event.attributes.x: {not_in: [a, b]}",
    "purchase.attributes.x: {exists: false}",
)  # fmt: skip
OF_SIGNUPS = (
    "signup.identity.email: {exists: false}", "signup.identity.email: {ne: a}", "signup.identity.email: {not_in: [a]}",
    "signup.attributes.x: {exists: true}", "signup.attributes.x: {not_in: [a]}",
)  # fmt: skip
LIMITS = ("[{times: 1, per: [member, purchase.coupons]}]", "[{times: 1, per: member}]")


def programme(rules: str) -> tuple[Judge, Judge]:
    checked = load_programme(f"{HEAD}rules:\n{rules}", "p.yaml")
    assert checked.programme is not None, "\n".join(map(str, checked.problems))
    return compile_programme(checked.programme, 1), Interpreter(checked.programme, 1)


def emptied(event: Event) -> Event:
    """Return the event with an empty list or map wherever it has none."""
    empty: dict[str, Any] = {"coupons": (), "tenders": (), "items": (), "attributes": {}, "identity": {}}
    fields = {name: value for name, value in empty.items() if getattr(event, name, 0) is None}
    return structs.replace(event, **fields)


def outcome(judge: Judge, event: Event, state: MemberState) -> list[RewardEvent]:
    return list(judge.rewards_for(event, state, Occurrence(b"i" * 32, 1, 0)))


lines = st.lists(
    st.builds(
        Item, line_id=st.just("1"), sku=st.sampled_from("ab"), quantity=st.just("1"), amount=st.just(100),
        category=st.none() | st.just("food"), brand=st.none() | st.just("x"),
    ),
    min_size=1, max_size=2,
).map(tuple)  # fmt: skip
purchases = st.builds(
    Purchase, event_id=st.just("e"), member_id=st.just("m"), occurred_at=st.just(1_700_000_000_000),
    order_id=st.just("o"), currency=st.just("EUR"), amount=st.just(100),
    coupons=st.none() | st.lists(st.sampled_from("ABC"), min_size=1, max_size=2).map(tuple),
    tenders=st.none() | st.just((Tender(kind="card", amount=100),)),
    attributes=st.none() | st.just({"x": "a"}), items=st.none() | lines,
)  # fmt: skip
signups = st.builds(
    Signup, event_id=st.just("e"), member_id=st.just("m"), occurred_at=st.just(1_700_000_000_000),
    identity=st.none() | st.just({"email": "a"}), attributes=st.none() | st.just({"x": "a"}),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TESTS), st.sampled_from(LIMITS), st.lists(purchases, min_size=1, max_size=3))
def test_an_order_with_empty_lists_is_judged_as_one_without(test: str, limits: str, orders: list[Purchase]) -> None:
    judges = programme(
        written(
            "- {id: r, on: purchase, when: {$test}, give: [{points: 1}], limits: $limits}", test=test, limits=limits
        )
    )
    for judge in judges:
        one, other = MemberState(), MemberState()
        for order in orders:
            assert outcome(judge, order, one) == outcome(judges[0], emptied(order), other)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(OF_SIGNUPS), signups)
def test_a_signup_with_empty_maps_is_judged_as_one_without(test: str, signup: Signup) -> None:
    judges = programme(written("- {id: r, on: signup, when: {$test}, give: [{points: 1}]}", test=test))
    answers = [outcome(judge, each, MemberState()) for judge in judges for each in (signup, emptied(signup))]
    assert all(answer == answers[0] for answer in answers)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TESTS), purchases)
def test_the_same_is_told_of_both(test: str, order: Purchase) -> None:
    rule = written("- {id: r, on: purchase, when: {$test}, give: [{points: 1}]}", test=test)
    explainer = Explainer(programme(rule)[1].programme, 1)
    explanations = []
    for each in (order, emptied(order)):
        outcome(explainer, each, MemberState())
        explanations.append(explainer.explained)
    assert explanations[0] == explanations[1]


def test_a_line_without_a_brand_names_none() -> None:
    order = Purchase(
        event_id="e", member_id="m", occurred_at=1_700_000_000_000, order_id="o", currency="EUR", amount=100,
        items=(Item(line_id="1", sku="a", quantity="1", amount=100),),
    )  # fmt: skip
    for test, holds in (("{exists: false}", True), ("{exists: true}", False), ("{contains: x}", False)):
        for judge in programme(
            written("- {id: r, on: purchase, when: {purchase.brands: $test}, give: [{points: 1}]}", test=test)
        ):
            assert bool(outcome(judge, order, MemberState())) is holds


def test_a_member_in_no_segment_has_none() -> None:
    never = HEAD.replace("{gte: 1}", "{gte: 12}")
    for test, holds in (("{exists: false}", True), ("{exists: true}", False), ("{contains_any: [buyer]}", False)):
        rule = written("rules:\n- {id: r, on: purchase, when: {member.segment: $test}, give: [{points: 1}]}", test=test)
        programme = load_programme(never + rule, "p.yaml").programme
        assert programme is not None
        order = Purchase(
            event_id="e", member_id="m", occurred_at=1_700_000_000_000, order_id="o", currency="EUR", amount=100
        )
        for judge in (compile_programme(programme, 1), Interpreter(programme, 1)):
            assert bool(outcome(judge, order, MemberState())) is holds


ORDER = event(3, "purchase", "ann", "2026-03-01", order_id="o", currency="EUR", amount=1000)
BACK = event(4, "refund", "ann", "2026-03-02", order_id="o", refund_id="r")
RULES = """referral: {}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- id: friend
  on: referral
  when: {referral.event: purchase}
  give: [{points: {rate: 1, per: 1.00, of: referral.amount}}]
"""


@pytest.mark.parametrize(
    ("fields", "left"), [({"items": []}, 0), ({"items": [], "amount": 400}, 6), ({"amount": 400}, 6), ({}, 0)]
)
def test_a_refund_with_an_empty_list_of_lines_is_one_without(fields: dict[str, Any], left: int) -> None:
    joined = [event(1, "signup", "bob", "2026-02-01"), event(2, "signup", "ann", "2026-02-02", referrer_id="bob")]
    document = judged(RULES, [*joined, ORDER, BACK | fields])
    assert [balance(document, who)["available"] for who in ("ann", "bob")] == [left, left]


def test_what_names_no_line_need_not_add_up() -> None:
    check(event_from_object(ORDER | {"items": []}), currency="EUR", latest_ms=None)
    check(Refund(event_id="r", member_id="m", occurred_at=1_700_000_000_000, order_id="o", refund_id="r", amount=1,
                 items=()), currency="EUR", latest_ms=None)  # fmt: skip


def test_a_profile_with_an_empty_map_tells_nothing() -> None:
    profile = Profile(event_id="f", member_id="m", occurred_at=1, attributes={"city": "Oslo"})
    known = profile_after(None, profile)
    assert profile_after(known, structs.replace(profile, attributes={})) == known
