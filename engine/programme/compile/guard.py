"""Group rules by the text that an event must carry for them, so that a thousand of them stay cheap.

Of rules side by side that all want a certain `purchase.store`, an event of one store can meet few. They are put into
buckets by that text, and a tree of comparisons finds the event's own: ::

    bucket = buckets.get(store)
    if bucket is not None:
        if bucket < 2: ...

In a bucket the test that put a rule there holds, and is not made again. The order of evaluation is that of the rules:
a bucket keeps it, and rules of other buckets cannot match.
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
"""Fewer rules are tested one after the other sooner than their bucket is found."""
VALUES_MAX = 4
"""A rule stands in the bucket of each text that it lists; one that lists more is not grouped."""


def runs_of(rules: list[Rule]) -> list[tuple[Field | None, list[Rule]]]:
    """Cut rules, in their order, into runs that share a guard, and runs of rules that share none (None)."""
    runs: list[tuple[set[Field], list[Rule]]] = []
    for rule in rules:
        guards = set(_guards(rule))
        shared = runs[-1][0] & guards if runs else set()
        if runs and (shared or not (guards or runs[-1][0])):
            runs[-1] = (shared, [*runs[-1][1], rule])
        else:
            runs.append((guards, [rule]))
    found: list[tuple[Field | None, list[Rule]]] = []
    for shared, run in runs:
        guard = min(shared, key=lambda field: field.path) if shared and len(run) >= RULES_MIN else None
        if guard is None and found and found[-1][0] is None:
            found[-1][1].extend(run)
        else:
            found.append((guard, list(run)))
    return found


def bucketed(
    guard: Field, rules: list[Rule], fields: FieldReader, judged: Callable[[Rule], list[ast.stmt]]
) -> list[ast.stmt]:
    """Return statements that judge those of `rules` that the event's value of `guard` lets match."""
    buckets: dict[str, list[Rule]] = {}
    for rule in rules:
        test = _guards(rule)[guard]
        rest = replace(rule, when=_without(rule.when, test))
        for value in _texts(test):
            buckets.setdefault(value, []).append(rest)
    bodies = [[statement for rule in bucket for statement in judged(rule)] for bucket in buckets.values()]
    table = fields.constant({value: number for number, value in enumerate(buckets)})
    found = assign("bucket", call(attribute(table, "get"), fields.local(guard)))
    return [found, when(compare(name("bucket"), "is not", constant(None)), _tree(bodies, 0, len(bodies)))]


def _guards(rule: Rule) -> dict[Field, FieldTest]:
    """Return a test for one of a few texts, by field, that an event must pass; a rule that a group picks has none."""
    if decides(rule.group):
        return {}
    found: dict[Field, FieldTest] = {}
    for test in tests_of(rule.when):
        if test.of.kind is not Kind.TEXT or not isinstance(test.of.source, Attribute):
            continue
        if test.comparison in (Comparison.EQ, Comparison.IN) and len(_texts(test)) <= VALUES_MAX:
            found.setdefault(test.of, test)
    return found


def _texts(test: FieldTest) -> tuple[str, ...]:
    values = test.value if isinstance(test.value, tuple) else (test.value,)
    return tuple(dict.fromkeys(str(value) for value in values))


def _without(condition: Condition, test: FieldTest) -> Condition:
    """Return what else must hold beside one of the tests that `tests_of` found."""
    if condition is test:
        return AllOf(())
    if isinstance(condition, AllOf):
        return AllOf(tuple(_without(part, test) for part in condition.parts))
    return condition


def _tree(bodies: list[list[ast.stmt]], first: int, end: int) -> list[ast.stmt]:
    if end - first == 1:
        return bodies[first]
    middle = (first + end) // 2
    below = compare(name("bucket"), "<", constant(middle))
    return [when(below, _tree(bodies, first, middle), _tree(bodies, middle, end))]
