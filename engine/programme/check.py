"""Check what the rules of a programme mean together: what can never match or never give."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.programme.conditions import (
    NUMBERS,
    AllOf,
    AnyOf,
    Comparison,
    Duration,
    FieldTest,
    Kind,
    Lines,
    LocalPart,
    LocalTime,
    Not,
    may_be_negative,
)
from engine.programme.facts import compared, passes
from engine.programme.literals import length_ms
from engine.programme.model import FixedAmount, MaxLimit, MultipliedAmount, Over, Phase, RatedAmount
from engine.programme.problems import Code, shown
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.programme.conditions import Condition, Field, Literal
    from engine.programme.model import Rule
    from engine.programme.problems import Problems

_TRUE_OF_MISSING = (Comparison.NE, Comparison.NOT_IN, Comparison.EXISTS)
_MEASURED = NUMBERS | {Kind.DATE, Kind.INSTANT, Kind.AGE}


def check_rules(rules: tuple[Rule, ...], currency: str | None, problems: Problems) -> None:
    """Record every contradiction within `rules`."""
    for rule in rules:
        check_condition(rule.when, currency, problems)
        if rule.challenge is not None:
            check_condition(rule.challenge.where, currency, problems)
        _check_limits(rule, problems)
        _check_multipliers(rule, rules, problems)
    _check_groups(rules, problems)


def tests_of(condition: Condition) -> Iterator[FieldTest]:
    """Yield every test that must hold for `condition` to hold."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from tests_of(part)
    elif isinstance(condition, FieldTest):
        yield condition


