"""Explanations tell what decided, in the author's units, and never contradict what was decided."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event as noted
from hypothesis import given, settings

from engine.evaluate import fold
from engine.explain.event import GAVE, REASONS, Explainer, RuleExplanation
from engine.ledger.memory.books import MemoryBooks
from engine.ledger.memory.budgets import MemoryBudgets
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.fields import OCCASION_TRIGGERS
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import event_identity
from schemas.events import Item, Purchase, Share, Signup, Tender
from schemas.scalars import instant_from_iso
from tests.engine.books import NO_BOOKS, VERSIONS
from tests.programme_text import written
from tests.strategies.met_events import histories
from tests.strategies.programmes import programme_texts

if TYPE_CHECKING:
    from engine.programme.model import Programme
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: America/New_York\ncurrency: USD\n"
METRICS = "metrics:\n  buys: {count: purchase}\n  last_buy: {last: purchase}\n"


def loaded(rules: str, sections: str = "") -> Programme:
    result = load_programme(f"{HEAD}{sections}rules:\n{rules}", "p.yaml")
    assert result.programme is not None, "\n".join(map(str, result.problems))
    return result.programme


def occurrence(seq: int, event: MemberEvent) -> Occurrence:
    return Occurrence(event_identity(event.source, event.event_id), seq, event.occurred_at)


def purchase(number: int = 1, at: str = "2024-03-02T10:00:00-05:00", **fields: Any) -> Purchase:
    given: dict[str, Any] = {"currency": "USD", "amount": 2_190, "order_id": f"o{number}", "member_id": "m1"}
    given |= {"event_id": f"e{number}", "occurred_at": instant_from_iso(at, "at")}
    return Purchase(**(given | fields))


def explained(programme: Programme, *history: MemberEvent) -> dict[str, RuleExplanation]:
    """Return the explanations of the last event of a history, by rule."""
    explainer, budgets = Explainer(programme, 1), MemoryBudgets()
    members = {event.member_id: MemberState() for event in history}
    for seq, event in enumerate(history, 1):
        books = MemoryBooks(VERSIONS.__getitem__, budgets=budgets)
        explainer.begin()
        fold(members[event.member_id], event, occurrence(seq, event), explainer, books)
    return {explanation.rule: explanation for explanation in explainer.explained}


def says(rule: str, *history: MemberEvent, sections: str = "") -> str:
    """Return the sentence about the only rule r, without its id."""
    text = rule if "give:" in rule else written("$rule, give: [{points: 5}]", rule=rule)
    sentence = explained(loaded(written("- {id: r, on: purchase, $text}\n", text=text), sections), *history)[
        "r"
    ].sentence
    assert sentence.startswith("r: ")
    return sentence.removeprefix("r: ").removeprefix("did not give, because ")


ITEMS = (
    Item(line_id="1", sku="milk", category="dairy", quantity="2", amount=700),
    Item(line_id="2", sku="soap", category="care", quantity="0.5", amount=1_490),
)
CONDITIONS = [
    ("purchase.channel: app", 'purchase.channel is "store" and the rule wants "app"'),
    ("purchase.channel: [app, web]", 'purchase.channel is "store" and the rule wants "app" or "web"'),
    ("purchase.channel: {ne: store}", 'purchase.channel is "store" and the rule wants anything but "store"'),
    ("purchase.channel: {not_in: [store, web]}",
     'purchase.channel is "store" and the rule wants anything but "store" or "web"'),
    ("purchase.channel: {starts_with: ap}", 'purchase.channel is "store" and the rule wants "ap" at its start'),
    ('purchase.store: "7"', 'purchase.store is missing and the rule wants "7"'),
    ("purchase.store: {exists: true}", "purchase.store is missing and the rule wants any value"),
    ("purchase.channel: {exists: false}", 'purchase.channel is "store" and the rule wants no value'),
    ("purchase.amount: {gte: 24.00}",
     "purchase.amount is 21.90 and the rule wants at least 24.00; 2.10 more would have been enough for that"),
    ("purchase.amount: {gt: 21.90}",
     "purchase.amount is 21.90 and the rule wants more than 21.90; 0.01 more would have been enough for that"),
    ("purchase.amount: {lt: 20.00}",
     "purchase.amount is 21.90 and the rule wants less than 20.00; 1.91 less would have been enough for that"),
    ("purchase.amount: {between: [30.00, 40.00]}",
     "purchase.amount is 21.90 and the rule wants 30.00 to 40.00; 8.10 more would have been enough for that"),
    ("purchase.amount: {gte: 20.00, lte: 21.00}",
     "purchase.amount is 21.90 and the rule wants at most 21.00; 0.90 less would have been enough for that"),
    ("purchase.tender.card: {gte: 1.00}",
     "purchase.tender.card is 0.40 and the rule wants at least 1.00; 0.60 more would have been enough for that"),
    ("purchase.units: {gte: 3}",
     "purchase.units is 2.5 and the rule wants at least 3; 0.5 more would have been enough for that"),
    ("purchase.occurred_at: {gte: 2024-03-05}",
     "purchase.occurred_at is 2024-03-02 10:00 and the rule wants 2024-03-05 00:00 or later"),
    ("purchase.coupons: {contains: spring}", 'purchase.coupons is "a", "b" and the rule wants "spring" in it'),
    ("purchase.coupons: {contains_all: [a, c]}", 'purchase.coupons is "a", "b" and the rule wants "a" and "c" in it'),
    ("purchase.categories: {contains: baby}", 'purchase.categories is "dairy", "care" and the rule wants "baby" in it'),
    ("time.weekday: [mon, sun]", "time.weekday is sat and the rule wants mon or sun"),
    ("time.clock: {from: 17:05, to: 19:00}", "time.clock is 10:00 and the rule wants 17:05 to 19:00"),
    ("time.date: {gte: 2024-03-05}", "time.date is 2024-03-02 and the rule wants 2024-03-05 or later"),
    ("event.attributes.size: L", 'event.attributes.size is missing and the rule wants "L"'),
    ("items: {some: {category: baby}}",
     'the rule wants that in some line category is "baby", and it is so in 0 of 2 lines'),
    ("items: {none: {sku: soap}}", 'the rule wants that in no line sku is "soap", and it is so in 1 of 2 lines'),
    ("items: {all: {category: dairy}}",
     'the rule wants that in every line category is "dairy", and it is so in 1 of 2 lines'),
    ("items: {sum: amount, where: {category: dairy}, gte: 10.00}",
     ('the amount of lines where category is "dairy" is 7.00 and the rule wants at least 10.00; '
     '3.00 more would have been enough for that')),
    ("any: [{purchase.channel: app}, {purchase.amount: {gte: 24.00}}]",
     ('none of 2 ways is open: purchase.channel is "store" and the rule wants "app"; or purchase.amount is 21.90 and '
     'the rule wants at least 24.00; 2.10 more would have been enough for that')),
    ("not: {purchase.channel: store}",
     'purchase.channel is "store" and the rule excludes "store"'),
    ("not: {purchase.channel: store, time.weekday: sat}",
     'the rule excludes it: purchase.channel is "store" and time.weekday is sat'),
    ("all: [{purchase.channel: store}, {not: {any: [{time.weekday: sat}, {time.weekday: sun}]}}]",
     "the rule excludes it: (time.weekday is sat or time.weekday is sun)"),
]  # fmt: skip


@pytest.mark.parametrize(("when", "sentence"), CONDITIONS)
def test_the_first_condition_that_failed_is_told_with_wanted_and_actual(when: str, sentence: str) -> None:
    tenders = (Tender(kind="card", amount=40),)
    bought = purchase(channel="store", coupons=("a", "b"), items=ITEMS, tenders=tenders)
    assert says(written("when: {$when}", when=when), bought) == sentence


def test_a_purchase_without_lines_has_none_that_the_rule_could_want() -> None:
    assert says("when: {items: {sum: quantity, gte: 2}}", purchase()) == (
        "the purchase has no lines and the rule wants that the quantity of all lines is at least 2"
    )
    assert says("when: {purchase.brands: {contains_any: [a, b]}}", purchase()) == (
        'purchase.brands is missing and the rule wants "a" or "b" in it'
    )


def test_a_segment_is_told_by_its_own_test_and_a_derived_field_by_its_value() -> None:
    sections = METRICS + "segments: {rare: {history.buys: {lte: 0}}}\nderived: {net: purchase.amount - purchase.tax}\n"
    assert says("when: {member.segment: {contains: rare}}", purchase(1), purchase(2), sections=sections) == (
        "history.buys is 1 and the rule wants at most 0; 1 less would have been enough for that"
    )
    assert says("when: {derived.net: {gt: 20.00}}", purchase(tax=200), sections=sections) == (
        "derived.net is 19.90 and the rule wants more than 20.00; 0.11 more would have been enough for that"
    )
    assert says("when: {derived.net: {gt: 20.00}}", purchase(), sections=sections) == (
        "derived.net is missing and the rule wants more than 20.00"
    )


def test_history_ages_and_what_is_held_are_told_as_they_were_before_the_event() -> None:
    joined = Signup(event_id="s", member_id="m1", occurred_at=purchase(at="2024-01-30T10:00:00-05:00").occurred_at)
    first = purchase(1, "2024-03-01T08:30:00-05:00")
    now = purchase(2)

    sentences = {
        when: says(written("when: {$when}", when=when), joined, first, now, sections=METRICS)
        for when in (
            "history.buys: {gte: 5}",
            "history.last_buy: {lte: 24h}",
            "member.age: {lte: 1mo}",
            "member.balance: {gte: 9}",
            "member.held.vip: true",
        )
    }
    assert sentences == {
        "history.buys: {gte: 5}":
            "history.buys is 1 and the rule wants at least 5; 4 more would have been enough for that",
        "history.last_buy: {lte: 24h}":
            "history.last_buy is 1d 1h and the rule wants at most 24h; 1h 30m earlier would have been enough for that",
        "member.age: {lte: 1mo}":
            "member.age is 32d and the rule wants at most 1mo; 2d earlier would have been enough for that",
        "member.balance: {gte: 9}":
            "member.balance is 0 and the rule wants at least 9; 9 more would have been enough for that",
        "member.held.vip: true": "member.held.vip is false and the rule wants true",
    }  # fmt: skip


def test_a_time_before_and_after_the_rule_is_told_in_local_time() -> None:
    assert says("active: {from: 2024-03-03}", purchase()) == (
        "it begins at 2024-03-03 00:00 and the event occurred at 2024-03-02 10:00"
    )
    assert says("active: {until: 2024-03-02}", purchase()) == (
        "it ended at 2024-03-02 00:00 and the event occurred at 2024-03-02 10:00"
    )


def test_cohorts_and_draws_are_told_with_their_chance() -> None:
    assert says("cohort: {salt: s, treat: 0.5%}", purchase()) == (
        "the member is in the control arm, not among the 0.5% that are treated"
    )
    assert says("draw: {chance: 1/1000000, seed: s}", purchase()) == "its draw was lost, with a chance of 1/1000000"


def test_a_challenge_is_told_with_how_far_it_is() -> None:
    counted = "challenge: {count: 3, within: 7d, where: {purchase.amount: {gte: 10.00}}}"
    assert says(counted, purchase(1), purchase(2)) == "its challenge stands at 2 of 3 events within 7d"
    assert says(counted, purchase(1, amount=900)) == (
        "the event does not count for its challenge: purchase.amount is 9.00 and the rule wants at least 10.00; "
        "1.00 more would have been enough for that"
    )
    once = "challenge: {count: 1}"
    assert says(once, purchase(1), purchase(2)) == "its challenge was completed before and does not repeat"
    summed = "challenge: {sum: purchase.tax, gte: 20.00}"
    assert says(summed, purchase(1, tax=1_200)) == "its challenge stands at 12.00 of 20.00 of purchase.tax"
    assert says(summed, purchase(1)) == (
        "its challenge stands at 0.00 of 20.00 of purchase.tax, and purchase.tax is missing, which adds nothing"
    )


def test_a_group_is_told_with_its_winner_and_both_worths() -> None:
    rules = """
