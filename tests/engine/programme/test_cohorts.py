"""Both arms of a cohort are recorded alike: once for each member and salt, by the first event that meets a rule."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from engine.explain.event import Explainer
from engine.explain.moves import sentence_of
from engine.explain.values import Wording
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.interpret.observer import Gate, Observer
from engine.programme.model import CohortMetric, in_order
from schemas.canonical import entry_key, event_identity
from schemas.events import Purchase, Share
from tests.engine.history.test_activation import folded
from tests.engine.programme.test_compile import judged
from tests.programme_text import written
from tests.strategies.met_events import histories, referral_histories
from tests.strategies.programmes import programme_texts, referral_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Programme, Rule
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\nrules:\n"
PARTS = 10_000
MEMBERS = tuple(f"m{number}" for number in range(40))


def loaded(rules: str) -> Programme:
    result = load_programme(HEAD + rules, "p.yaml")
    assert result.programme is not None, "\n".join(map(str, result.problems))
    return result.programme


def arm_of(salt: str, treat: int, member_id: str) -> str:
    """Return the documented arm: SHA-256 of salt, NUL and member, its first 8 bytes modulo 10,000."""
    number = int.from_bytes(sha256(salt.encode() + b"\0" + member_id.encode()).digest()[:8], "big")
    return "treated" if number % PARTS < treat else "control"


def bought(member_id: str, number: int, **fields: object) -> Purchase:
    head = {"event_id": f"{member_id}-{number}", "member_id": member_id, "occurred_at": number * 1_000}
    return Purchase(**head, order_id=f"o{number}", currency="USD", **{"amount": 500, **fields})  # type: ignore[arg-type]


def shared(member_id: str, number: int) -> Share:
    head = {"event_id": f"{member_id}-{number}", "member_id": member_id, "occurred_at": number * 1_000}
    return Share(**head, object="shoe", channel="link")  # type: ignore[arg-type]


def told(programme: Programme, *history: MemberEvent) -> list[tuple[str, str | None, str | None]]:
    """Return type, rule and item, or else the reason, of each reward event; both judges agree on them."""
    rewards, _ = judged(compile_programme(programme, 1), list(history))
    assert rewards == judged(Interpreter(programme, 1), list(history))[0]
    kinds = [each.posting for of_event in rewards for each in of_event]
    return [(each.type, each.rule_id, each.item or each.reason) for each in kinds]


_WHEN = re.compile(r"when: .*?, give: \[")
SPLITS = {"s1": 5_000, "s2": 0, "s3": 2_000, "s4": 7_000, "s5": 5_000}
"""The split of each salt of these programmes, and of those that they are made from; s2 treats nobody, or everybody."""

_COHORTS = ["", *(f"{{salt: {salt}, treat: {SPLITS[salt] // 100}%}}" for salt in ("s1", "s3", "s4", "s5"))]


@st.composite
def cohort_texts(draw: st.DrawFn) -> str:
    """Make a programme most of whose rules have a cohort, and half of them no condition; some of them share a salt."""
    lines = draw(programme_texts()).split("\n")
    for number, line in enumerate(lines):
        if line.startswith("- {id: ") and "cohort: " not in line:
            cohort = draw(st.sampled_from(_COHORTS))
            met = _WHEN.sub("when: {}, give: [", line) if draw(st.booleans()) else line
            lines[number] = f"{met[:-1]}, cohort: {cohort}}}" if cohort else met
    return "\n".join(lines)


class Watched(Interpreter):
    """Judge as the interpreter does, and note for each event the rules that it meets: time and condition hold."""

    def __init__(self, programme: Programme) -> None:
        self.met: list[tuple[MemberEvent, list[Rule]]] = []
        self._gates = _Gates()
        super().__init__(programme, 3, self._gates)

    def rewards_for(self, event: Any, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member, and note the rules that it meets."""
        self._gates.missed.clear()
        rewards = super().rewards_for(event, state, occurrence)
        own = [rule for rule in in_order(self.programme.rules) if isinstance(event, rule.on)]
        self.met.append((event, [rule for rule in own if rule.id not in self._gates.missed]))
        return rewards


class _Gates(Observer):
    def __init__(self) -> None:
        self.missed: set[str] = set()

    def stopped(self, rule: Rule, gate: Gate, facts: Facts) -> None:  # noqa: ARG002  the gate alone counts
        if gate in (Gate.NOT_YET, Gate.NO_LONGER, Gate.CONDITION):
            self.missed.add(rule.id)


class Entry(NamedTuple):
    """Hold who entered the cohort of a salt, by which arm, and the rules of which one says so."""

    member_id: str
    salt: str
    arm: str
    rules: frozenset[str]