def branches_of(condition: Condition) -> Iterator[Condition]:
    """Yield the conditions within `condition` of which not all must hold."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from branches_of(part)
    elif isinstance(condition, AnyOf):
        yield from condition.parts
    elif isinstance(condition, Not):
        yield condition.part


def check_condition(condition: Condition, currency: str | None, problems: Problems) -> None:
    """Record every contradiction among the tests that must hold together."""
    by_field: dict[Field, list[FieldTest]] = {}
    for test in tests_of(condition):
        by_field.setdefault(test.of, []).append(test)
        if isinstance(test.of.source, Lines):
            check_condition(test.of.source.where, currency, problems)
    for field, tests in by_field.items():
        _check_field(field, tests, currency, problems)
    for branch in branches_of(condition):
        check_condition(branch, currency, problems)


def _check_field(field: Field, tests: list[FieldTest], currency: str | None, problems: Problems) -> None:
    exists = [test for test in tests if test.comparison is Comparison.EXISTS and test.value is False]
    if exists:
        needing = [test for test in tests if test.comparison not in _TRUE_OF_MISSING or test.value is True]
        if needing or not field.optional:
            message = f"{field.path} must be missing here and cannot be; the rule would never match"
            problems.error(exists[-1].place, Code.NEVER_MATCHES, message)
        return
    listed = next((test for test in tests if test.comparison in (Comparison.EQ, Comparison.IN)), None)
    candidates = _candidates(field, tests)
    if field.path == "purchase.currency" and currency is not None and listed is not None:
        candidates = [value for value in candidates if value == currency]
    testers = [_tester(test) for test in tests]
    possible = [value for value in candidates if all(passed(value) for passed in testers)]
    if not possible and candidates is not _ANYTHING and (candidates or listed is not None):
        message = f"no value of {field.path} passes all of its tests; the rule would never match"
        problems.error(tests[-1].place, Code.NEVER_MATCHES, message)
        return
    reachable = frozenset(possible)
    for test in tests:
        if test.comparison is Comparison.IN and not reachable.issuperset(_values(test)):
            message = f"not every value listed for {field.path} can pass its other tests; take those out"
            problems.warn(test.place, Code.UNREACHABLE_VALUE, message)


_ANYTHING: list[Literal] = []
"""Stands for values that cannot be listed and can always be found."""


def _candidates(field: Field, tests: list[FieldTest]) -> list[Literal]:  # noqa: PLR0911  one answer for each kind
    """Return values among which there is one that passes all tests, if there is any at all."""
    least, most = _domain(field)
    for test in tests:
        if test.comparison in (Comparison.EQ, Comparison.IN):
            return [value for value in _values(test) if not isinstance(value, int) or least <= value <= most]
    if field.kind is Kind.BOOLEAN:
        return [True, False]
    if field.kind is Kind.WEEKDAY:
        return list(range(7))
    if field.kind is Kind.CLOCK:
        return [start for test in tests for start in _values(test)[:1]]
    if field.kind is Kind.TEXT:
        return _texts(tests)
    if field.kind not in _MEASURED:
        return _ANYTHING
    near = [least, most]
    for test in tests:
        for value in _values(test):
            size = _size(value)
            near += [size - 1, size, size + 1]
    return [value for value in near if least <= value <= most]


def _texts(tests: list[FieldTest]) -> list[Literal]:
    """Return the longest beginning that is asked for: what begins so begins with all of them, or nothing does."""
    beginnings = [str(test.value) for test in tests if test.comparison is Comparison.STARTS_WITH]
    if len(beginnings) < 2:
        return _ANYTHING
    longest = max(beginnings, key=len)
    wanted = "".join(str(test.value) for test in tests if test.comparison is Comparison.CONTAINS)
    # The letter that no list can name keeps it apart from what `ne` and `not_in` exclude.
    return [longest + wanted + "\0"]


def _domain(field: Field) -> tuple[int, int]:
    if isinstance(field.source, LocalTime) and field.kind is Kind.INTEGER:
        return (1, 31) if field.source.part is LocalPart.DAY else (1, 12)
    return -INT64_MAX if may_be_negative(field) else 0, INT64_MAX


def _values(test: FieldTest) -> tuple[Literal, ...]:
    return test.value if isinstance(test.value, tuple) else (test.value,)


def _size(value: Literal) -> int:
    if isinstance(value, Duration):
        return length_ms(value)
    assert isinstance(value, int)  # noqa: S101  the loader lets only what has a size be measured
    return value


def _tester(test: FieldTest) -> Callable[[Literal], bool]:
    """Return what tells whether a value passes; a list is searched by hash, as it may be as long as a file."""
    if test.comparison not in (Comparison.IN, Comparison.NOT_IN):
        return partial(_passes, test)
    listed, wanted = frozenset(_values(test)), test.comparison is Comparison.IN
    return lambda value: (value in listed) is wanted


def _passes(test: FieldTest, value: Literal) -> bool:
    """Whether a value, which is not missing, passes; a length of time is tested by about how long it is."""
    if test.comparison is Comparison.EXISTS or test.of.kind is not Kind.AGE:
        return passes(test, value)
    sizes = tuple(_size(each) for each in _values(test))
    if test.comparison is Comparison.BETWEEN:
        return sizes[0] <= _size(value) <= sizes[1]
    within = test.comparison is Comparison.WITHIN
    return compared(Comparison.LTE if within else test.comparison, value, sizes[0])


def _check_limits(rule: Rule, problems: Problems) -> None:
    seen: list[tuple[type, object]] = []
    for limit in rule.limits:
        if (type(limit), limit.scope) in seen:
            message = f'rule "{rule.id}" has two such limits for one period; keep the smaller'
            problems.error(limit.place, Code.DUPLICATE_LIMIT, message)
        seen.append((type(limit), limit.scope))
        if isinstance(limit, MaxLimit) and limit.over is Over.REFUSE:
            _check_refusing(rule, limit, problems)


def warn_unbounded(rule: Rule, problems: Problems) -> None:
    """Record that a rule without a limit gives cash, or points by a basis that nothing bounds."""
    if any(give.type == "cash.granted" for give in rule.gives):
        message = f'rule "{shown(rule.id)}" gives cash and has no limit: nothing bounds what it costs'
        problems.warn(rule.place, Code.UNBOUNDED, message)
    elif any(isinstance(give.amount, RatedAmount) and give.amount.most is None for give in rule.gives):
        message = f'rule "{shown(rule.id)}" gives by a rate and has no limit: one large order gives without bound'
        problems.warn(rule.place, Code.UNBOUNDED, message)


def _check_refusing(rule: Rule, limit: MaxLimit, problems: Problems) -> None:
    for give in rule.gives:
        if isinstance(give.amount, FixedAmount) and give.unit == limit.scope.unit and give.amount.amount > limit.amount:
            message = f"{give.amount.amount} {give.unit} never fit under this limit of {limit.amount}: all are refused"
            problems.error(limit.place, Code.NEVER_GIVES, message)


def _check_groups(rules: tuple[Rule, ...], problems: Problems) -> None:
    """Record groups whose rules do not stand side by side: of several phases, or picked in several ways."""
    first: dict[str, Rule] = {}
    for rule in rules:
        if rule.group is None:
            continue
        known = first.setdefault(rule.group.id, rule)
        if known.phase is not rule.phase:
            message = f'group "{shown(rule.group.id)}" has rules of {known.phase} and {rule.phase}; keep to one phase'
            problems.error(rule.group.place, Code.CONTRADICTION, message)
        if known.group is not None and known.group.pick is not rule.group.pick:
            message = f'group "{shown(rule.group.id)}" picks {known.group.pick} and {rule.group.pick}; write one'
            problems.error(rule.group.place, Code.CONTRADICTION, message)


def _check_multipliers(rule: Rule, rules: tuple[Rule, ...], problems: Problems) -> None:
    phases = list(Phase)
    for give in rule.gives:
        if not isinstance(give.amount, MultipliedAmount):
            continue
        phase = give.amount.phase
        if phases.index(phase) >= phases.index(rule.phase):
            message = f"a multiplier of phase {phase} must be in a later one; give the rule a phase such as boost"
            problems.error(give.place, Code.CONTRADICTION, message)
        elif not any(_gives_points(other, rule, phase) for other in rules):
            message = f"no rule on these events gives points in phase {phase}, so there is nothing to multiply"
            problems.warn(give.place, Code.NEVER_GIVES, message)


def _gives_points(rule: Rule, multiplier: Rule, phase: Phase) -> bool:
    return rule.on is multiplier.on and rule.phase is phase and any(give.unit == "points" for give in rule.gives)
