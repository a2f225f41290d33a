"""Gives, stacking and limits: what a rule hands out, which rule a group picks, and what limits let through."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import msgpack

from engine.member.state import Memory, turn_uses
from engine.member.windows import ENTRIES_MAX, VALUES_MAX, Window
from engine.programme.file.give import ITEM_FORMS
from engine.programme.file.load import load_programme
from engine.programme.model import Cohort, Draw
from engine.programme.rules.cohorts import is_treated
from engine.programme.rules.draws import wins
from engine.programme.rules.occurrence import Occurrence
from schemas.events import Item, Purchase, Share
from schemas.rewards import ITEM_UNITS
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.engine.one_member import BothWays
from tests.programme_text import head, loaded, written

HEAD = head("America/New_York") + "rules:\n"
BASE = "{id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]"
HOUR_MS = 3_600_000


class Member(BothWays):
    """Fold events into one member, by rules given as text."""

    def __init__(self, *each: str) -> None:
        super().__init__(loaded(HEAD + "".join(f"- {rule}\n" for rule in each)))
        self.count = 0

    @property
    def memory(self) -> Memory:
        return self.states[0].remembering()

    def buy(
        self, amount: int, at: str = "2024-03-01T12:00:00Z", **fields: Any
    ) -> list[tuple[str, str, int, str | None]]:
        self.count += 1
        given: dict[str, Any] = {"event_id": f"e{self.count}", "member_id": "m", "order_id": "o", "currency": "USD"}
        event = Purchase(amount=amount, occurred_at=instant_from_iso(at, "at"), **(given | fields))
        return [(r.posting.rule_id or "", r.posting.unit, r.amount, r.posting.reason) for r in self.take(event)]


def gives(give: str, amount: int = 10_000, **fields: Any) -> list[tuple[str, int]]:
    return [
        (unit, award)
        for _, unit, award, _ in Member(written("{id: r, on: purchase, give: [$give]}", give=give)).buy(
            amount, **fields
        )
    ]


@pytest.mark.parametrize(
    ("give", "unit", "amount"),
    [
        ("{status: 7}", "status", 7), ("{status: {rate: 2, per: 1.00, of: purchase.amount}}", "status", 200),
        ("{cash: {amount: 10.00}}", "USD", 1000), ("{cash: {rate: 5%, of: purchase.amount}}", "USD", 500),
        ("{cash: {rate: 0.125%, of: purchase.amount}}", "USD", 12),
        ("{cash: {rate: 0.125%, of: purchase.amount, round: ceil}}", "USD", 13),
        ("{cash: {rate: 5%, of: purchase.amount, max: 2.00}}", "USD", 200),
        ("{cash: {rate: 150%, of: purchase.amount}}", "USD", 10_000),
        ("{cash: {rate: 150%, of: purchase.amount, max_share: 30%}}", "USD", 3_000),
        ("{coupon: T}", "coupon", 1), ("{gift: {sku: S, quantity: 3}}", "gift", 3), ("{badge: B}", "badge", 1),
        ("{points: {amount: 9, validity: none}}", "points", 9),
    ],
)  # fmt: skip
def test_each_give_has_its_unit_and_amount(give: str, unit: str, amount: int) -> None:
    assert gives(give) == [(unit, amount)]


def test_a_rule_can_give_every_unit_of_items() -> None:
    assert tuple(ITEM_FORMS) == ITEM_UNITS
    assert [gives(f"{{{unit}: thing}}") for unit in ITEM_UNITS] == [[(unit, 1)] for unit in ITEM_UNITS]


def test_a_part_of_the_lines_may_be_the_basis() -> None:
    lines = (
        Item(line_id="1", sku="a", category="food", quantity="2.5", amount=6000),
        Item(line_id="2", sku="b", quantity="1", amount=4000),
    )
    rated = "{points: {rate: 1, per: 1, of: purchase.%s, %s: {category: food}}}"
    assert gives(rated % ("amount", "only_items"), items=lines) == [("points", 60)]
    assert gives(rated % ("amount", "except_items"), items=lines) == [("points", 40)]
    assert gives(rated % ("units", "only_items"), items=lines) == [("points", 2)]
    assert gives(rated % ("amount", "only_items")) == []


def test_what_is_handed_out_is_no_movement_and_names_its_item_and_end() -> None:
    member = Member("{id: r, on: share, give: [{coupon: {template: T, valid: 1mo}}, {benefit: {id: vip, for: 30d}}]}")
    at_ms = instant_from_iso("2024-01-31T17:00:00Z", "at")
    coupon, benefit = member.take(Share(event_id="e", member_id="m", occurred_at=at_ms, object="x", channel="link"))
    assert (coupon.posting.type, coupon.posting.item, coupon.posting.debit) == ("coupon.issued", "T", None)
    assert iso_from_instant(coupon.expires_at_ms or 0) == "2024-02-29T17:00:00Z"
    assert (benefit.posting.type, benefit.posting.item) == ("benefit.granted", "vip")
    assert member.memory.possessed == {"vip": benefit.expires_at_ms}


def test_multipliers_add_on_what_earlier_phases_gave_after_their_limits() -> None:
    member = Member(
        BASE + ", limits: [{max: 100, per: member, every: day}]}",
        "{id: half, on: purchase, phase: boost, give: [{multiply: {phase: base, by: 1.5}}]}",
        "{id: both, on: purchase, phase: bonus,"
        " give: [{multiply: {phase: base, by: 2}}, {multiply: {phase: boost, by: 2}}]}",
        "{id: key, on: purchase, phase: bonus, give: [{multiply: {phase: base, key: purchase.store, by: {s1: 1.25}}}]}",
    )
    assert [row[2:] for row in member.buy(30_100, store="s1")] == [
        (100, None), (201, "limit_max"), (50, None), (100, None), (50, None), (25, None),
    ]  # fmt: skip
    assert [row[2:] for row in member.buy(100, "2024-03-02T12:00:00Z")] == [(1, None), (1, None)]


def test_a_group_gives_where_its_picked_rule_stands() -> None:
    group = "group: {id: g, pick: best}"
    member = Member(
        written(
            "{id: a, on: purchase, priority: 9, $group, give: [{points: 50}],"
            " limits: [{max: 60, per: member, every: day}]}",
            group=group,
        ),
        "{id: between, on: purchase, priority: 5, give: [{points: 1}]}",
        written("{id: c, on: purchase, $group, give: [{points: 20}, {status: 1000}]}", group=group),
    )
    assert [row[0] for row in member.buy(1)] == ["a", "between"]
    assert [row[0] for row in member.buy(1)] == ["between", "c", "c"]  # only 10 are left to a


def test_a_lost_group_uses_no_limit_and_ties_go_by_priority_and_id() -> None:
    group = "group: {id: g, pick: best}, give: [{points: 5}], limits: [{times: 1, per: member, every: day}]"
    member = Member(
        written("{id: b, on: purchase, $group}", group=group), written("{id: a, on: purchase, $group}", group=group)
    )
    assert [row[0] for row in member.buy(1)] == ["a"]
    assert [row[0] for row in member.buy(1)] == ["b"]


def test_a_rule_is_judged_from_its_first_instant_to_before_its_last() -> None:
    member = Member("{id: r, on: purchase, active: {from: 2024-03-10, until: 2024-03-11}, give: [{points: 1}]}")
    instants = ["2024-03-10T04:59:59Z", "2024-03-10T05:00:00Z", "2024-03-11T03:59:59Z", "2024-03-11T04:00:00Z"]
    assert [len(member.buy(1, at)) for at in instants] == [0, 1, 1, 0]


def test_a_control_member_is_refused_once_a_rule() -> None:
    member = Member("{id: r, on: purchase, cohort: {salt: s, treat: 0%}, give: [{points: 7}]}")
    assert member.buy(1) == [("r", "cohort", 1, None), ("r", "points", 7, "cohort_control")]
    assert member.buy(1) == []


def test_cohorts_and_draws_are_the_documented_hashes() -> None:
    members = [f"m{n}" for n in range(2_000)]
    assert 900 < sum(is_treated(Cohort("s", 5_000), member) for member in members) < 1_100
    assert not any(is_treated(Cohort("s", 0), member) for member in members)
    assert all(is_treated(Cohort("s", 10_000), member) for member in members)
    assert 150 < sum(wins(Draw("s", 1, 10), "r", "default", member) for member in members) < 250
    assert all(wins(Draw("s", 1, 1), "r", "default", member) for member in members)


@pytest.mark.parametrize(
    ("every", "last", "first"),
    [
        ("day", "2024-03-11T03:59:59Z", "2024-03-11T04:00:00Z"),
        ("week", "2024-03-11T03:59:59Z", "2024-03-11T04:00:00Z"),
        ("month", "2024-04-01T03:59:59Z", "2024-04-01T04:00:00Z"),
        ("quarter", "2024-04-01T03:59:59Z", "2024-04-01T04:00:00Z"),
        ("year", "2025-01-01T04:59:59Z", "2025-01-01T05:00:00Z"),
        # Rolling windows are open at their beginning: a day by the wall, hours exactly.
        ("1d", "2024-03-11T15:59:59.999Z", "2024-03-11T16:00:00Z"),
        ("24h", "2024-03-11T15:59:59Z", "2024-03-11T16:00:00Z"),
        ("1mo", "2024-04-10T15:59:59Z", "2024-04-10T16:00:00Z"),
    ],
)  # fmt: skip
def test_a_period_ends_where_the_calendar_says(every: str, last: str, first: str) -> None:
    member = Member(BASE + written(", limits: [{max: 100, per: member, every: $every}]}", every=every))
    began = "2024-03-10T16:00:00Z"
    assert member.buy(7_000, began) == [("base", "points", 70, None)]
    assert member.buy(7_000, last) == [("base", "points", 30, None), ("base", "points", 40, "limit_max")]
    assert member.buy(7_000, first)[0][2] == 70


def test_a_limit_for_life_and_per_value_of_a_field() -> None:
    member = Member(BASE + ", limits: [{times: 1, per: [member, purchase.store]}]}")
    assert [member.buy(100, store=store)[0][3] for store in ("a", "b", "a", None, None)] == [
        None, None, "limit_times", None, "limit_times",
    ]  # fmt: skip


def test_a_limit_caps_the_unit_that_it_names() -> None:
    member = Member(
        "{id: r, on: purchase, give: [{points: 60}, {cash: {amount: 3.00}}],"
        " limits: [{max: 5.00, unit: cash, per: member}, {max: 100, unit: points, per: member, over: refuse}]}"
    )
    assert [row[1:] for row in member.buy(1)] == [("points", 60, None), ("USD", 300, None)]
    assert [row[1:] for row in member.buy(1)] == [
        ("points", 60, "limit_max"), ("USD", 200, None), ("USD", 100, "limit_max"),
    ]  # fmt: skip


def test_a_busy_members_state_is_bounded() -> None:
    member = Member(
        BASE + ", limits: [{max: 1000000, per: member, every: 90d}, {times: 9999, per: [member, purchase.store]}]}"
    )
    judge = member.members[0].judge
    for n in range(5_000):
        event = Purchase(
            event_id=f"e{n}", member_id="m", order_id="o", currency="USD", amount=100, store=f"s{n}",
            occurred_at=1_709_942_400_000 + n * HOUR_MS // 60,
        )  # fmt: skip
        judge.rewards_for(event, member.states[0], Occurrence(b"i" * 32, 1, 0))

    # windows merge entries, and old values leave the state
    memory = member.memory
    (window,), (values,) = memory.windows.values(), memory.value_limits.values()
    assert len(window.instants) <= ENTRIES_MAX
    assert sum(window.amounts) == 5_000
    assert len(values) == VALUES_MAX
    turned = turn_uses(member.states[0], 0)
    assert turned is not None
    assert len(turned) == 5_000 - VALUES_MAX
    assert len(msgpack.encode(member.states[0])) < 10_000


def test_a_merged_window_never_forgets_early() -> None:
    window = Window()
    for at_ms in range(10_000):
        window.enter(at_ms, 1, 1, -1)
    for from_ms in range(0, 10_000, 97):
        assert window.total(from_ms, 10_000)[0] >= 9_999 - from_ms
    assert window.total(-1, 10_000) == (10_000, 10_000)


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("give: [{multiply: {phase: base, by: 2}}]", "contradiction"),
        ("phase: boost, give: [{multiply: {phase: base, by: 0.5}}]", "out_of_range"),
        ("phase: boost, give: [{multiply: {phase: base, key: purchase.amount, by: {a: 2}}}]", "wrong_type"),
        ("phase: boost, give: [{multiply: {phase: base, by: 2}}]", "never_gives"),
        ("give: [{cash: {rate: 5%}}]", "missing_field"),
        ("give: [{cash: {rate: 5, of: purchase.amount}}]", "wrong_type"),
        ("give: [{cash: {amount: 1.00, rate: 5%}}]", "contradiction"), ("give: [{cash: {amount: 1.00}}]", "unbounded"),
        ("give: [{coupon: {valid: 30d}}]", "missing_field"), ("give: [{badge: ''}]", "out_of_range"),
        ("give: [{points: {rate: 1, per: 1.00, of: purchase.tax, only_items: {sku: a}}}], limits: []", "wrong_type"),
        ("active: {from: 2024-03-02, until: 2024-03-02}, give: [{points: 1}]", "never_matches"),
        ("cohort: {salt: s, treat: 101%}, give: [{points: 1}]", "out_of_range"),
        ("cohort: {salt: s, treat: 0.001%}, give: [{points: 1}]", "too_precise"),
        ("draw: {chance: 1/0, seed: s}, give: [{points: 1}]", "wrong_type"),
        ("draw: {chance: 0%, seed: s}, give: [{points: 1}]", "never_gives"),
        ("draw: {chance: 1/2}, give: [{points: 1}]", "contradiction"),
        ("give: [{points: 1}, {status: 1}], limits: [{max: 5, per: member}]", "missing_field"),
        ("give: [{points: 1}], limits: [{max: 5, per: member, unit: status}]", "unknown_value"),
        ("give: [{points: 1}], limits: [{max: 5, per: [member, purchase.storr]}]", "unknown_field"),
        ("give: [{points: 1}], limits: [{max: 5, per: [purchase.store]}]", "wrong_type"),
        ("group: {id: g, pick: worst}, give: [{points: 1}]", "unknown_value"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_refused(rule: str, code: str) -> None:
    text = HEAD + written("- {id: r, on: purchase, $rule}", rule=rule)
    assert [problem.code.value for problem in load_programme(text, "p.yaml").problems] == [code]


def test_a_group_is_of_one_phase_and_picks_in_one_way() -> None:
    rule = "- {id: %s, on: purchase, phase: %s, group: {id: g, pick: %s}, give: [{points: 1}]}\n"
    text = HEAD + rule % ("a", "base", "best") + rule % ("b", "bonus", "best") + rule % ("c", "base", "first")
    problems = load_programme(text, "p.yaml").problems
    assert [(problem.line, problem.code.value) for problem in problems] == [(7, "contradiction"), (8, "contradiction")]