def expected(watched: Watched) -> list[Entry]:
    """Return the entries that follow from the gates of the rules, which know nothing of entries."""
    found: dict[tuple[str, str], Entry] = {}
    for event_, met in watched.met:
        cohorts = [(rule.id, rule.cohort) for rule in met if rule.cohort is not None]
        for _, cohort in cohorts:
            salt, member_id = cohort.salt, event_.member_id
            rules = frozenset(rule_id for rule_id, each in cohorts if each.salt == salt)
            entered = Entry(member_id, salt, arm_of(salt, cohort.treat, member_id), rules)
            found.setdefault((member_id, salt), entered)
    return list(found.values())


def check_entries(text: str, history: list[MemberEvent]) -> None:
    """Hold the entries of a history against what the gates of the rules say."""
    programme = load_programme(text, "p.yaml").programme
    if programme is None:
        return
    watched = Watched(programme)
    judged(watched, history)
    salts = {rule.id: rule.cohort.salt for rule in programme.rules if rule.cohort is not None}
    rewards, _ = judged(compile_programme(programme, 3), history)

    found = [
        (event_.member_id, salts[each.posting.rule_id or ""], each.posting.item, each.posting.rule_id)
        for event_, of_event in zip(history, rewards, strict=True)
        for each in of_event
        if each.posting.type == "cohort.entered"
    ]
    wanted = expected(watched)
    assert sorted(each[:3] for each in found) == sorted(each[:3] for each in wanted)
    by_place = {(each.member_id, each.salt): each.rules for each in wanted}
    assert all(rule_id in by_place[member_id, salt] for member_id, salt, _, rule_id in found)
    event(f"{min(len(found), 4)} entries, arms {sorted({str(each[2]) for each in found})}")


@settings(max_examples=150, deadline=None)
@given(cohort_texts(), histories)
def test_each_member_enters_each_salt_once_by_the_first_event_that_meets_a_rule(
    text: str, history: list[MemberEvent]
) -> None:
    check_entries(text, history)


@settings(max_examples=60, deadline=None)
@given(cohort_texts(), histories, st.lists(st.integers(0, 16), max_size=3), st.integers(1, 3))
def test_versions_of_an_earlier_release_write_no_entry_and_all_else_is_the_same(
    text: str, history: list[MemberEvent], places: list[int], first: int
) -> None:
    programme = load_programme(text, "p.yaml").programme
    if programme is None:
        return
    before = replace(programme, enters_cohorts=False)
    numbers = range(1, len(places) + 2)
    of_before = {number: compile_programme(before, number) for number in numbers}
    of_both = {number: compile_programme(before if number < first else programme, number) for number in numbers}

    silent, speaking = (folded(judges, history, sorted(places), set()) for judges in (of_before, of_both))
    assert "cohort.entered" not in {each.posting.type for _, each in silent}
    assert [each for each in speaking if each[1].posting.type != "cohort.entered"] == silent

    # across versions, too, a member enters each salt once
    salts = {rule.id: rule.cohort.salt for rule in programme.rules if rule.cohort is not None}
    entered = Counter(
        (member_id, salts[each.posting.rule_id or ""])
        for member_id, each in speaking
        if each.posting.type == "cohort.entered"
    )
    assert set(entered.values()) <= {1}
    event(f"{min(len(entered), 3)} entries")


@settings(max_examples=60, deadline=None)
@given(st.lists(cohort_texts(), min_size=2, max_size=3), histories, st.lists(st.integers(1, 8), min_size=1, max_size=2))
def test_through_versions_with_other_rules_a_member_enters_each_salt_once(
    texts: list[str], history: list[MemberEvent], places: list[int]
) -> None:
    programmes = [load_programme(text, "p.yaml").programme for text in texts]
    if None in programmes:
        return
    judges = {number: compile_programme(programmes[number % len(texts)], number) for number in (1, 2, 3)}
    rewards = folded(judges, history, sorted(places), set())

    # the key of an entry names the salt
    places_of = {
        entry_key(event_identity(each.source, f"{each.event_id}-{seq}"), salt, each.member_id): (each.member_id, salt)
        for seq, each in enumerate(history, 1)
        for salt in SPLITS
    }
    entered: Counter[tuple[str, str]] = Counter()
    for member_id, reward in rewards:
        if reward.posting.type == "cohort.entered" and reward.posting.rule_id != "risen":  # that is on an occasion
            member, salt = places_of[reward.reward_key]
            assert member == member_id
            assert salt == "s2" or reward.posting.item == arm_of(salt, SPLITS[salt], member_id)
            entered[member_id, salt] += 1
    assert set(entered.values()) <= {1}
    event(f"{min(len(entered), 4)} entries")


