"""Compile conditions to expressions.

Of the condition ::

    {purchase.amount: {between: [20.00, 50.00]}, purchase.channel: {not_in: [phone, fax]}}

and a condition whose field may be missing, `{purchase.gross: {gt: 30.00}}`, this makes ::

    2000 <= field_0 <= 5000 and field_1 not in value_38
    field_2 is not None and field_2 > 3000

`Facts.holds` in `interpret.facts` is the reference.
"""

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
"""A tuple of up to this many values is searched faster than a set."""
_RIGHT_FOR_NONE = (Comparison.NE, Comparison.NOT_IN, Comparison.EXISTS, Comparison.EQ, Comparison.IN)
"""Comparisons that Python answers for None as the language does for a missing value; all others ask for None first."""


def condition_expression(
    condition: Condition, local: Callable[[Field], ast.expr], keep: Callable[[object], ast.expr]
) -> ast.expr | None:
    """Return the expression of a condition, or None where it always holds.

    Args:
        condition: the condition to compile.
        local: returns the variable of a field.
        keep: makes a value a constant of the module and returns the name that reads it.
    """
    if isinstance(condition, AllOf):
        parts = [part for each in condition.parts if (part := condition_expression(each, local, keep)) is not None]
        return both(parts) if parts else None

    # one alternative that always holds makes the whole hold
    if isinstance(condition, AnyOf):
        alternatives = [condition_expression(each, local, keep) for each in condition.parts]
        parts = [part for part in alternatives if part is not None]
        return either(parts) if len(parts) == len(alternatives) else None

    if isinstance(condition, Not):
        part = condition_expression(condition.part, local, keep)
        return constant(value=False) if part is None else negated(part)
    return _test(condition, local(condition.of), keep)


def _test(test: FieldTest, value: ast.expr, keep: Callable[[object], ast.expr]) -> ast.expr:
    """Return the expression of one test, which asks for None first where the value may be missing."""
    if test.comparison is Comparison.EXISTS:
        return compare(value, "is not" if test.value is True else "is", constant(None))
    passed = _age(test, value, keep) if test.of.kind is Kind.AGE else _passed(test, value, keep)
    if not test.of.optional or test.comparison in _RIGHT_FOR_NONE:
        return passed
    return both([compare(value, "is not", constant(None)), passed])


def _passed(test: FieldTest, value: ast.expr, keep: Callable[[object], ast.expr]) -> ast.expr:  # noqa: PLR0911  one a comparison
    """Return the expression of a comparison with constants; `facts.passes` is the reference."""
    wanted: Any = test.value
    match test.comparison:
        # of one value among several
        case Comparison.IN | Comparison.NOT_IN:
            values = wanted if len(wanted) <= _LISTED_MAX else frozenset(wanted)
            return compare(value, "in" if test.comparison is Comparison.IN else "not in", keep(values))

        # of a size
        case Comparison.BETWEEN:
            return ast.Compare(constant(wanted[0]), [ast.LtE(), ast.LtE()], [value, constant(wanted[1])])
        case Comparison.CLOCK:
            from_start = compare(value, ">=", constant(wanted[0]))
            to_end = compare(value, "<", constant(wanted[1]))
            return both([from_start, to_end]) if wanted[0] < wanted[1] else either([from_start, to_end])
        case Comparison.WITHIN:
            return compare(value, "<=", constant(wanted.days))

        # of a part of a text or list
        case Comparison.CONTAINS:
            return compare(constant(wanted), "in", value)
        case Comparison.CONTAINS_ANY:
            return either([compare(constant(each), "in", value) for each in wanted])
        case Comparison.CONTAINS_ALL:
            return both([compare(constant(each), "in", value) for each in wanted])
        case Comparison.STARTS_WITH:
            return call(attribute(value, "startswith"), constant(wanted))

        case _:
            return compare(value, _OPERATORS[test.comparison], constant(wanted))


def _age(test: FieldTest, since: ast.expr, keep: Callable[[object], ast.expr]) -> ast.expr:
    """Compare the event's time with the instant at which the age is reached, counted from `since`."""
    durations = test.value if isinstance(test.value, tuple) else (test.value,)
    ends = [call(name("calendar_after"), since, keep(each)) for each in durations]
    if test.comparison is Comparison.BETWEEN:
        return ast.Compare(ends[0], [ast.LtE(), ast.LtE()], [name("at_ms"), ends[1]])
    return compare(name("at_ms"), _OPERATORS[test.comparison], ends[0])
