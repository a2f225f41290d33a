"""Read the conditions of a rule, and the fields that gives name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.fields import TRIGGERS, field_of, is_later, other_trigger_of, paths_near
from engine.programme.model import AllOf, Comparison, Field, FieldTest, Kind, Literal
from engine.programme.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.problems import Code, shown
from engine.programme.scalars import boolean_of, kind_of, money_of, text_of

if TYPE_CHECKING:
    from engine.programme.model import Place
    from engine.programme.problems import Problems

_TESTS = (Comparison.EQ, Comparison.GT, Comparison.GTE, Comparison.LT, Comparison.LTE)
_TESTS_LATER = (
    "ne", "between", "in", "not_in", "contains", "contains_any", "contains_all", "starts_with", "exists", "within",
)  # fmt: skip
_CONDITIONS_LATER = ("all", "any", "not", "items")


class WhenReader:
    """Read the conditions of one rule on `trigger` (None: unknown), whose amounts have `digits` decimals."""

    def __init__(self, problems: Problems, trigger: str | None, digits: int) -> None:
        self._problems = problems
        self._trigger = trigger
        self._digits = digits

    def condition(self, node: Node) -> AllOf:
        """Return what must hold: every test of every entry."""
        if not isinstance(node, Mapping):
            message = f"when must be a mapping of field to test, such as {{purchase.channel: app}}, not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return AllOf(())
        tests: list[FieldTest] = []
        for name, value in node.entries.items():
            place = node.key_places[name]
            if name in _CONDITIONS_LATER:
                self._problems.not_yet(place, f'"{name}" of a condition')
                continue
            field = resolved(name, place, self._trigger, self._problems)
            if field is not None:
                tests += self._tests(field, value)
        return AllOf(tuple(tests))

    def _tests(self, field: Field, node: Node) -> list[FieldTest]:
        if isinstance(node, Scalar):
            value = self._value(field, node)
            return [] if value is None else [FieldTest(field, Comparison.EQ, value, node.place)]
        if isinstance(node, Sequence):
            return self._any_of(field, node)
        tests: list[FieldTest] = []
        if not node.entries:
            self._problems.error(node.place, Code.MISSING_VALUE, f"{field.path} has no test; write one")
        for name, operand in node.entries.items():
            test = self._named_test(field, name, node.key_places[name], operand)
            if test is not None:
                tests.append(test)
        return tests

    def _any_of(self, field: Field, node: Sequence) -> list[FieldTest]:
        values = [value for item in node.items if (value := self._value(field, item)) is not None]
        if not node.items:
            message = f"{field.path} may be any of nothing; list at least one value"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
        for index, value in enumerate(values):
            if value in values[:index]:
                self._problems.warn(node.place, Code.DUPLICATE_VALUE, f"{field.path} lists a value twice; keep one")
                break
        return [FieldTest(field, Comparison.IN, tuple(values), node.place)] if values else []

    def _named_test(self, field: Field, name: str, place: Place, operand: Node) -> FieldTest | None:
        if name in _TESTS_LATER:
            self._problems.not_yet(place, f'the test "{name}"')
            return None
        if name not in tuple(test.value for test in _TESTS):
            known = [*(test.value for test in _TESTS), *_TESTS_LATER]
            self._problems.unknown(place, Code.UNKNOWN_FIELD, "test", name, known)
            return None
        comparison = Comparison(name)
        if comparison is not Comparison.EQ and field.kind is not Kind.MONEY:
            message = f'"{name}" compares numbers and {field.path} is {field.kind}; use "eq" or a list'
            self._problems.error(place, Code.WRONG_TEST, message)
            return None
        value = self._value(field, operand)
        return None if value is None else FieldTest(field, comparison, value, place)

    def _value(self, field: Field, node: Node) -> Literal | None:
        if field.kind is Kind.MONEY:
            return money_of(node, field.path, self._problems, self._digits)
        if field.kind is Kind.BOOLEAN:
            return boolean_of(node, field.path, self._problems)
        return text_of(node, field.path, self._problems)


def resolved(name: str, place: Place, trigger: str | None, problems: Problems) -> Field | None:
    """Return the field that `name` means in a rule on `trigger`, or None after recording why there is none."""
    field = field_of(trigger or "", name)
    if field is not None:
        return field
    other = other_trigger_of(name)
    if is_later(name):
        problems.not_yet(place, f"the field {shown(name)}")
    elif other is None:
        problems.unknown(place, Code.UNKNOWN_FIELD, "field", name, paths_near(trigger or ""))
    elif trigger in TRIGGERS:
        message = f"{name} is a field of {other} events and this rule is on {trigger}; it could never hold"
        problems.error(place, Code.OTHER_EVENT, message)
    return None


def basis_field(node: Node, trigger: str | None, problems: Problems) -> Field | None:
    """Return the amount that `of` names."""
    name = text_of(node, "of", problems)
    if name is None:
        return None
    field = resolved(name, node.place, trigger, problems)
    if field is not None and field.kind is not Kind.MONEY:
        problems.error(node.place, Code.WRONG_TYPE, f"{name} is {field.kind}; a rate needs an amount")
        return None
    return field