@settings(max_examples=60, deadline=None)
@given(cohort_texts(), histories)
def test_settings_of_reports_change_no_reward_event(text: str, history: list[MemberEvent]) -> None:
    programme = load_programme(text, "p.yaml").programme
    if programme is None:
        return
    money = text.replace("\npoints: {", "\npoints: {liability_per_point: 0.01, price: 0.02, ").replace(
        "\nrules:", "\nmargin: 25%\ncosts: {gift: {s: 3.20}, coupon: {t: 5.00}}\nrules:"
    )
    planned = load_programme(money.replace("treat: 50%", "treat: 50%, planned: 20000, metric: orders"), "p.yaml")
    assert planned.programme is not None
    assert planned.programme.terms.margin == (1, 4)
    points = planned.programme.terms.points
    assert (points.liability_per_point, points.price) == (Fraction(1), Fraction(2))
    assert judged(compile_programme(planned.programme, 3), history) == judged(compile_programme(programme, 3), history)


@pytest.mark.parametrize(
    "part",
    [
        "challenge: {count: 3}",
        "draw: {chance: 1/1000000, seed: s}",
        "limits: [{times: 1, per: member}]",
        "group: {id: g, pick: best}, challenge: {count: 3}",
        "phase: bonus, give: [{multiply: {phase: base, by: 2}}]",
    ],
)
def test_both_arms_are_recorded_before_challenge_draw_group_and_limits(part: str) -> None:
    given = part if "give:" in part else f"{part}, give: [{{points: 5}}]"
    programme = loaded(written("- {id: r, on: purchase, $given, cohort: {salt: s, treat: 50%}}\n", given=given))
    arms: Counter[str] = Counter()
    for member_id in MEMBERS:
        first, *others = told(programme, bought(member_id, 1), bought(member_id, 2))
        assert first == ("cohort.entered", "r", arm_of("s", 5_000, member_id))
        assert "cohort.entered" not in {kind for kind, _, _ in others}
        arms[str(first[2])] += 1
    assert min(arms["treated"], arms["control"]) > 10


def test_what_does_not_meet_the_rule_lets_nobody_in() -> None:
    programme = loaded(
        "- {id: r, on: purchase, when: {purchase.channel: app}, active: {from: 1970-01-02},"
        " cohort: {salt: s, treat: 50%}, give: [{points: 5}]}\n"
    )
    day = 86_400
    assert told(programme, bought("m1", 1, channel="app"), bought("m1", day + 1, channel="store")) == []
    assert told(programme, bought("m1", day + 1, channel="app"))[0][0] == "cohort.entered"


def test_a_group_lets_in_also_by_the_rule_that_it_does_not_pick() -> None:
    programme = loaded(
        "- {id: big, on: purchase, cohort: {salt: s1, treat: 100%}, group: {id: g, pick: best}, give: [{points: 9}]}\n"
        "- {id: one, on: purchase, cohort: {salt: s2, treat: 100%}, group: {id: g, pick: best}, give: [{points: 1}]}\n"
    )
    assert told(programme, bought("m1", 1)) == [
        ("cohort.entered", "big", "treated"), ("cohort.entered", "one", "treated"), ("points.granted", "big", None),
    ]  # fmt: skip


def test_rules_of_one_salt_let_a_member_in_once_and_refuse_a_control_member_once_each() -> None:
    programme = loaded(
        "- {id: a, on: purchase, cohort: {salt: s, treat: 50%}, give: [{points: 9}]}\n"
        "- {id: b, on: share, cohort: {salt: s, treat: 50%}, give: [{points: 1}]}\n"
    )
    control = next(each for each in MEMBERS if arm_of("s", 5_000, each) == "control")
    treated = next(each for each in MEMBERS if arm_of("s", 5_000, each) == "treated")
    assert told(programme, shared(control, 1), bought(control, 2), shared(control, 3)) == [
        ("cohort.entered", "b", "control"), ("reward.refused", "b", "cohort_control"),
        ("reward.refused", "a", "cohort_control"),
    ]  # fmt: skip
    assert told(programme, bought(treated, 1), shared(treated, 2)) == [
        ("cohort.entered", "a", "treated"), ("points.granted", "a", None), ("points.granted", "b", None),
    ]  # fmt: skip