- {id: a, on: purchase, give: [{points: 20}], group: {id: g, pick: best}}
- {id: b, on: purchase, give: [{points: 50}], group: {id: g, pick: best}}
- {id: c, on: purchase, give: [{points: 50}], group: {id: g, pick: best}}
- {id: d, on: purchase, phase: boost, give: [{points: 9}], group: {id: h, pick: first}}
- {id: e, on: purchase, phase: boost, priority: 1, give: [{points: 1}], group: {id: h, pick: first}}
"""
    explanations = explained(loaded(rules), purchase())
    assert [each.sentence for each in explanations.values()] == [
        'a: did not give, because its group "g" lets the best give: b is worth 50 points and this rule 20',
        "b: gave 50 points",
        (
            'c: did not give, because its group "g" lets the best give: b is worth 50 points and this rule 50, '
            "and comes first"
        ),
        "e: gave 1 point",
        'd: did not give, because its group "h" lets the first give, which is e',
    ]


def test_a_limit_is_told_with_what_it_allows_and_what_is_used_since_when() -> None:
    twice = "limits: [{times: 1, per: member, every: week}]"
    assert says(twice, purchase(1), purchase(2)) == (
        "it gives at most 1 time a week and had given 1 time in the week of 2024-02-26"
    )
    day = "give: [{points: 8}], limits: [{max: 10, per: member, every: day}]"
    assert says(day, purchase(1), purchase(2)) == (
        "gave 2 points; 6 points more were refused, because it gives at most 10 points a day and had given 8 points on "
        "2024-03-02"
    )
    rolling = "give: [{points: 8}], limits: [{max: 10, per: [member, purchase.store], every: 24h, over: refuse}]"
    assert says(rolling, purchase(1, store="7"), purchase(2, "2024-03-02T11:00:00-05:00", store="7")) == (
        "it gives at most 10 points in 24h for each purchase.store and had given 8 points since 2024-03-01 11:00 for "
        '"7", and refuses what does not fit'
    )


@pytest.mark.parametrize(("every", "period"), [
    ("month", "in 2024-03"), ("quarter", "in 2024-Q1"), ("year", "in 2024"), ("lifetime", "so far"),
])  # fmt: skip
def test_each_period_of_a_limit_has_its_name(every: str, period: str) -> None:
    sentence = says(written("limits: [{times: 1, per: member, every: $every}]", every=every), purchase(1), purchase(2))
    assert sentence.endswith(f"and had given 1 time {period}")


AWARDS = [
    ("points: {rate: 1, per: 10.00, of: purchase.amount}", "gave 2 points (floor of purchase.amount 21.90 / 10.00)"),
    ("points: {rate: 1.5, per: 1.00, of: purchase.amount, round: ceil}",
     "gave 33 points (ceil of 1.5 * purchase.amount 21.90)"),
    ("points: {rate: 3, per: 7.00, of: purchase.amount}",
     "gave 9 points (floor of 3 * purchase.amount 21.90 / 7.00)"),
    ("points: {rate: 1, per: 30.00, of: purchase.amount}",
     "it comes to 0: floor of purchase.amount 21.90 / 30.00; 8.10 more would have been enough for that"),
    ("points: {rate: 1, per: 1.00, of: purchase.amount, only_items: {category: baby}}",
     ('it comes to 0: floor of purchase.amount 0.00 of lines where category is "baby"; 1.00 more would have '
     "been enough for that")),
    ("points: {rate: 2, per: 1, of: purchase.units}", "gave 5 points (floor of 2 * purchase.units 2.5)"),
    ("points: {rate: 1, per: 1.00, of: purchase.tax}", "purchase.tax is missing"),
    ("points: {rate: 1, per: 1.00, of: derived.net}",
     "gave 21 points (floor of derived.net 21.50 [purchase.amount - purchase.tender.card])"),
    ("cash: {rate: 5%, of: purchase.amount}", "gave 1.09 USD (floor of 5% of purchase.amount 21.90)"),
    ("cash: {rate: 50%, of: purchase.amount, max: 3.00}",
     "gave 3.00 USD (floor of 50% of purchase.amount 21.90, at most 3.00)"),
    ("coupon: {template: T, valid: 30d}", 'gave coupon "T"'),
    ("gift: {sku: S, quantity: 3}", 'gave 3 gifts "S"'),
]  # fmt: skip


@pytest.mark.parametrize(("give", "sentence"), AWARDS)
def test_an_award_is_told_with_how_it_came_to_be(give: str, sentence: str) -> None:
    sections = "derived: {net: purchase.amount - purchase.tender.card}\n"
    bought = purchase(items=ITEMS, tenders=(Tender(kind="card", amount=40),))
    limit = ", limits: [{times: 9, per: member}]"
    assert says(written("give: [{$give}]$limit", give=give, limit=limit), bought, sections=sections) == sentence


def test_a_multiplier_is_told_with_its_base_and_its_key() -> None:
    rules = """
