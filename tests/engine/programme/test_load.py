"""Loading a programme: scalars mean what is written, and every mistake is named with its place and the way out."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.programme.conditions import AllOf, Comparison, FieldTest
from engine.programme.file.currencies import MINOR_DIGITS
from engine.programme.file.load import Loaded, load_file, load_programme, refused
from engine.programme.file.nodes import plain
from engine.programme.file.problems import Severity
from engine.programme.model import FixedAmount, Programme, RatedAmount, Rounding, Rule
from tests.conformance.cases import all_cases
from tests.places import EXAMPLES
from tests.programme_text import written
from tests.strategies.programmes import programme_texts

if TYPE_CHECKING:
    from pathlib import Path

GROCERY = EXAMPLES / "grocery" / "programme.yaml"
HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\nrules:\n"
ACCEPTANCE = [json.dumps(plain(case.programme)) for case in all_cases() if case.programme is not None]
NO_RULES = HEAD.replace("rules:", "rules: []")
GIVE = "give: [{points: 1}]"


def load(text: str) -> Loaded:
    return load_programme(text, "p.yaml")


def good(text: str) -> Programme:
    result = load(text)
    assert result.programme is not None, "\n".join(map(str, result.problems))
    return result.programme


def only_rule(rule: str, currency: str = "USD") -> Rule:
    (result,) = good(HEAD.replace("USD", currency) + f"- {rule}").rules
    return result


def when(test: str, on: str = "purchase") -> list[FieldTest]:
    condition = only_rule(written("{id: a, on: $on, when: {$test}, $give}", on=on, test=test, give=GIVE)).when
    assert isinstance(condition, AllOf)
    return [part for part in condition.parts if isinstance(part, FieldTest)]


def codes(text: str) -> list[str]:
    return [problem.code.value for problem in load(text).problems]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("NO", "NO"), ("17:00", "17:00"), ("010", "010"), ("1e3", "1e3"), ("~", "~"), ("2024-01-01", "2024-01-01"),
        ("'it''s'", "it's"), ('""', ""), ("true", "true"), ("0x1F", "0x1F"), ("会员", "会员"), ("50.10", "50.10"),
    ],
)  # fmt: skip
def test_text_means_what_is_written(written: str, meant: str) -> None:
    (test,) = when(f"purchase.channel: {written}")
    assert (test.comparison, test.value) == (Comparison.EQ, meant)


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [
        ("USD", "20.00", 2000), ("USD", "20", 2000), ("USD", "20.5", 2050), ("USD", "010", 1000), ("USD", "0.29", 29),
        ("JPY", "20", 20), ("KWD", "1.234", 1234), ("CLF", "0.0001", 1), ("USD", "92233720368547758.07", 2**63 - 1),
    ],
)  # fmt: skip
def test_money_is_written_in_major_units_and_held_in_minor_ones(currency: str, amount: str, minor: int) -> None:
    rule = only_rule(
        written("{id: a, on: purchase, when: {purchase.amount: $amount}, $give}", amount=amount, give=GIVE), currency
    )
    assert isinstance(rule.when, AllOf)
    (test,) = rule.when.parts
    assert isinstance(test, FieldTest)
    assert test.value == minor


@pytest.mark.parametrize(
    ("currency", "amount", "code"),
    [
        ("USD", "20.001", "too_precise"), ("USD", "20.000", "too_precise"), ("JPY", "20.0", "too_precise"),
        ("USD", "-1", "out_of_range"), ("USD", "92233720368547758.08", "out_of_range"), ("USD", "1e3", "wrong_type"),
        ("USD", "'1,000'", "wrong_type"), ("USD", "1_000", "wrong_type"), ("USD", ".5", "wrong_type"),
        ("USD", "5.", "wrong_type"), ("USD", "9" * 5000, "wrong_type"), ("USD", "NaN", "wrong_type"),
        ("USD", "٣", "wrong_type"), ("USD", "", "missing_value"), ("USD", "{}", "missing_value"),
    ],
)  # fmt: skip
def test_money_that_cannot_be_meant_is_refused(currency: str, amount: str, code: str) -> None:
    text = HEAD.replace("USD", currency) + written(
        "- {id: a, on: purchase, when: {purchase.amount: $amount }, $give}", amount=amount, give=GIVE
    )
    assert codes(text) == [code]


def test_every_currency_has_its_digits() -> None:
    assert len(MINOR_DIGITS) > 150
    assert [MINOR_DIGITS[code] for code in ("USD", "CNY", "JPY", "KWD", "CLF", "UGX", "HUF")] == [2, 2, 0, 3, 4, 0, 2]
    assert not {"XAU", "XTS", "HRK"} & MINOR_DIGITS.keys()


def test_conditions_are_read_in_the_order_written() -> None:
    tests = when("purchase.amount: {gte: 1.00, lt: 2.00}, purchase.store: [a, b], event.attributes.till: 7")
    assert [(test.of.path, test.comparison.value, test.value) for test in tests] == [
        ("purchase.amount", "gte", 100), ("purchase.amount", "lt", 200), ("purchase.store", "in", ("a", "b")),
        ("event.attributes.till", "eq", "7"),
    ]  # fmt: skip
    assert [test.value for test in when("share.verified: true", on="share")] == [True]


def test_gives_are_exact_fractions() -> None:
    give = "[{points: 7}, {points: {amount: 8}}, {points: {rate: 0.29, per: 2.00, of: purchase.amount, round: ceil}}]"
    fixed, amount, rated = (
        give.amount for give in only_rule(written("{id: a, on: purchase, give: $give}", give=give)).gives
    )
    assert (fixed, amount) == (FixedAmount(7), FixedAmount(8))
    assert isinstance(rated, RatedAmount)
    assert (rated.numerator, rated.denominator, rated.rounding) == (29, 20_000, Rounding.CEIL)


def test_the_digest_tells_what_is_said_and_not_how() -> None:
    plain = HEAD + "- {id: a, on: signup, give: [{points: 5}]}"
    block = "# hello\n" + HEAD + "- give:\n  - points: '5'\n  on: signup\n  id: a\n"
    assert good(plain).digest == good(block).digest
    assert good(plain).digest != good(plain.replace("5", "6")).digest


ONE_RULE = "- {id: a, on: purchase, %s}\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "suggestion"),
    [
        (HEAD.replace("schema:", "shema:"), 1, 1, "unknown_field", "schema"),
        (HEAD.replace("guerdon/1", "guerdon/2"), 1, 9, "unknown_value", "guerdon/1"),
        (HEAD.replace("UTC", "Asia/Shangai"), 3, 11, "unknown_value", "Asia/Shanghai"),
        (HEAD.replace("USD", "usd"), 4, 11, "unknown_value", "USD"),
        (HEAD + "- {id: a, on: purchse, give: [{points: 1}]}", 6, 15, "unknown_value", "purchase"),
        (HEAD + ONE_RULE % ("wen: {}, " + GIVE), 6, 25, "unknown_field", "when"),
        (HEAD + ONE_RULE % ("when: {purchase.chanel: app}, " + GIVE), 6, 32, "unknown_field", "purchase.channel"),
        (HEAD + ONE_RULE % ("when: {share.object: app}, " + GIVE), 6, 32, "other_event", None),
        (HEAD + ONE_RULE % ("when: {purchase.amount: {gtee: 1}}, " + GIVE), 6, 50, "unknown_field", "gte"),
        (HEAD + ONE_RULE % ("when: {purchase.store: {gte: 1}}, " + GIVE), 6, 49, "wrong_test", None),
        (HEAD + ONE_RULE % ("when: {purchase.store: []}, " + GIVE), 6, 48, "never_matches", None),
        (HEAD + ONE_RULE % f"when: [purchase.store], {GIVE}", 6, 31, "wrong_type", None),
        (HEAD + "- {id: a, on: share, when: {share.verified: yes}, give: [{points: 1}]}", 6, 45, "wrong_type", None),
        (HEAD + ONE_RULE % "give: [{point: 1}]", 6, 33, "unknown_field", "points"),
        (HEAD + ONE_RULE % "give: [{points: 0}]", 6, 41, "out_of_range", None),
        (HEAD + ONE_RULE % "give: [{points: 1.5}]", 6, 41, "wrong_type", None),
        (HEAD + ONE_RULE % "give: {points: 1}", 6, 31, "wrong_type", None),
        (HEAD + ONE_RULE % "give: []", 6, 31, "never_gives", None),
        (HEAD + ONE_RULE % "priority: high, give: [{points: 1}]", 6, 35, "wrong_type", None),
        (HEAD + ONE_RULE % "give: [{points: {amount: 1, rate: 2}}]", 6, 59, "contradiction", None),
        (HEAD + "- {on: signup, give: [{points: 1}]}", 6, 3, "missing_field", None),
        (HEAD + "- {id: '', on: signup, give: [{points: 1}]}", 6, 8, "out_of_range", None),
        (HEAD + '- {id: "a\\0", on: signup, give: [{points: 1}]}', 6, 8, "out_of_range", None),
        (HEAD + "- 5", 6, 3, "wrong_type", None),
        (HEAD.replace("rules:", "rules: 5"), 5, 8, "wrong_type", None),
        ("[]", 1, 1, "wrong_type", None),
        ("", 1, 1, "missing_field", None),
        ("# nothing\n", 1, 1, "missing_field", None),
        (HEAD + "- {id: a, on: signup, id: b, give: [{points: 1}]}", 6, 23, "duplicate_key", None),
        (HEAD + "- &x {id: a, on: signup, give: [{points: 1}]}", 6, 3, "anchor", None),
        (HEAD + "- {id: !!str a, on: signup, give: [{points: 1}]}", 6, 8, "tag", None),
        (HEAD + "- {id: a, on: signup, give: [{points: 1}]}\n---\n{}", 7, 1, "several_documents", None),
        (HEAD + "- {id: a, on: signup, give: [{points: 1}]", 6, 42, "yaml", None),
        (HEAD + "- {id: a\x07}", 6, 9, "yaml", None),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(
    text: str, line: int, column: int, code: str, suggestion: str | None
) -> None:
    result = load(text)
    first = result.errors[0] if code != "unknown_field" else next(p for p in result.errors if p.code == code)
    assert (first.code, first.line, first.column, first.suggestion) == (code, line, column, suggestion), str(first)
    assert str(first).startswith(f"p.yaml:{line}:{column}: ")
    assert result.programme is None


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ("{per: member, every: day}", "contradiction"),
        ("{max: 1, times: 1, per: member, every: day}", "contradiction"),
        ("{times: 1, per: member, every: day, over: trim}", "contradiction"),
        ("{max: 1, every: day}", "missing_field"),
        ("{max: 0, per: member, every: day}", "out_of_range"),
        ("{max: 1, per: membr, every: day}", "unknown_value"),
        ("{max: 1, per: member, every: dya}", "unknown_value"),
        ("{max: 1, per: member, every: day, over: cut}", "unknown_value"),
        ("{max: 5, per: member, every: day, over: refuse}", "never_gives"),
        ("{max: 9, per: member, every: day}, {max: 8, per: member, every: day}", "duplicate_limit"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(limit: str, code: str) -> None:
    assert codes(HEAD + written("- {id: a, on: signup, give: [{points: 6}], limits: [$limit]}", limit=limit)) == [code]


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("metrics: {m: {count: refund}}\n" + NO_RULES, 1),
        (HEAD + ONE_RULE % written("draw: {chance: 1%, commit: $value}, $give", value="0a" * 32, give=GIVE), 6),
        (HEAD + ONE_RULE % written("$give, limits: [{max: 1, per: campaign, every: 24h}]", give=GIVE), 6),
    ],
)  # fmt: skip
def test_language_that_comes_later_is_told_from_mistakes(part: str, place: int) -> None:
    result = load(part)
    assert result.errors == ()
    assert {problem.code.value for problem in result.not_judged} == {"not_judged"}
    assert result.not_judged[0].line == place
    assert f"{place}:" in (refused(result, "p.yaml") or "")


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = HEAD.replace("USD", "USB") + (
        "- {id: a, on: purchase, when: {purchase.amout: 1.001}, give: [{points: x}]}\n"
        "- {id: a, on: purchase, wen: {}, give: [{points: {rate: -1, per: 0, of: purchase.store, round: up}}]}\n"
    )
    assert [(p.line, p.code.value) for p in load(text).problems] == [
        (4, "unknown_value"), (6, "unknown_field"), (6, "wrong_type"),
        (7, "duplicate_rule"), (7, "unknown_field"), (7, "out_of_range"), (7, "out_of_range"), (7, "wrong_type"),
        (7, "unknown_value"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("test", "codes_"),
    [
        ("purchase.amount: {gte: 2.00, lte: 1.00}", ["never_matches"]),
        ("purchase.amount: {gt: 1.00, lt: 1.01}", ["never_matches"]),
        ("purchase.amount: {lt: 0}", ["never_matches"]),
        ("purchase.amount: {eq: 1.00, gt: 1.00}", ["never_matches"]),
        ("purchase.currency: EUR", ["never_matches"]),
        ("purchase.amount: {gte: 1.00, lte: 1.00}", []),
        ("purchase.store: [a, b, a]", ["duplicate_value"]),
        ("purchase.currency: [USD, EUR]", ["unreachable_value"]),
    ],
)
def test_tests_that_contradict_each_other_are_found(test: str, codes_: list[str]) -> None:
    assert codes(HEAD + ONE_RULE % written("when: {$test}, $give", test=test, give=GIVE)) == codes_


def test_a_rate_without_a_limit_draws_a_warning_and_loads() -> None:
    result = load(HEAD + ONE_RULE % "give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]")
    assert result.programme is not None
    assert [(problem.code.value, problem.severity) for problem in result.problems] == [("unbounded", Severity.WARNING)]
    assert ": warning: " in str(result.problems[0])


@pytest.mark.parametrize(
    ("rule", "warned"),
    [
        ("give: [{cash: {amount: 1.00}}], limits: []", True),
        ("give: [{cash: {amount: 1.00}}], limits: [{times: 1, per: member}]", False),
        ("give: [{cash: {amount: 1.00}}, {points: 1}], limits: [{max: 9, unit: points, per: member}]", True),
        ("give: [{cash: {amount: 1.00}}, {points: 1}], limits: [{max: 9.00, unit: cash, per: member}]", False),
        ("give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}], limits: [{max: 9, per: member}]", False),
        ("give: [{cash: {amount: 1.00}}], limits: [{max: 9.00, per: campaign}]", False),
    ],
)
def test_what_nothing_bounds_draws_a_warning(rule: str, warned: bool) -> None:  # noqa: FBT001  the answer
    assert ("unbounded" in codes(HEAD + ONE_RULE % rule)) is warned


def test_what_no_rule_reads_draws_a_warning_each() -> None:
    names = (
        "derived: {net: purchase.amount - purchase.tax, used: purchase.amount - purchase.tax}\n"
        "metrics: {seen: {count: purchase}, sum: {sum: derived.used}}\nsegments: {rare: {history.seen: 1}}\n"
    )
    unread = [problem for problem in load(names + NO_RULES).problems if problem.code == "unread"]
    assert [(problem.line, problem.column) for problem in unread] == [(1, 11), (2, 36), (3, 12)]
    assert "member.segment: {contains: rare}" in unread[2].message


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)


CONTRADICTORY = HEAD + "- {id: a, on: purchase, when: {purchase.tax: {lt: 0}, all: [%s]}, give: [{points: 1}]}"


@pytest.mark.parametrize(
    "text",
    [
        BOMB, "x" * 1_000_001, "[" * 900_000, "{" * 900_000, "- " * 450_000, "- a\n" * 240_000,
        HEAD + "- {id: a}\n" * 20_000, "[{a: " * 100_000,
        HEAD + "- {id: a, on: purchase, priority: " + "9" * 900_000 + "}", "? " * 400_000, '"' + "a" * 900_000,
        "!" * 900_000, "&" * 900_000, "*" * 900_000, "a: |\n" + " x\n" * 300_000, "%YAML 9.9\n---\n", "\ud800", "\x00",
        HEAD + "- {id: a, on: purchase, when: {purchase.store: {in: [" + "a, " * 90_000 + "]}}, give: []}",
        "<<: {a: b}", "a: b: c", "? [a]\n: b", "%TAG ! tag:x:\n---\n", HEAD + ("- {id: " + "x" * 300 + "}\n") * 3000,
        HEAD + "".join(written("- {id: a$n, oon: b}\n", n=n) for n in range(30_000)),
        CONTRADICTORY % ", ".join(written("{purchase.amount: {ne: $n}}", n=n) for n in range(6_000)),
        CONTRADICTORY
        % ", ".join(written("{any: [{purchase.tax: $n}, {purchase.brand: b}]}", n=n) for n in range(2_000)),
        CONTRADICTORY % ", ".join("{time.day: 30, time.month: 2, time.weekday: mon}" for n in range(2_000)),
    ],
    ids=range(28),
)  # fmt: skip
def test_a_hostile_file_ends_in_an_error_soon(text: str) -> None:
    began = time.process_time()
    result = load(text)
    assert result.programme is None
    assert result.errors
    assert time.process_time() - began < 2


def test_a_file_that_is_not_there_or_not_text_is_a_problem_too(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("# ü\nname: café".encode() + b"\xe9")
    assert [problem.code.value for problem in load_file(tmp_path / "gone.yaml").problems] == ["unreadable"]
    assert [problem.code.value for problem in load_file(tmp_path).problems] == ["unreadable"]
    (latin,) = load_file(tmp_path / "latin.yaml").problems
    assert (latin.code.value, latin.line, latin.column) == ("yaml", 2, 11)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + GROCERY.read_bytes().replace(b"\n", b"\r\n"))
    assert load_file(tmp_path / "p.yaml").programme == load_file(GROCERY).programme


def test_the_example_has_no_problem() -> None:
    result = load_file(GROCERY)
    assert result.problems == ()
    assert result.programme is not None
    assert len(result.programme.rules) == 5


LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
PIECES = ["[", "]", "{", "}", ": ", ", ", "\n", "\r", "\t", "*a", "&a ", "!!x ", "- ", "? ", "|\n", "'", '"', "#", "%",
          "<<: ", "---\n", "会员", "🎉", "\x07", "\u2028", "\x85", "\ud800", "\x00"]  # fmt: skip


def assert_told(text: str) -> None:
    """Hold that whatever stands in a file, it is a programme or has errors, each at a place within the file."""
    result = load(text)
    assert (result.programme is None) == bool(result.errors)
    lines = LINE_BREAK.split(text)
    for problem in result.problems:
        assert problem.message
        assert 1 <= problem.line <= len(lines), str(problem)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, str(problem)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_ends_in_problems_and_never_in_a_fault(data: st.DataObject) -> None:
    text = data.draw(programme_texts())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        start = data.draw(st.integers(0, len(text)))
        damage = data.draw(st.text(max_size=3) | st.sampled_from(PIECES) | st.just(text[start : start + 30]))
        text = text[:at] + damage + text[at + data.draw(st.integers(0, 5)) :]
    assert_told(text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_acceptance_programme_with_a_word_out_of_place_ends_in_problems(data: st.DataObject) -> None:
    words = re.split(r"(\W)", data.draw(st.sampled_from(ACCEPTANCE)))
    for _ in range(data.draw(st.integers(1, 3))):
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(words) | st.sampled_from(PIECES))
    assert_told("".join(words))


@given(st.text(alphabet=st.characters(codec=None), max_size=40))
def test_any_text_at_all_ends_in_problems(text: str) -> None:
    assert_told(text)


SECTIONS = """
points: {validity: 12mo, round_expiry: none, liability_per_point: 0.01}
refunds: {window: 90d, negative: unlimited}
tiers:
  metric: status
  window: calendar_year
  downgrade: balance_based
  grace: 30d
  levels: [{id: regular, from: 0}, {id: silver, from: 1000, benefits: [free-shipping]}, {id: gold, from: 5000}]
