"""Explain why a condition does not hold: its first failing part, with the field, the wanted and the actual value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.explain.values import MISSING, elapsed, listed, quoted
from engine.programme.conditions import (
    ALWAYS,
    NUMBERS,
    AllOf,
    AnyOf,
    Comparison,
    Duration,
    FieldTest,
    Kind,
    Lines,
    Not,
)
from engine.programme.fields import LINE_TEXTS

if TYPE_CHECKING:
    from engine.explain.values import Wording
    from engine.programme.conditions import Condition, Literal
    from engine.programme.interpret.facts import Facts

_C = Comparison
_OF_SIZE = {
    _C.GT: "more than {}", _C.GTE: "at least {}", _C.LT: "less than {}", _C.LTE: "at most {}", _C.WITHIN: "at most {}",
}  # fmt: skip
_OF_TIME = {_C.GT: "after {}", _C.GTE: "{} or later", _C.LT: "before {}", _C.LTE: "{} or earlier"}
_PLAIN = {
    _C.EQ: "{}", _C.NE: "anything but {}", _C.IN: "{}", _C.NOT_IN: "anything but {}", _C.BETWEEN: "{}", _C.CLOCK: "{}",
    _C.CONTAINS: "{} in it", _C.CONTAINS_ANY: "{} in it", _C.CONTAINS_ALL: "{} in it",
    _C.STARTS_WITH: "{} at its start",
}  # fmt: skip
_JOINED = {_C.BETWEEN: " to ", _C.CLOCK: " to ", _C.CONTAINS_ALL: " and "}


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what decided against a rule, with values as the author writes them."""

    says: str
    """A clause that follows "because"."""

    field: str | None = None
    wanted: str | None = None
    actual: str | None = None

    missing: str | None = None
    """How much more or less would have been enough, where the test has a threshold."""

    any_of: tuple[Finding, ...] = ()
    """Why each of several alternatives failed."""


def failure(condition: Condition, facts: Facts, wording: Wording) -> Finding:
    """Return why a condition does not hold."""
    if isinstance(condition, AllOf):
        first = next(part for part in condition.parts if not facts.holds(part))
        return failure(first, facts, wording)

    if isinstance(condition, AnyOf):
        if len(condition.parts) == 1:
            return failure(condition.parts[0], facts, wording)
        ways = tuple(failure(part, facts, wording) for part in condition.parts)
        says = f"none of {len(ways)} ways is open: {listed((way.says for way in ways), '; or ')}"
        return Finding(says, wanted=described(condition, wording), any_of=ways)

    if isinstance(condition, Not):
        return _excluded(condition.part, facts, wording)
    return _failed_test(condition, facts, wording)


def described(condition: Condition, wording: Wording) -> str:
    """Return a condition in words."""
    if isinstance(condition, AllOf):
        return listed((described(part, wording) for part in condition.parts), " and ") or "anything"
    if isinstance(condition, AnyOf):
        return "(" + listed((described(part, wording) for part in condition.parts), " or ") + ")"
    if isinstance(condition, Not):
        return f"not ({described(condition.part, wording)})"
    return _described_test(condition, wording)


def _described_test(test: FieldTest, wording: Wording) -> str:
    """Return a test in words."""
    if isinstance(test.of.source, Lines) and test.of.path == "items":
        lines = test.of.source
        if lines.sum is not None:
            return f"{_sum_of(lines, wording)} is {wanted_of(test, wording)}"
        return _of_lines(test, lines, wording)
    if test.comparison is _C.EXISTS:
        return f"{test.of.path} is {'there' if test.value is True else MISSING}"
    return f"{test.of.path} is {wanted_of(test, wording)}"


def wanted_of(test: FieldTest, wording: Wording) -> str:
    """Return what a test wants of its field."""
    if isinstance(test.of.source, Lines) and test.of.path in LINE_TEXTS:
        return _of_line_texts(test.of.source.where, wording)
    if test.comparison is _C.EXISTS:
        return "any value" if test.value is True else "no value"

    # the phrase of the comparison around its values
    phrases = _OF_TIME if test.of.kind in (Kind.DATE, Kind.INSTANT) else _OF_SIZE
    phrase = phrases.get(test.comparison) or _PLAIN[test.comparison]
    values: tuple[Literal, ...] = test.value if isinstance(test.value, tuple) else (test.value,)
    joined = _JOINED.get(test.comparison, " or ")
    return phrase.format(listed((wording.value(test.of.kind, value) for value in values), joined))


def threshold(subject: str, actual: str, wanted: str, missing: str | None) -> str:
    """Return the clause that compares a subject's value with the value that the rule wants."""
    enough = "" if missing is None else f"; {missing} would have been enough for that"
    return f"{subject} is {actual} and the rule wants {wanted}{enough}"


def _excluded(part: Condition, facts: Facts, wording: Wording) -> Finding:
    """Return which excluded part holds."""
    while isinstance(part, AllOf | AnyOf) and len(part.parts) == 1:
        part = part.parts[0]
    if isinstance(part, Not):
        return failure(part.part, facts, wording)

    words = described(part, wording)
    if isinstance(part, FieldTest) and part.of.path != "items":
        actual, excluded = _actual(part, facts, wording), wanted_of(part, wording)
        says = f"{part.of.path} is {actual} and the rule excludes {excluded}"
        return Finding(says, part.of.path, f"not {excluded}", actual)
    return Finding(f"the rule excludes it: {words}", wanted=f"not ({words})", actual=words)