def test_a_member_is_in_the_arms_of_two_salts_independently() -> None:
    programme = loaded(
        "- {id: a, on: purchase, cohort: {salt: one, treat: 50%}, give: [{points: 9}]}\n"
        "- {id: b, on: purchase, cohort: {salt: two, treat: 50%}, give: [{points: 1}]}\n"
    )
    pairs: Counter[tuple[str | None, ...]] = Counter()
    for member_id in (f"m{number}" for number in range(200)):
        arms = [item for kind, _, item in told(programme, bought(member_id, 1)) if kind == "cohort.entered"]
        assert arms == [arm_of("one", 5_000, member_id), arm_of("two", 5_000, member_id)]
        pairs[tuple(arms)] += 1
    assert len(pairs) == 4
    assert min(pairs.values()) > 25


def test_an_entry_names_rule_version_campaign_and_order() -> None:
    programme = loaded(
        "- {id: r, on: purchase, campaign: spring, cohort: {salt: s, treat: 100%}, give: [{points: 5}]}\n"
    )
    (rewards,), _ = judged(compile_programme(programme, 7), [bought("m1", 1)])
    entered, granted = rewards
    assert (entered.posting.campaign, entered.posting.rule_version, entered.order_id) == ("spring", 7, "o1")
    assert (entered.posting.unit, entered.amount, entered.posting.debit, entered.lot) == ("cohort", 1, None, None)
    assert (entered.occurred_at_ms, granted.occurred_at_ms) == (1_000, 1_000)
    assert entered.reward_key != granted.reward_key


@pytest.mark.parametrize(("treat", "words"), [("100%", "among the treated"), ("0%", "in its control arm")])
def test_an_explanation_tells_of_the_entry(treat: str, words: str) -> None:
    rule = written("- {id: r, on: purchase, cohort: {salt: s, treat: $treat}, give: [{points: 5}]}\n", treat=treat)
    programme = loaded(rule)
    explainer = Explainer(programme, 1)
    rewards, _ = judged(explainer, [bought("m1", 1)])
    assert sentence_of(rewards[0][0], Wording.of(programme)) == f"the member entered the cohort of rule r, {words}"
    (told_of_rule,) = explainer.explained
    account = explainer.account(rewards[0], {})
    assert [move.sentence for move in account.moves] == [f"the member entered the cohort of rule r, {words}"]
    assert len(told_of_rule.gave) + len(told_of_rule.refused) == 1


def test_a_plan_is_read_and_left_out_there_is_none() -> None:
    one, other = loaded(
        "- {id: a, on: share, cohort: {salt: s, treat: 50%, planned: 800, metric: orders}, give: [{points: 1}]}\n"
        "- {id: b, on: share, cohort: {salt: t, treat: 50%}, give: [{points: 1}]}\n"
    ).rules
    assert one.cohort is not None
    assert (one.cohort.planned, one.cohort.metric) == (800, CohortMetric.ORDERS)
    assert other.cohort is not None
    assert (other.cohort.planned, other.cohort.metric) == (None, CohortMetric.NET)


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ("treat: 50%", "treat: 20%", "two splits"),
        ("treat: 50%", "treat: 100%", "two splits"),
        ("treat: 0%", "treat: 100%", None),
        ("treat: 50%", "treat: 1/2", None),
        ("treat: 50%, planned: 100", "treat: 50%", "two plans"),
        ("treat: 50%, metric: orders", "treat: 50%, metric: net", "two plans"),
    ],
)
def test_one_salt_has_one_split_and_one_plan(first: str, second: str, problem: str | None) -> None:
    text = written(
        HEAD + "- {id: a, on: share, cohort: {salt: s, $first}, give: [{points: 1}]}\n"
        "- {id: b, on: purchase, cohort: {salt: s, $second}, give: [{points: 1}]}\n",
        first=first, second=second,
    )  # fmt: skip
    errors = load_programme(text, "p.yaml").errors
    assert [each.line for each in errors] == ([] if problem is None else [7])
    assert all(problem is not None and problem in each.message and "salt" in each.message for each in errors)
    assert load_programme(text, "p.yaml", was_activated=True).programme is not None


@settings(max_examples=60, deadline=None)
@given(referral_texts(), referral_histories)
def test_rules_on_referrals_let_the_referrer_in(text: str, history: list[MemberEvent]) -> None:
    cohort = ", cohort: {salt: friends, treat: 50%}, give:"
    programme = load_programme(text.replace(", give:", cohort), "p.yaml").programme
    if programme is None:
        return
    rewards, _ = judged(compile_programme(programme, 3), history)
    assert rewards == judged(Interpreter(programme, 3), history)[0]
    arms = Counter(
        (event_.member_id, each.posting.item)
        for event_, of_event in zip(history, rewards, strict=True)
        for each in of_event
        if each.posting.type == "cohort.entered"
    )
    assert all(item == arm_of("friends", 5_000, member_id) for member_id, item in arms)
    assert set(arms.values()) <= {1}
    event(f"{len(arms)} referrers entered")
