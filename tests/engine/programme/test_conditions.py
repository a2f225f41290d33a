"""Conditions: what each test means, above all of a value that is not there, at midnight and when clocks change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.member.state import MemberState
from engine.programme.compile.fields import FieldReader
from engine.programme.compile.module import compile_programme
from engine.programme.conditions import Duration, Field, Kind, LocalTime
from engine.programme.file.load import load_programme
from engine.programme.interpret.facts import Facts, millionths
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.localtime import Calendar, calendar_of
from engine.programme.rules.occurrence import Occurrence
from schemas.events import Activity, Item, Purchase, Tender
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.programme_text import written

if TYPE_CHECKING:
    from engine.programme.conditions import LocalPart
    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge
    from schemas.events import MemberEvent


def programme(when: str, on: str = "purchase", timezone: str = "UTC", head: str = "") -> Programme:
    text = f"schema: guerdon/1\nprogramme: p\ntimezone: {timezone}\ncurrency: USD\n{head}\nrules:\n"
    result = load_programme(
        text + written("- {id: r, on: $on, when: {$when}, give: [{points: 1}]}", on=on, when=when), "p.yaml"
    )
    assert result.programme is not None, "\n".join(map(str, result.problems))
    return result.programme


def matches(when: str, event: MemberEvent, timezone: str = "UTC", head: str = "") -> bool:
    """Whether the condition holds, for which both ways of judging must agree."""
    on = "activity" if isinstance(event, Activity) else "purchase"
    judged = programme(when, on, timezone, head)
    judges: list[Judge] = [compile_programme(judged, 1), Interpreter(judged, 1)]
    answers = [bool(judge.rewards_for(event, MemberState(), Occurrence(b"i" * 32, 1, 0))) for judge in judges]
    assert answers[0] == answers[1]
    return answers[0]


def purchase(at: str = "2024-03-01T10:00:00Z", **fields: Any) -> Purchase:
    given: dict[str, Any] = {
        "event_id": "e",
        "member_id": "m",
        "order_id": "o",
        "currency": "USD",
        "amount": 5000,
    } | fields
    return Purchase(occurred_at=instant_from_iso(at, "at"), **given)


def line(**fields: Any) -> Item:
    given: dict[str, Any] = {"line_id": "1", "sku": "s", "quantity": "1", "amount": 1000} | fields
    return Item(**given)


@pytest.mark.parametrize(
    ("test", "missing", "app", "web"),
    [
        ("app", False, True, False), ("[app, till]", False, True, False), ("{eq: app}", False, True, False),
        ("{ne: app}", True, False, True), ("{not_in: [app, till]}", True, False, True),
        ("{in: [app]}", False, True, False), ("{contains: p}", False, True, False),
        ("{starts_with: ap}", False, True, False), ("{exists: true}", False, True, True),
        ("{exists: false}", True, False, False), ("{ne: app, exists: true}", False, False, True),
    ],
)  # fmt: skip
def test_a_missing_text_fails_all_tests_but_three(test: str, missing: bool, app: bool, web: bool) -> None:  # noqa: FBT001  answers
    answers = [matches(f"purchase.channel: {test}", purchase(channel=channel)) for channel in (None, "app", "web")]
    assert answers == [missing, app, web]


@pytest.mark.parametrize("test", ["{gt: 0}", "{gte: 0}", "{lt: 9}", "{lte: 9}", "{between: [0, 9]}", "{in: [0, 1]}"])
def test_a_missing_amount_fails_and_a_zero_is_none(test: str) -> None:
    assert not matches(f"purchase.tax: {test}", purchase())
    assert matches(f"purchase.tax: {test}", purchase(tax=0)) == (test != "{gt: 0}")


def test_between_takes_both_ends_in() -> None:
    when = "purchase.amount: {between: [1.00, 2.00]}"
    assert [matches(when, purchase(amount=cents)) for cents in (99, 100, 200, 201)] == [False, True, True, False]


def test_conditions_nest() -> None:
    nested = "{all: [{purchase.store: s1}, {not: {purchase.brand: b}}]}"
    when = written("any: [{purchase.channel: app}, $nested], not: {purchase.tax: 1.00}", nested=nested)
    assert matches(when, purchase(channel="app"))
    assert not matches(when, purchase(channel="app", tax=100))
    assert matches(when, purchase(store="s1"))
    assert not matches(when, purchase(store="s1", brand="b"))
    assert not matches(when, purchase())


LINES = (line(sku="a", category="food", amount=3000, quantity="1.5"), line(sku="b", amount=2000, brand="x"))


@pytest.mark.parametrize(
    ("test", "answer", "without_lines"),
    [
        ("items: {some: {category: food}}", True, False), ("items: {some: {category: toys}}", False, False),
        ("items: {all: {amount: {gte: 20.00}}}", True, False), ("items: {all: {category: food}}", False, False),
        ("items: {none: {category: toys}}", True, False), ("items: {none: {brand: x}}", False, False),
        ("items: {sum: amount, where: {category: food}, gte: 30.00}", True, False),
        ("items: {sum: amount, where: {category: food}, gt: 30.00}", False, False),
        ("items: {sum: amount, lte: 50.00}", True, False), ("items: {sum: quantity, eq: 2.5}", True, False),
        ("items: {sum: amount, where: {category: toys}, lt: 1.00}", True, False),
        ("items: {some: {any: [{category: toys}, {brand: x}]}}", True, False),
        ("purchase.units: 2.5", True, False), ("purchase.units: {exists: false}", False, True),
        ("purchase.categories: {contains: food}", True, False),
        ("purchase.brands: {contains_any: [y, x]}", True, False),
        ("purchase.skus: {contains_all: [a, b]}", True, False), ("purchase.skus: {contains_all: [a, c]}", False, False),
        ("purchase.categories: {exists: true}", True, False), ("purchase.categories: {exists: false}", False, True),
        ("not: {purchase.categories: {contains: food}}", False, True),
    ],
)  # fmt: skip
def test_lines_are_tested_and_an_order_without_any_has_no_answer(test: str, answer: bool, without_lines: bool) -> None:  # noqa: FBT001  answers
    assert matches(test, purchase(items=LINES)) == answer
    assert matches(test, purchase()) == matches(test, purchase(items=())) == without_lines


def test_a_tender_is_the_sum_of_its_kind_and_0_where_there_is_none() -> None:
    tenders = (Tender(kind="card", amount=100), Tender(kind="gift card", amount=50), Tender(kind="card", amount=200))
    assert matches("purchase.tender.card: 3.00, purchase.tender.gift card: 0.50", purchase(tenders=tenders))
    assert matches("purchase.tender.card: 0", purchase())


def test_a_derived_field_is_missing_where_one_of_its_fields_is() -> None:
    head = "derived: {net: purchase.amount - purchase.tender.gift_card - purchase.tax}"
    gift = (Tender(kind="gift_card", amount=6000),)
    assert matches("derived.net: 49.00", purchase(tax=100), head=head)
    assert matches("derived.net: {exists: false}", purchase(), head=head)
    assert matches("derived.net: {lt: 0}", purchase(tax=100, tenders=gift), head=head)


@pytest.mark.parametrize(
    ("test", "at", "answer"),
    [
        ("time.weekday: sun", "2024-03-10T04:59:59Z", False), ("time.weekday: sun", "2024-03-10T05:00:00Z", True),
        ("time.weekday: sun", "2024-03-11T03:59:59Z", True), ("time.weekday: sun", "2024-03-11T04:00:00Z", False),
        ("time.date: 2024-03-10", "2024-03-11T03:59:59Z", True), ("time.day: 10", "2024-03-11T04:00:00Z", False),
        ("time.month: 3", "2024-03-01T04:59:59Z", False), ("time.month: 3", "2024-03-01T05:00:00Z", True),
        # 22:00 to 02:00 wraps midnight; `from` is in, `to` is out.
        ("time.clock: {from: 22:00, to: 02:00}", "2024-03-01T03:00:00Z", True),
        ("time.clock: {from: 22:00, to: 02:00}", "2024-03-01T06:59:59.999Z", True),
        ("time.clock: {from: 22:00, to: 02:00}", "2024-03-01T07:00:00Z", False),
        ("time.clock: {from: 22:00, to: 02:00}", "2024-03-01T02:59:59Z", False),
        # 10 March has 23 hours: 02:00 to 03:00 does not come; 3 November has 25: 01:00 to 02:00 comes twice.
        ("time.clock: {from: 02:00, to: 03:00}", "2024-03-10T07:00:00Z", False),
        ("time.clock: {from: 03:00, to: 04:00}", "2024-03-10T07:00:00Z", True),
        ("time.clock: {from: 01:00, to: 02:00}", "2024-11-03T05:30:00Z", True),
        ("time.clock: {from: 01:00, to: 02:00}", "2024-11-03T06:30:00Z", True),
        ("time.clock: {from: 01:00, to: 02:00}", "2024-11-03T07:30:00Z", False),
        ("time.clock: {from: 17:00}", "2024-03-01T22:00:00Z", True),
        ("time.clock: {to: 17:00}", "2024-03-01T22:00:00Z", False),
        ("purchase.occurred_at: {gte: 2024-03-10, lt: 2024-03-11}", "2024-03-11T03:59:59Z", True),
        ("purchase.occurred_at: {gte: 2024-03-10, lt: 2024-03-11}", "2024-03-10T04:59:59Z", False),
        ("purchase.occurred_at: {gte: 2024-03-10T05:00:00Z}", "2024-03-10T05:00:00Z", True),
    ],
)  # fmt: skip
def test_times_are_those_of_the_wall_in_new_york(test: str, at: str, answer: bool) -> None:  # noqa: FBT001  the answer
    assert matches(test, purchase(at), "America/New_York") == answer


def test_an_activity_has_fields_of_its_own() -> None:
    review = Activity(event_id="e", member_id="m", occurred_at=0, kind="review", score=-3)
    assert matches("activity.kind: review, activity.quantity: 1, activity.score: {lt: 0}", review)
    assert matches("activity.object: {exists: false}", review)


ALONE = "- {id: r, on: %s, when: {%s}, give: [{points: 1}]}"


def codes(when: str, on: str = "purchase", head: str = "") -> list[str]:
    text = f"schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\n{head}\nrules:\n{ALONE % (on, when)}"
    return [problem.code.value for problem in load_programme(text, "p.yaml").problems]


@pytest.mark.parametrize(
    "when",
    [
        "purchase.amount: {between: [2.00, 1.00]}", "purchase.amount: {between: [1.00, 2.00], gt: 2.00}",
        "purchase.amount: {gte: 1.00, lte: 1.00, ne: 1.00}", "purchase.channel: {eq: app, ne: app}",
        "purchase.channel: {in: [a, b], not_in: [a, b]}", "purchase.channel: {eq: app, starts_with: w}",
        "purchase.channel: {exists: false, eq: app}", "purchase.amount: {exists: false}",
        "purchase.channel: {exists: false, contains: a}", "time.day: 32", "time.month: {gt: 12}", "time.day: {lt: 1}",
        "time.weekday: {in: [sat, sun], ne: sat, not_in: [sun]}", "time.clock: {from: 17:00, to: 17:00}",
        "time.date: {gte: 2024-03-02, lt: 2024-03-02}", "any: [{purchase.amount: {lt: 0}}]",
        "items: {some: {amount: {gt: 2.00, lt: 2.01}}}", "not: {purchase.amount: {lt: 0}}",
        "all: [{purchase.channel: app}, {purchase.channel: web}]",
        "purchase.occurred_at: {gte: 2024-03-02, lt: 2024-03-01}", "purchase.units: {lt: 0}",
    ],
)  # fmt: skip
def test_what_can_never_hold_is_found(when: str) -> None:
    assert "never_matches" in codes(when)


@pytest.mark.parametrize(
    ("when", "code"),
    [
        ("purchase.categories: food", "wrong_test"), ("purchase.categories: [food]", "wrong_test"),
        ("purchase.categories: {eq: food}", "wrong_test"), ("time.clock: 17:00", "wrong_test"),
        ("time.clock: {from: 25:00}", "wrong_type"), ("time.clock: {start: 17:00}", "unknown_field"),
        ("time.weekday: saturday", "unknown_value"), ("time.date: 2024-02-30", "wrong_type"),
        ("purchase.channel: {in: app}", "wrong_type"), ("purchase.amount: {between: 5}", "wrong_type"),
        ("purchase.channel: {gt: a}", "wrong_test"), ("purchase.channel: {exists: maybe}", "wrong_type"),
        ("any: {purchase.channel: app}", "wrong_type"), ("any: []", "wrong_type"),
        ("items: {some: {category: a}, all: {category: b}}", "contradiction"), ("items: {}", "contradiction"),
        ("items: {sum: amount}", "missing_value"), ("items: {sum: price, gte: 1}", "unknown_value"),
        ("items: {some: {purchase.channel: a}}", "unknown_field"), ("derived.net: 1", "unknown_field"),
        ("purchase.occurred_at: {gte: 2024-03-01T10:00:00}", "wrong_type"), ("activity.kind: a", "other_event"),
        ("purchase.tender.card: x", "wrong_type"), ("purchase.units: 0.0000001", "too_precise"),
    ],
)  # fmt: skip
def test_a_test_that_cannot_be_meant_is_refused(when: str, code: str) -> None:
    assert codes(when) == [code]


@pytest.mark.parametrize(
    ("derived", "code"),
    [
        ("purchase.amount * 2", "wrong_type"), ("purchase.amount -", "wrong_type"), ("", "missing_value"),
        ("purchase.amount - purchase.units", "wrong_type"), ("purchase.channel - purchase.store", "wrong_type"),
        ("purchase.amount - purchase.txa", "unknown_field"), ("purchase.amount - activity.score", "other_event"),
    ],
)  # fmt: skip
def test_a_derived_field_that_cannot_be_meant_is_refused(derived: str, code: str) -> None:
    head = written("derived: {net: '$derived'}", derived=derived) if derived else "derived: {net: }"
    assert set(codes("derived.net: {gte: 0}", head=head)) == {code}


@settings(max_examples=300)
@given(st.integers(0, 10**18 - 1))
def test_a_quantity_is_read_exactly(number: int) -> None:
    text = f"{number // 10**6}.{number % 10**6:06}".rstrip("0").rstrip(".")
    assert millionths(text) == number


@pytest.mark.parametrize(
    ("timezone", "at", "duration", "after"),
    [
        ("UTC", "2024-01-31T10:00:00Z", Duration(months=1), "2024-02-29T10:00:00Z"),
        ("UTC", "2023-01-31T10:00:00Z", Duration(months=1), "2023-02-28T10:00:00Z"),
        ("UTC", "2024-02-29T10:00:00Z", Duration(months=12), "2025-02-28T10:00:00Z"),
        ("America/New_York", "2024-03-09T17:00:00Z", Duration(days=1), "2024-03-10T16:00:00Z"),
        ("America/New_York", "2024-03-09T17:00:00Z", Duration(ms=86_400_000), "2024-03-10T17:00:00Z"),
        # 02:30 is skipped: an hour later; 01:30 comes twice: the first.
        ("America/New_York", "2024-03-09T07:30:00Z", Duration(days=1), "2024-03-10T07:30:00Z"),
        ("America/New_York", "2024-11-02T05:30:00Z", Duration(days=1), "2024-11-03T05:30:00Z"),
        ("Pacific/Apia", "2011-12-29T20:00:00Z", Duration(days=1), "2011-12-30T20:00:00Z"),
    ],
)  # fmt: skip
def test_days_and_months_keep_the_time_on_the_wall(timezone: str, at: str, duration: Duration, after: str) -> None:
    assert iso_from_instant(Calendar(timezone).after(instant_from_iso(at, "at"), duration)) == after


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Asia/Gaza"]),
    st.integers(0, 4_000_000_000_000),
    st.integers(1, 800),
)
def test_days_are_counted_on_the_wall(timezone: str, at_ms: int, days: int) -> None:
    calendar = Calendar(timezone)
    moved_ms = calendar.local_time(at_ms) + days * 86_400_000
    assert calendar.after(at_ms, Duration(days=days)) == calendar.instant_of(moved_ms)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/Sao_Paulo", "Asia/Gaza"]),
    st.integers(0, 4_000_000_000_000),
)
def test_the_first_instant_of_a_local_time_is_found(timezone: str, at_ms: int) -> None:
    calendar = Calendar(timezone)
    found_ms = calendar.instant_of(calendar.local_time(at_ms))
    assert found_ms <= at_ms
    assert calendar.local_time(found_ms) == calendar.local_time(at_ms)


def test_a_part_of_local_time_that_a_reader_forgets_is_an_error_and_not_another_part() -> None:
    field = Field("event.quarter", Kind.INTEGER, LocalTime(cast("LocalPart", "quarter")))
    calendar = calendar_of("UTC")
    activity = Activity(event_id="e", member_id="m", occurred_at=0, kind="visit")
    with pytest.raises(AssertionError, match="quarter"):
        Facts.before(activity, MemberState(), calendar).value_of(field)
    with pytest.raises(AssertionError, match="quarter"):
        FieldReader(calendar, {}).local(field)