def _failed_test(test: FieldTest, facts: Facts, wording: Wording) -> Finding:
    """Return why a test failed."""
    if isinstance(test.of.source, Lines) and test.of.path == "items":
        return _failed_lines(test, test.of.source, facts, wording)
    wanted, actual = wanted_of(test, wording), _actual(test, facts, wording)
    missing = _missing(test, facts, wording)
    return Finding(threshold(test.of.path, actual, wanted, missing), test.of.path, wanted, actual, missing)


def _failed_lines(test: FieldTest, lines: Lines, facts: Facts, wording: Wording) -> Finding:
    """Return why a test of the lines of an order failed: some, all, none, or their sum."""
    count = facts.value_of(test.of)
    if count is None:
        wanted = described(test, wording)
        return Finding(f"the purchase has no lines and the rule wants that {wanted}", "items", wanted, MISSING)

    if lines.sum is not None:
        wanted, actual = wanted_of(test, wording), wording.value(test.of.kind, count)
        missing = _missing(test, facts, wording)
        return Finding(threshold(_sum_of(lines, wording), actual, wanted, missing), "items", wanted, actual, missing)

    # some, all or none: in how many lines it is so
    wanted, total = _of_lines(test, lines, wording), len(facts.event.items)
    actual = f"{total - count if _is_all(test, lines) else count} of {total} lines"
    return Finding(f"the rule wants that {wanted}, and it is so in {actual}", "items", wanted, actual)


def _of_lines(test: FieldTest, lines: Lines, wording: Wording) -> str:
    if test.comparison is _C.GTE:
        return f"in some line {described(lines.where, wording)}"
    if _is_all(test, lines):
        assert isinstance(lines.where, Not)  # `_is_all` says so
        return f"in every line {described(lines.where.part, wording)}"
    return f"in no line {described(lines.where, wording)}"


def _is_all(test: FieldTest, lines: Lines) -> bool:
    """Whether the test means every line: that no line is otherwise."""
    return test.comparison is _C.EQ and isinstance(lines.where, Not)


def _sum_of(lines: Lines, wording: Wording) -> str:
    if lines.where == ALWAYS:
        return f"the {lines.sum} of all lines"
    return f"the {lines.sum} of lines where {described(lines.where, wording)}"


def _of_line_texts(where: Condition, wording: Wording) -> str:
    """Return what a test wants of the categories, brands or skus of all lines."""
    assert isinstance(where, AllOf)  # the loader makes it so
    (test,) = where.parts
    assert isinstance(test, FieldTest)
    if test.comparison is _C.EXISTS:
        return "any value"
    return f"{wanted_of(test, wording)} in it"


def _actual(test: FieldTest, facts: Facts, wording: Wording) -> str:
    """Return the value of a test's field, in words."""
    if isinstance(test.of.source, Lines) and test.of.path in LINE_TEXTS:
        name = LINE_TEXTS[test.of.path]
        texts = [getattr(line, name) for line in facts.event.items or ()]
        return listed(map(quoted, dict.fromkeys(text for text in texts if text is not None))) or MISSING
    value = facts.value_of(test.of)
    if value is not None and test.of.kind is Kind.AGE:
        return elapsed(_age_ms(value, facts, exact=_is_exact(test)))
    return wording.value(test.of.kind, value)


def _missing(test: FieldTest, facts: Facts, wording: Wording) -> str | None:
    """Return how much more or less would have passed the test; None where it does not compare sizes."""
    value = facts.value_of(test.of)
    if value is None or (test.of.path in LINE_TEXTS and isinstance(test.of.source, Lines)):
        return None
    bound = _bound(test, value, facts)
    if bound is None:
        return None
    if test.of.kind is Kind.AGE:
        short_ms = bound - facts.at_ms
        return f"{elapsed(abs(short_ms))} {'later' if short_ms > 0 else 'earlier'}"
    short = bound - value
    return f"{wording.number(test.of.kind, abs(short))} {'more' if short > 0 else 'less'}"


def _bound(test: FieldTest, value: int, facts: Facts) -> int | None:
    """Return the nearest value that passes the test (of an age, the nearest instant); None if it compares no sizes."""
    if test.of.kind not in NUMBERS | {Kind.AGE} or test.comparison not in (*_OF_SIZE, _C.BETWEEN):
        return None

    literals = test.value if isinstance(test.value, tuple) else (test.value,)
    bounds = [
        facts.calendar.after(value, each) if isinstance(each, Duration) else int(each)
        for each in literals
        if not isinstance(each, str)
    ]
    if test.comparison is _C.BETWEEN:
        actual = facts.at_ms if test.of.kind is Kind.AGE else value
        return bounds[0] if actual < bounds[0] else bounds[1]
    return bounds[0] + {_C.GT: 1, _C.LT: -1}.get(test.comparison, 0)


def _is_exact(test: FieldTest) -> bool:
    """Whether an age is compared by exact hours and minutes, not by local days."""
    literals = test.value if isinstance(test.value, tuple) else (test.value,)
    return any(isinstance(each, Duration) and each.ms for each in literals)


def _age_ms(since_ms: int, facts: Facts, *, exact: bool) -> int:
    if exact:
        return facts.at_ms - since_ms
    return facts.calendar.local_time(facts.at_ms) - facts.calendar.local_time(since_ms)
