"""Check what the rules of a programme mean together: what can never match or never give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.model import (
    AllOf,
    Comparison,
    FieldTest,
    FixedAmount,
    MaxLimit,
    Over,
)
from engine.programme.problems import Code
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.model import Condition, Literal, Rule
    from engine.programme.problems import Problems


def check_rules(rules: tuple[Rule, ...], currency: str | None, problems: Problems) -> None:
    """Record every contradiction within `rules`."""
    for rule in rules:
        _check_bounds(rule, currency, problems)
        _check_limits(rule, problems)


def tests_of(condition: Condition) -> Iterator[FieldTest]:
    """Yield every test that must hold for `condition` to hold."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from tests_of(part)
    else:
        yield condition


def _check_bounds(rule: Rule, currency: str | None, problems: Problems) -> None:
    by_path: dict[str, list[FieldTest]] = {}
    for test in tests_of(rule.when):
        by_path.setdefault(test.of.path, []).append(test)
    for path, tests in by_path.items():
        possible = _possible_values(tests)
        if possible is not None:
            if path == "purchase.currency" and currency is not None:
                possible = [value for value in possible if value == currency]
            _check_values(path, tests, possible, problems)
        elif _is_empty_range(tests):
            message = f'no amount is within what rule "{rule.id}" asks of {path}; it would never match'
            problems.error(tests[-1].place, Code.NEVER_MATCHES, message)


def _possible_values(tests: list[FieldTest]) -> list[Literal] | None:
    """Return the listed values that pass every test, or None where no test lists values."""
    listing = next((t for t in tests if t.comparison in (Comparison.EQ, Comparison.IN)), None)
    if listing is None:
        return None
    values = listing.value if isinstance(listing.value, tuple) else (listing.value,)
    return [value for value in values if all(passes(test, value) for test in tests)]


def _check_values(path: str, tests: list[FieldTest], possible: list[Literal], problems: Problems) -> None:
    if not possible:
        message = f"no value of {path} passes all of its tests; the rule would never match"
        problems.error(tests[-1].place, Code.NEVER_MATCHES, message)
        return
    for test in tests:
        if isinstance(test.value, tuple) and any(value not in possible for value in test.value):
            message = f"not every value listed for {path} can pass its other tests; take those out"
            problems.warn(test.place, Code.UNREACHABLE_VALUE, message)


def passes(test: FieldTest, value: Literal) -> bool:
    """Whether `value`, which is not missing, passes `test`."""
    if isinstance(test.value, tuple):
        return value in test.value
    if test.comparison is Comparison.EQ:
        return value == test.value
    assert isinstance(value, int)  # noqa: S101  the loader lets only numbers be compared
    assert isinstance(test.value, int)  # noqa: S101  as above
    if test.comparison is Comparison.GT:
        return value > test.value
    if test.comparison is Comparison.GTE:
        return value >= test.value
    if test.comparison is Comparison.LT:
        return value < test.value
    return value <= test.value


def _is_empty_range(tests: list[FieldTest]) -> bool:
    least, most = 0, INT64_MAX
    for test in tests:
        assert isinstance(test.value, int)  # noqa: S101  only numbers have bounds
        if test.comparison is Comparison.GT:
            least = max(least, test.value + 1)
        elif test.comparison is Comparison.GTE:
            least = max(least, test.value)
        elif test.comparison is Comparison.LT:
            most = min(most, test.value - 1)
        elif test.comparison is Comparison.LTE:
            most = min(most, test.value)
    return least > most


def _check_limits(rule: Rule, problems: Problems) -> None:
    seen: list[tuple[type, object]] = []
    for limit in rule.limits:
        if (type(limit), limit.scope) in seen:
            message = f'rule "{rule.id}" has two such limits for one period; keep the smaller'
            problems.error(limit.place, Code.DUPLICATE_LIMIT, message)
        seen.append((type(limit), limit.scope))
        if isinstance(limit, MaxLimit) and limit.over is Over.REFUSE:
            _check_refusing(rule, limit, problems)


def _check_refusing(rule: Rule, limit: MaxLimit, problems: Problems) -> None:
    for give in rule.gives:
        if isinstance(give.amount, FixedAmount) and give.amount.amount > limit.amount:
            message = f"{give.amount.amount} points never fit under this limit of {limit.amount}, which refuses them"
            problems.error(limit.place, Code.NEVER_GIVES, message)
