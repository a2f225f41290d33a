"""Turn conditions into expressions; `facts.Facts.holds` is the reference."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from engine.programme.compile.syntax import attribute, both, call, compare, constant, either, name, negated
from engine.programme.conditions import AllOf, AnyOf, Comparison, Kind, Not

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.conditions import Condition, Field, FieldTest

_OPERATORS = {
    Comparison.EQ: "==", Comparison.NE: "!=", Comparison.GT: ">", Comparison.GTE: ">=", Comparison.LT: "<",
    Comparison.LTE: "<=", Comparison.WITHIN: "<=",
}  # fmt: skip
_LISTED_MAX = 4
"""Up to so many values a tuple is searched faster than a set."""
_TRUE_OF_MISSING = (Comparison.NE, Comparison.NOT_IN, Comparison.EXISTS)
_FALSE_OF_MISSING = (Comparison.EQ, Comparison.IN)
"""What Python's own answer for None already is."""


def condition_expression(
    condition: Condition, local: Callable[[Field], ast.expr], keep: Callable[[object], ast.expr]
) -> ast.expr | None:
    """Return the expression of a condition, or None where it always holds.

    Args:
        condition: what must hold.
        local: returns the variable of a field.
        keep: puts a value into the module and returns the name that reads it.
    """
    if isinstance(condition, AllOf):
        parts = [part for each in condition.parts if (part := condition_expression(each, local, keep)) is not None]
        return both(parts) if parts else None
    if isinstance(condition, AnyOf):
        found = [condition_expression(each, local, keep) for each in condition.parts]
        parts = [part for part in found if part is not None]
        return either(parts) if len(parts) == len(found) else None
    if isinstance(condition, Not):
        part = condition_expression(condition.part, local, keep)
        return constant(value=False) if part is None else negated(part)
    return _test(condition, local(condition.of), keep)


def _test(test: FieldTest, value: ast.expr, keep: Callable[[object], ast.expr]) -> ast.expr:
    if test.comparison is Comparison.EXISTS:
        return compare(value, "is not" if test.value is True else "is", constant(None))
    passed = _age(test, value, keep) if test.of.kind is Kind.AGE else _passed(test, value, keep)
    if not test.of.optional or test.comparison in _TRUE_OF_MISSING or test.comparison in _FALSE_OF_MISSING:
        return passed
    return both([compare(value, "is not", constant(None)), passed])


def _passed(test: FieldTest, value: ast.expr, keep: Callable[[object], ast.expr]) -> ast.expr:  # noqa: PLR0911  one a comparison
    wanted: Any = test.value
    match test.comparison:
        case Comparison.IN | Comparison.NOT_IN:
            values = wanted if len(wanted) <= _LISTED_MAX else frozenset(wanted)
            return compare(value, "in" if test.comparison is Comparison.IN else "not in", keep(values))
        case Comparison.BETWEEN:
            return ast.Compare(constant(wanted[0]), [ast.LtE(), ast.LtE()], [value, constant(wanted[1])])
        case Comparison.CLOCK:
            from_start = compare(value, ">=", constant(wanted[0]))
            to_end = compare(value, "<", constant(wanted[1]))
            return both([from_start, to_end]) if wanted[0] < wanted[1] else either([from_start, to_end])
        case Comparison.CONTAINS:
            return compare(constant(wanted), "in", value)
        case Comparison.CONTAINS_ANY:
            return either([compare(constant(each), "in", value) for each in wanted])
        case Comparison.CONTAINS_ALL:
            return both([compare(constant(each), "in", value) for each in wanted])
        case Comparison.STARTS_WITH:
            return call(attribute(value, "startswith"), constant(wanted))
        case Comparison.WITHIN:
            return compare(value, "<=", constant(wanted.days))
        case _:
            return compare(value, _OPERATORS[test.comparison], constant(wanted))


def _age(test: FieldTest, since: ast.expr, keep: Callable[[object], ast.expr]) -> ast.expr:
    """Compare the event's time with the instant at which the age is reached."""
    durations = test.value if isinstance(test.value, tuple) else (test.value,)
    ends = [call(name("calendar_after"), since, keep(each)) for each in durations]
    if test.comparison is Comparison.BETWEEN:
        return ast.Compare(ends[0], [ast.LtE(), ast.LtE()], [name("at_ms"), ends[1]])
    return compare(name("at_ms"), _OPERATORS[test.comparison], ends[0])
