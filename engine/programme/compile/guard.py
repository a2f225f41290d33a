"""Group rules by a text that they all test, so that an event is judged by few of a thousand rules.

If many rules in a row each want a certain `purchase.store`, an event of one store can meet only a few of them. The
rules are put into buckets by store, and a tree of comparisons leads to the bucket of the event: ::

    bucket = value_120.get(field_0)
    if bucket is not None:
        if bucket < 1:
            ... the rules that want store A
        elif bucket < 2:
            ... the rules that want store B
        else:
            ... the rules that want store C

The test that put a rule into its bucket is not made again. A bucket keeps its rules in their order, and rules of
other buckets cannot match, so the order of evaluation stays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.programme.check.rules import tests_of
from engine.programme.compile.syntax import assign, attribute, call, compare, constant, name, when
from engine.programme.conditions import AllOf, Attribute, Comparison, Field, FieldTest, Kind
from engine.programme.model import decides

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable

    from engine.programme.compile.fields import FieldReader
    from engine.programme.conditions import Condition
    from engine.programme.model import Rule

RULES_MIN = 8
"""Fewer rules are tested one after the other faster than their bucket is found."""
VALUES_MAX = 4
"""A rule stands in the bucket of each text that it lists; one that lists more is not grouped."""


def runs_of(rules: list[Rule]) -> list[tuple[Field | None, list[Rule]]]:
    """Cut rules, in their order, into runs that share a guard, and runs of rules that share none (None)."""
    # lengthen a run while its rules still share a field that could be the guard
    runs: list[tuple[set[Field], list[Rule]]] = []
    for rule in rules:
        guards = set(_guards(rule))
        shared = runs[-1][0] & guards if runs else set()
        if runs and (shared or not (guards or runs[-1][0])):
            runs[-1] = (shared, [*runs[-1][1], rule])
        else:
            runs.append((guards, [rule]))

    # short runs are judged rule by rule, together with their neighbours
    guarded: list[tuple[Field | None, list[Rule]]] = []
    for shared, run in runs:
        guard = min(shared, key=lambda field: field.path) if shared and len(run) >= RULES_MIN else None
        if guard is None and guarded and guarded[-1][0] is None:
            guarded[-1][1].extend(run)
        else:
            guarded.append((guard, list(run)))
    return guarded


def bucketed(
    guard: Field, rules: list[Rule], fields: FieldReader, judging: Callable[[Rule], list[ast.stmt]]
) -> list[ast.stmt]:
    """Return statements that judge only those of `rules` that want the event's value of `guard`.

    Args:
        guard: the field whose value each of the rules tests.
        rules: the rules, in the order of evaluation.
        fields: reads the field.
        judging: returns the statements that judge one rule.
    """
    # a rule stands in the bucket of each value that it wants, without the test for it
    buckets: dict[str, list[Rule]] = {}
    for rule in rules:
        test = _guards(rule)[guard]
        rest = replace(rule, when=_without(rule.when, test))
        for value in _texts(test):
            buckets.setdefault(value, []).append(rest)

    bodies = [[statement for rule in bucket for statement in judging(rule)] for bucket in buckets.values()]
    table = fields.constant({value: number for number, value in enumerate(buckets)})
    choosing = assign("bucket", call(attribute(table, "get"), fields.local(guard)))
    return [choosing, when(compare(name("bucket"), "is not", constant(None)), _tree(bodies, 0, len(bodies)))]


def _guards(rule: Rule) -> dict[Field, FieldTest]:
    """Return by field the tests that could guard a rule: an event must pass them, and each wants one of a few texts.

    A rule of a group that picks has none, as the whole group is examined at once.
    """
    if decides(rule.group):
        return {}

    guards: dict[Field, FieldTest] = {}
    for test in tests_of(rule.when):
        if test.of.kind is not Kind.TEXT or not isinstance(test.of.source, Attribute):
            continue
        if test.comparison in (Comparison.EQ, Comparison.IN) and len(_texts(test)) <= VALUES_MAX:
            guards.setdefault(test.of, test)
    return guards


def _texts(test: FieldTest) -> tuple[str, ...]:
    values = test.value if isinstance(test.value, tuple) else (test.value,)
    return tuple(dict.fromkeys(str(value) for value in values))


def _without(condition: Condition, test: FieldTest) -> Condition:
    """Return a condition without one of its tests."""
    if condition is test:
        return AllOf(())
    if isinstance(condition, AllOf):
        return AllOf(tuple(_without(part, test) for part in condition.parts))
    return condition


def _tree(bodies: list[list[ast.stmt]], first: int, end: int) -> list[ast.stmt]:
    """Return statements that run the body whose number is in `bucket`, one of `first` to `end` - 1."""
    if end - first == 1:
        return bodies[first]
    middle = (first + end) // 2
    below = compare(name("bucket"), "<", constant(middle))
    return [when(below, _tree(bodies, first, middle), _tree(bodies, middle, end))]