- {id: base, on: purchase, give: [{points: 25}]}
- {id: half, on: purchase, phase: boost, give: [{multiply: {phase: base, by: 1.5, round: ceil}}]}
- id: keyed
  on: purchase
  phase: bonus
  give: [{multiply: {phase: base, key: purchase.channel, by: {app: 2}}}]
"""
    explanations = [explained(loaded(rules), purchase(channel=channel)) for channel in ("app", "web")]
    assert [explanations[0][rule].sentence for rule in ("half", "keyed")] == [
        "half: gave 13 points (ceil of 25 points of phase base * 0.5)",
        'keyed: gave 25 points (floor of 25 points of phase base * 1, as purchase.channel is "app")',
    ]
    assert explanations[1]["keyed"].sentence == (
        'keyed: did not give, because it comes to 0: purchase.channel is "web", for which there is no factor'
    )


def test_rules_on_other_events_are_named_only_when_asked_for() -> None:
    programme = loaded("- {id: a, on: purchase, give: [{points: 1}]}\n- {id: b, on: share, give: [{points: 1}]}\n")
    explainer = Explainer(programme, 1, everything=True)
    shared = Share(event_id="e", member_id="m1", occurred_at=0, object="shoe", channel="link")
    fold(MemberState(), shared, occurrence(1, shared), explainer, NO_BOOKS)
    assert [explanation.sentence for explanation in explainer.explained] == [
        "b: gave 1 point", "a: did not give, because it is on purchase events",
    ]  # fmt: skip
    assert list(explained(programme, shared)) == ["b"]


def test_the_document_keeps_its_keys() -> None:
    programme = loaded("- {id: r, on: purchase, when: {purchase.amount: {gte: 24.00}}, give: [{points: 5}]}\n")
    document = json.loads(json.dumps(explained(programme, purchase())["r"].document()))
    assert document == {
        "rule": "r", "phase": "base", "on": "purchase", "outcome": "did_not_give", "reason": "condition",
        "field": "purchase.amount", "wanted": "at least 24.00", "actual": "21.90", "missing": "2.10 more",
        "sentence": "r: did not give, because purchase.amount is 21.90 and the rule wants at least 24.00; 2.10 more "
        "would have been enough for that",
        "any_of": [], "completed": False, "gave": [], "refused": [],
    }  # fmt: skip
    (award,) = explained(programme, purchase(amount=2_400))["r"].document()["gave"]
    assert list(award) == [
        "type", "unit", "amount", "item", "computation", "expires_at", "reason", "reward_key",
    ]  # fmt: skip


def agrees(explanation: RuleExplanation, rewards: list[RewardEvent]) -> bool:
    """Whether an explanation says of a rule what the reward log says."""
    own = [reward for reward in rewards if reward.posting.rule_id == explanation.rule]
    log = [(r.posting.type, r.posting.unit, r.amount, r.posting.reason, r.reward_key.hex()) for r in own]
    awards = [(a.type, a.unit, a.amount, a.reason, a.reward_key) for a in (*explanation.gave, *explanation.refused)]
    awarded = [each for each in log if each[0] not in ("challenge.completed", "cohort.entered")]
    granted = [each for each in awarded if each[0] != "reward.refused"]
    return (
        sorted(awarded) == sorted(awards)
        and (explanation.outcome == GAVE) is bool(granted)
        and explanation.completed is any(each[0] == "challenge.completed" for each in log)
    )


@settings(max_examples=300, deadline=None)
@given(programme_texts(), histories)
def test_explanations_agree_with_the_compiled_judge(text: str, history: list[MemberEvent]) -> None:
    programme = load_programme(text, "p.yaml").programme
    if programme is None:
        return
    judge, explainer = compile_programme(programme, 3), Explainer(programme, 3)
    members: dict[str, tuple[MemberState, MemberState]] = {}
    books, explained_books = MemoryBooks(VERSIONS.__getitem__), MemoryBooks(VERSIONS.__getitem__)
    for seq, each in enumerate(history, 1):
        judged_state, explained_state = members.setdefault(each.member_id, (MemberState(), MemberState()))
        rewards = list(fold(judged_state, each, occurrence(seq, each), judge, books))
        explainer.begin()
        assert list(fold(explained_state, each, occurrence(seq, each), explainer, explained_books)) == rewards
        assert judged_state == explained_state

        # every rule on the event is explained, as it was judged
        rules = {rule.id for rule in programme.rules if isinstance(each, rule.on)}
        own = [explanation for explanation in explainer.explained if explanation.on not in OCCASION_TRIGGERS]
        assert sorted(explanation.rule for explanation in own) == sorted(rules)
        given_now = [reward for reward in rewards if reward.lot is None]  # not what moved of earlier lots
        for explanation in explainer.explained:
            assert agrees(explanation, given_now), explanation
            assert explanation.reason in (None, *REASONS)
            assert (explanation.reason is None) is (explanation.outcome == GAVE and not explanation.refused)
            noted(f"{explanation.outcome} {explanation.reason}")


def test_a_budget_is_told_as_the_campaigns_of_all_members() -> None:
    others = [purchase(n, member_id=f"m{n}") for n in range(2, 4)]
    spring = "campaign: spring, give: [{points: 8}], limits: [{max: 10, per: campaign, every: year%s}]"
    budget = 'the budget of campaign "spring", 10 points a year for all members,'
    assert says(spring % "", *others) == (
        f"gave 2 points; 6 points more were refused, because {budget} had 2 points left: 8 points in 2024"
    )
    assert says(spring % ", over: refuse", *others) == (
        f"{budget} had 2 points left, and refuses what does not fit: 8 points in 2024"
    )
    assert says(spring % "", *others, purchase(9)) == f"{budget} is used up: 10 points in 2024"
    assert says("limits: [{times: 2, per: campaign}]", *others, purchase(9)) == (
        "the budget of rule r, 2 times in a lifetime for all members, is used up: 2 times so far"
    )