referral:
  attribution: first_touch
  touch_window: 90d
  claim_window: 7d
  max_per_referrer: {times: 20, every: year}
  block: [self, existing_member, same_identity, cycle]
  flag:  [same_device, same_ip_and_user_agent, burst]
catalogue:
- {id: mug, points: 500, kind: gift, stock: 100}
- {id: five-off, points: 500, kind: coupon, min_order: 20.00}
- {id: pay-with-points, kind: money, points_per: {100: 1.00}, min_points: 500, max_share: 50%}
contests: [{id: c, metric: points, period: month, winners: 10}]
reserve_for: 7d
"""


def test_every_section_of_the_language_is_accepted_and_judged() -> None:
    result = load(NO_RULES + SECTIONS)
    assert result.errors == ()
    assert result.not_judged == ()


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ("tiers: {metric: status, window: lifetime, levels: [{id: a, from: 0}, {id: b, from: 0}]}", "contradiction"),
        ("tiers: {metric: status, window: lifetime, levels: [{id: a, from: 5}]}", "contradiction"),
        ("tiers: {metric: status, window: lifetime, levels: [{id: a, from: 0}, {id: a, from: 5}]}", "contradiction"),
        ("tiers: {metric: sttus, window: lifetime, levels: [{id: a, from: 0}]}", "unknown_value"),
        ("tiers: {metric: status, window: rolling, levels: [{id: a, from: 0}]}", "unknown_value"),
        ("tiers: {window: lifetime, levels: [{id: a, from: 0}]}", "missing_field"),
        ("points: {validity: long}", "wrong_type"),
        ("tiers: {metric: status, window: lifetime, levels: []}", "missing_value"),
        ("refunds: {negative: never}", "unknown_value"), ("refunds: {windw: 90d}", "unknown_field"),
        ("referral: {block: [slef]}", "unknown_value"),
        ("referral: {max_per_referrer: {every: year}}", "missing_field"),
        ("catalogue: [{id: a, kind: gift}]", "missing_field"), ("catalogue: {}", "wrong_type"),
        ("catalogue: [{id: a, kind: money, points_per: 5}]", "wrong_type"), ("reserve_for: 7", "wrong_type"),
        ("contests: [{id: c, metric: luck, period: month, winners: 1}]", "unknown_value"),
        (
            "contests: [{id: c, metric: spend, winners: 1, period: {from: 2026-02-01, until: 2026-02-01}}]",
            "never_matches",
        ),
        ("contests: [{id: c, metric: points, period: {from: 2026-01-02}, winners: 1}]", "missing_field"),
        ("catalogue: [{id: a, kind: gift, points: 1}, {id: a, kind: gift, points: 2}]", "contradiction"),
    ],
)  # fmt: skip
def test_a_section_that_cannot_be_meant_is_refused(section: str, code: str) -> None:
    assert [problem.code.value for problem in load(NO_RULES + "\n" + section).errors] == [code]


def test_points_that_never_lapse_are_judged() -> None:
    assert load(NO_RULES + "\npoints: {validity: none, liability_per_point: 0.01}").problems == ()
