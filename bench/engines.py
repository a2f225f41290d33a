"""Translate a programme's conditions for other rule engines, to measure them on the same rules and events.

They only match: they say which rules hold for an event. They have no history, limits, groups, gives or keys of rewards.
Each is used in the fastest way that its own documentation has for many rules and one event.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.programme.check.rules import tests_of
from engine.programme.conditions import Attribute, Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from engine.programme.conditions import FieldTest
    from engine.programme.model import Rule

_SIGNS = {Comparison.EQ: "==", Comparison.NE: "!=", Comparison.GTE: ">="}


@dataclass(frozen=True)
class Engine:
    """Evaluate all rules for an event; `matched` reads the rules that hold from the answer, and is not timed."""

    name: str
    evaluate: Callable[[Any], Any]
    matched: Callable[[Any], list[str]]


def fields_of(event: object, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the fields of an event that the rules read, by name."""
    names = sorted({_name(test) for rule in rules for test in tests_of(rule.when)})
    return {name: getattr(event, name) for name in names}


def engines(rules: Sequence[Rule]) -> tuple[list[Engine], list[str]]:
    """Return the other engines with the rules in them, and the names of engines that are not installed."""
    installed: list[Engine] = []
    missing: list[str] = []
    for package, module, make in (
        ("zen-engine", "zen", _zen), ("cel-expr-python", "cel_expr_python.cel", _cel),
        ("datalogic-py", "datalogic_py", _datalogic),
    ):  # fmt: skip
        try:
            imported = importlib.import_module(module)
        except ImportError:
            missing.append(package)
        else:
            installed += make(imported, rules)
    return installed, missing


def _zen(zen: ModuleType, rules: Sequence[Rule]) -> list[Engine]:
    """Ask zen-engine for a list of all conditions, and for its decision table."""
    conditions = [f"({_written(rule, ' and ')})" for rule in rules]
    expression = zen.compile_expression(f"[{', '.join(conditions)}]")
    decision = zen.ZenEngine().create_decision(json.dumps(_zen_table(rules)))
    return [
        Engine("zen-engine, expression", expression.evaluate, _matched(rules)),
        Engine("zen-engine, table", decision.evaluate, lambda answer: [row["rule"] for row in answer["result"]]),
    ]


def _zen_table(rules: Sequence[Rule]) -> dict[str, Any]:
    fields = sorted({_name(test) for rule in rules for test in tests_of(rule.when)})
    rows = []
    for rule in rules:
        cells = {_name(test): _zen_cell(test) for test in tests_of(rule.when)}
        rows.append({"_id": rule.id, "rule": json.dumps(rule.id), **{field: cells.get(field, "") for field in fields}})
    content = {
        "hitPolicy": "collect",
        "inputs": [{"id": field, "name": field, "type": "expression", "field": field} for field in fields],
        "outputs": [{"id": "rule", "name": "rule", "type": "expression", "field": "rule"}],
        "rules": rows,
    }
    place = {"x": 0, "y": 0}
    return {
        "nodes": [
            {"id": "in", "type": "inputNode", "name": "in", "position": place},
            {"id": "table", "type": "decisionTableNode", "name": "table", "position": place, "content": content},
            {"id": "out", "type": "outputNode", "name": "out", "position": place},
        ],
        "edges": [
            {"id": "first", "type": "edge", "sourceId": "in", "targetId": "table"},
            {"id": "second", "type": "edge", "sourceId": "table", "targetId": "out"},
        ],
    }


def _zen_cell(test: FieldTest) -> str:
    if test.comparison is Comparison.IN:
        return ", ".join(json.dumps(value) for value in _values(test))
    if test.comparison is Comparison.EQ:
        return json.dumps(test.value)
    return f"{_SIGNS[test.comparison]} {json.dumps(test.value)}"


def _cel(cel: ModuleType, rules: Sequence[Rule]) -> list[Engine]:
    """Ask CEL for a list of all conditions."""
    kinds = {_name(test): _values(test)[0] for rule in rules for test in tests_of(rule.when)}
    variables = {name: cel.Type.INT if isinstance(value, int) else cel.Type.STRING for name, value in kinds.items()}
    environment = cel.NewEnv(variables=variables)
    compiled = environment.compile(f"[{', '.join(_written(rule, ' && ') for rule in rules)}]")
    activation = environment.Activation
    return [Engine("cel-expr-python", lambda event: compiled.eval(activation(event)).plain_value(), _matched(rules))]


def _datalogic(datalogic: ModuleType, rules: Sequence[Rule]) -> list[Engine]:
    """Ask JSONLogic for a list of all conditions, in a session that keeps its memory."""
    engine = datalogic.Engine()
    compiled = engine.compile([{"and": [_json_logic(test) for test in tests_of(rule.when)]} for rule in rules])
    session = engine.session()
    return [Engine("datalogic-py", lambda event: session.evaluate(compiled, event), _matched(rules))]


def _json_logic(test: FieldTest) -> dict[str, Any]:
    variable = {"var": _name(test)}
    if test.comparison is Comparison.IN:
        return {"in": [variable, _values(test)]}
    return {_SIGNS[test.comparison]: [variable, test.value]}


def _written(rule: Rule, conjunction: str) -> str:
    """Return a condition in the form that both expression languages share."""
    return conjunction.join(_written_test(test) for test in tests_of(rule.when))


def _written_test(test: FieldTest) -> str:
    if test.comparison is Comparison.IN:
        return f"{_name(test)} in {json.dumps(_values(test))}"
    return f"{_name(test)} {_SIGNS[test.comparison]} {json.dumps(test.value)}"


def _name(test: FieldTest) -> str:
    if not isinstance(test.of.source, Attribute):
        raise TypeError(f"{test.of.path} is not a field of the event, which is all that other engines are given")
    return test.of.source.name


def _values(test: FieldTest) -> list[Any]:
    return list(test.value) if isinstance(test.value, tuple) else [test.value]


def _matched(rules: Sequence[Rule]) -> Callable[[Any], list[str]]:
    names = [rule.id for rule in rules]
    return lambda answer: [name for name, holds in zip(names, answer, strict=True) if holds]
