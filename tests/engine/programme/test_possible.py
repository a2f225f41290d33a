"""What can never hold: the checker finds it wherever it is nested, and never claims it of what some event fulfils."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.member.state import MemberState
from engine.programme.check.possible import Possibilities
from engine.programme.conditions import AllOf, Condition
from engine.programme.file.derived import read_derived
from engine.programme.file.load import load_programme
from engine.programme.file.metric import read_metrics, read_segments
from engine.programme.file.names import Names
from engine.programme.file.nodes import Mapping, read_tree
from engine.programme.file.problems import Problems
from engine.programme.file.when import WhenReader
from engine.programme.interpret.facts import Facts
from engine.programme.localtime import calendar_of
from tests.programme_text import written
from tests.strategies.met_events import purchases
from tests.strategies.programmes import METRICS, conditions

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: America/New_York\ncurrency: USD\n"
DERIVED = "derived: {net: purchase.amount - purchase.tender.card + purchase.tax}\n"


def problems_of(rule: str, head: str = "", on: str = "purchase") -> list[tuple[str, str]]:
    """Return each code and what stands at its place."""
    text = written(
        "$head${head2}rules:\n- {id: r, on: $on, give: [{points: 1}], $rule}\n", head=HEAD, head2=head, on=on, rule=rule
    )
    lines = text.splitlines()
    problems = [problem for problem in load_programme(text, "p.yaml").problems if problem.code != "unread"]
    return [(problem.code, lines[problem.line - 1][problem.column - 1 :]) for problem in problems]


@pytest.mark.parametrize(
    ("when", "at"),
    [
        ("purchase.channel: app, any: [{purchase.channel: web}]", "web"),
        ("purchase.channel: app, all: [{any: [{purchase.channel: web}, {purchase.channel: till}]}]", "web"),
        ("purchase.channel: app, not: {purchase.channel: app}", "app}"),
        ("not: {purchase.channel: {exists: true}}, purchase.channel: app", "app"),
        ("any: [{purchase.store: a}, {purchase.store: b}], not: {purchase.store: {in: [a, b]}}", "[a, b]"),
        ("not: {any: [{purchase.store: a}, {purchase.store: {ne: a}}]}", "a}"),
        ("not: {all: [{purchase.amount: {gte: 0}}]}", "0}"), ("not: {}", "r, on"),
        ("purchase.amount: {gte: 10.00}, any: [{purchase.amount: {lt: 5.00}}, {purchase.amount: 7.00}]", "5.00"),
        ("not: {purchase.amount: {lt: 10.00}}, purchase.amount: {lt: 10.00}", "10.00}"),
        ("purchase.channel: {starts_with: we, contains: b}, not: {purchase.channel: {contains: w}}", "w}"),
        ("purchase.coupons: {contains: A}, not: {purchase.coupons: {contains_any: [A, B]}}", "[A, B]"),
        ("purchase.coupons: {contains_any: [A]}, not: {any: [{purchase.coupons: {contains: A}}, {time.day: 1}]}", "A}"),
        ("items: {some: {category: a}}, not: {items: {some: {category: a}}}", "{some"),
        ("items: {some: {category: a, any: [{category: b}]}}", "b}"),
        ("member.held.x: true, not: {member.held.x: true}", "true}"),
        ("member.age: {gte: 30d, lt: 10d}", "10d"), ("member.age: {gte: 40d, lte: 1mo}", "1mo"),
        ("member.age: {gt: 30d, lte: 30d}", "30d}"), ("member.age: {within: 10d}, not: {member.age: {lt: 20d}}", "20d"),
        # Time: what the parts of a date, and the hours, leave together.
        ("time.month: 2, time.day: 30", "30"), ("time.month: [4, 6, 9, 11], time.day: 31", "31"),
        ("time.date: 2026-03-02, time.weekday: sun", "sun"), ("time.date: [2026-03-02, 2026-03-03], time.day: 4", "4"),
        ("time.date: {gte: 2026-03-01, lt: 2026-04-01}, time.month: 4", "4"),
        ("time.clock: {from: 22:00, to: 02:00}, not: {any: [{time.clock: {from: 20:00}}, {time.clock: {to: 06:00}}]}",
         "{from: 20:00}"),
        ("purchase.occurred_at: {lt: 1970-01-01T00:00:00Z}", "1970-01-01"),
        ("time.date: {gte: 2027-01-01, lte: 2027-12-31}, time.month: 2, time.day: 29", "29"),
    ],
)  # fmt: skip
def test_what_excludes_each_other_is_found_at_its_place(when: str, at: str) -> None:
    ((code, text),) = [each for each in problems_of(written("when: {$when}", when=when)) if each[0] == "never_matches"]
    assert code == "never_matches"
    assert f"{text}, give".startswith(at), text


@pytest.mark.parametrize(
    "when",
    [
        "purchase.channel: {ne: app}, not: {purchase.channel: {exists: true}}", "all: [{}]",
        "not: {all: [{purchase.channel: app}, {purchase.channel: {exists: true}}]}",
        "purchase.store: {contains: a}, all: [{purchase.store: {contains: b}}], not: {purchase.store: {contains: ab}}",
        "member.age: {gte: 1mo, lt: 30d}",  # from 31 January on, a month is 29 days
        "member.age: {gte: 1d, lt: 24h}",  # where clocks go forward, a day is 23 hours
        "member.age: {gte: 30d, lte: 30d}", "time.month: 2, time.day: 29, time.weekday: mon",
        "time.date: {gte: 2097-01-01}, time.month: 2, time.day: 29, time.weekday: mon",
        "not: {items: {some: {category: a}}}, items: {none: {category: a}}",
        "purchase.coupons: {contains: A}, not: {purchase.coupons: {contains_all: [A, B]}}",
        "time.clock: {from: 22:00, to: 02:00}, not: {time.clock: {from: 23:00, to: 01:00}}",
        "any: [{purchase.amount: 1.00}, {purchase.amount: 2.00}], not: {purchase.amount: 1.00}",
    ],
)  # fmt: skip
def test_what_may_hold_is_not_refused(when: str) -> None:
    assert [each for each in problems_of(written("when: {$when}", when=when)) if each[0] == "never_matches"] == []


@pytest.mark.parametrize(
    ("rule", "at"),
    [
        ("active: {from: 2026-01-01, until: 2026-02-01}, when: {time.date: {gte: 2026-02-01}}", "2026-02-01}}}"),
        ("active: {from: 2026-01-01, until: 2026-02-01}, when: {time.month: 3}", "3}"),
        ("active: {from: 2026-01-05, until: 2026-01-06}, when: {time.weekday: sun}", "sun"),
        ("active: {from: 2026-03-01}, when: {purchase.occurred_at: {lt: 2026-03-01}}", "2026-03-01}}}"),
        ("active: {until: 1970-01-01T00:00:00Z}", "{until"),
        ("active: {from: 2026-01-01, until: 2026-01-01}", "{from"),
        ("when: {purchase.channel: a}, challenge: {count: 3, where: {purchase.channel: b}}", "b}"),
        ("active: {until: 2026-02-01}, challenge: {count: 3, where: {time.date: {gte: 2026-02-01}}}", "2026-02-01}}}"),
        ("limits: [{max: 1, per: member}], when: {any: [{purchase.amount: {lt: 0}}]}", "0}"),
    ],
)
def test_windows_and_challenges_that_cannot_be_met_are_found(rule: str, at: str) -> None:
    ((code, text),) = problems_of(rule)
    assert code == "never_matches"
    assert text.startswith(at), text


def test_an_active_window_that_a_test_meets_for_an_instant_is_fine() -> None:
    # Midnight of 1 February in New York is 05:00 in UTC.
    rule = "active: {from: 2026-01-01, until: 2026-02-01}, when: {purchase.occurred_at: {gte: %s}}"
    assert problems_of(rule % "2026-02-01T04:59:59.999Z") == []
    assert [code for code, _ in problems_of(rule % "2026-02-01T05:00:00Z")] == ["never_matches"]


def test_an_alternative_that_cannot_be_is_a_warning() -> None:
    assert problems_of("when: {purchase.store: a, any: [{purchase.store: b}, {purchase.channel: app}]}") == [
        ("unreachable_value", "b}, {purchase.channel: app}]}}")
    ]


def test_a_segment_is_blamed_where_the_rule_names_it() -> None:
    head = "metrics: {n: {count: purchase}}\nsegments: {rare: {history.n: {lte: 2}}, often: {history.n: {gt: 2}}}\n"
    assert problems_of("when: {history.n: 5, member.segment: {contains: rare}}", head) == [("never_matches", "rare}}}")]
    assert problems_of("when: {history.n: 5, member.segment: {contains_any: [rare, often]}}", head) == [
        ("unreachable_value", "[rare, often]}}}")
    ]
    empty = "metrics: {n: {count: purchase}}\nsegments: {nobody: {history.n: {lt: 0}}}\n"
    assert problems_of("when: {}", empty) == [("never_matches", "0}}}")]


def test_a_multiplier_of_rules_that_are_never_judged_with_it_is_a_warning() -> None:
    rules = (
        "- {id: base, on: purchase, active: {until: %s}, give: [{points: 1}]}\n"
        "- {id: two, on: purchase, phase: boost, active: {from: 2026-06-01}, give: [{multiply: {phase: base, by: 2}}]}"
    )
    codes = [
        [problem.code.value for problem in load_programme(f"{HEAD}rules:\n{rules % until}", "p.yaml").problems]
        for until in ("2026-06-01", "2026-06-02")
    ]
    assert codes == [["never_gives"], []]


def condition_of(text: str, trigger: str) -> Condition:
    """Read a condition that no one has checked."""
    problems = Problems("p.yaml")
    names = Names(2, "USD", calendar_of("America/New_York"))
    tree = read_tree(DERIVED + METRICS + f"when: {text}\n", problems)
    assert isinstance(tree, Mapping)
    read_derived(tree.entries["derived"], names, problems)
    read_metrics(tree.entries["metrics"], names, problems, tree.entries["derived"])
    read_segments(tree.entries["segments"], names, problems)
    return WhenReader(problems, trigger, names).condition(tree.entries["when"])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_is_said_to_be_impossible_no_event_fulfils(data: st.DataObject) -> None:
    tests = data.draw(
        st.lists(conditions("purchase").map(lambda test: written("{$test}", test=test)), min_size=1, max_size=4)
    )
    turned = [data.draw(st.sampled_from([test, test, written("{not: $test}", test=test)])) for test in tests]
    condition = condition_of(written("{all: [$value]}", value=", ".join(turned)), "purchase")
    calendar = calendar_of("America/New_York")
    if Possibilities("USD", calendar).may_hold(condition):
        return
    for event in data.draw(st.lists(purchases, min_size=5, max_size=20)):
        assert not Facts.before(event, MemberState(), calendar).holds(condition)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_an_event_fulfils_is_possible(data: st.DataObject) -> None:
    event = data.draw(purchases)
    facts = Facts.before(event, MemberState(), calendar_of("America/New_York"))
    tests = data.draw(st.lists(conditions("purchase"), min_size=2, max_size=8))
    parts = [condition_of(written("{all: [{$test}]}", test=test), "purchase") for test in tests]
    true = [part if facts.holds(part) else condition_of(written("{not: {$test}}", test=test), "purchase")
            for part, test in zip(parts, tests, strict=True)]  # fmt: skip
    assert facts.holds(AllOf(tuple(true)))
    assert Possibilities("USD", calendar_of("America/New_York")).may_hold(*true)


@pytest.mark.parametrize("on", ["tier", "birthday", "anniversary"])
def test_a_rule_on_what_nobody_sends_is_checked_as_any_other(on: str) -> None:
    tiers = "tiers: {metric: status, window: lifetime, levels: [{id: low, from: 0}, {id: high, from: 10}]}\n"
    assert problems_of("active: {from: 2024-01-01T00:00:00Z}, when: {member.age: {gte: 18y}}", tiers, on) == []
    assert problems_of("when: {member.age: {gte: 18y}, all: [{member.age: {lt: 18y}}]}", tiers, on) == [
        ("never_matches", "18y}}]}}")
    ]
