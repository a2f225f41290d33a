"""Read conditions on an event, its lines, its member and the time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.programme.conditions import (
    ALWAYS,
    AllOf,
    AnyOf,
    Comparison,
    Field,
    FieldTest,
    Kind,
    Lines,
    Not,
)
from engine.programme.fields import LINE, LINE_TEXTS, SEGMENT, line_test
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import clock_of, length_ms, literal_of
from engine.programme.file.names import SEGMENT_FIELD, SEGMENT_PREFIX
from engine.programme.file.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.file.problems import Code
from engine.programme.file.scalars import boolean_of, kind_of, text_of
from engine.programme.localtime import DAY_MS

if TYPE_CHECKING:
    from engine.programme.conditions import Condition, Duration, Literal, Place
    from engine.programme.file.names import Names
    from engine.programme.file.problems import Problems

_C = Comparison
_ORDERED = (_C.EQ, _C.NE, _C.GT, _C.GTE, _C.LT, _C.LTE, _C.BETWEEN, _C.IN, _C.NOT_IN, _C.EXISTS)
TESTS: dict[Kind, tuple[Comparison, ...]] = {
    Kind.TEXT: (_C.EQ, _C.NE, _C.IN, _C.NOT_IN, _C.CONTAINS, _C.STARTS_WITH, _C.EXISTS),
    Kind.BOOLEAN: (_C.EQ, _C.NE, _C.EXISTS),
    **dict.fromkeys((Kind.MONEY, Kind.INTEGER, Kind.DECIMAL, Kind.DATE, Kind.INSTANT), _ORDERED),
    Kind.WEEKDAY: (_C.EQ, _C.NE, _C.IN, _C.NOT_IN),
    Kind.CLOCK: (),
    Kind.AGE: (_C.GT, _C.GTE, _C.LT, _C.LTE, _C.BETWEEN, _C.WITHIN, _C.EXISTS),
    Kind.RECURRING: (_C.WITHIN, _C.EXISTS),
    Kind.TEXTS: (_C.CONTAINS, _C.CONTAINS_ANY, _C.CONTAINS_ALL, _C.EXISTS),
}
_LISTING = (_C.IN, _C.NOT_IN, _C.CONTAINS_ANY, _C.CONTAINS_ALL)
_EXAMPLES = {Kind.CLOCK: "{from: 17:00, to: 19:00}", Kind.AGE: "{lte: 30d}", Kind.RECURRING: "{within: 3d}",
             Kind.TEXTS: "{contains: …}"}  # fmt: skip
_ALL_TESTS = tuple(comparison.value for comparison in Comparison if comparison is not _C.CLOCK)
_QUANTIFIERS = ("some", "all", "none", "sum")


class WhenReader:
    """Read the conditions of one rule on `trigger` (None: unknown; LINE: the tests of a line)."""

    def __init__(self, problems: Problems, trigger: str | None, names: Names) -> None:
        self._problems = problems
        self._trigger = trigger
        self._names = names

    def condition(self, node: Node, what: str = "when") -> AllOf:
        """Return what must hold: every test of every entry."""
        if not isinstance(node, Mapping):
            example = "category: food" if self._trigger == LINE else "purchase.channel: app"
            message = f"{what} must be a mapping of field to test, such as {{{example}}}, not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return AllOf(())
        parts: list[Condition] = []
        for name, value in node.entries.items():
            parts += self._entry(name, node.key_places[name], value)
        return AllOf(tuple(parts))

    def whole(self, node: Node, what: str) -> AllOf | None:
        """Return what must hold, or None where a part of it is wrong.

        A condition without its wrong parts would do for a rule, but not for its opposite.
        """
        before = self._problems.errors, self._names.gaps
        condition = self.condition(node, what)
        return condition if before == (self._problems.errors, self._names.gaps) else None

    def _entry(self, name: str, place: Place, value: Node) -> list[Condition]:
        """Return the conditions of one entry: of conditions within it, of lines, of segments, or of a field."""
        if name in ("all", "any"):
            return self._nested(name, value)
        if name == "not":
            part = self.whole(value, "not")
            return [] if part is None else [Not(part)]
        if name == "items" and self._trigger != LINE:
            return self._items(place, value)
        if name == SEGMENT_FIELD.path and self._trigger not in (LINE, SEGMENT):
            return [
                self._in_segments(test) for test in self._tests(SEGMENT_FIELD, value) if isinstance(test, FieldTest)
            ]

        field = self._names.field(name, place, self._trigger, self._problems)
        if field is None:
            self._names.gaps += 1
            return []
        return self._tests(field, value)

    def _in_segments(self, test: FieldTest) -> Condition:
        """Return the conditions of the segments that a test of `member.segment` names; wrong ones are left out."""
        # in any segment, or in none
        segments = self._names.segments
        if test.comparison is _C.EXISTS:
            self._names.read.update(f"{SEGMENT_PREFIX}{name}" for name in segments)
            conditions = tuple(condition for condition in segments.values() if condition is not None)
            if len(conditions) < len(segments):
                self._names.gaps += 1
                return ALWAYS
            some: Condition = AnyOf(conditions, test.place) if segments else Not(ALWAYS)
            return some if test.value is True else Not(some)

        # in those that are named
        named = [str(value) for value in (test.value if isinstance(test.value, tuple) else (test.value,))]
        meant = [name if name in segments else self._segment_like(name, test.place) for name in named]
        self._names.read.update(f"{SEGMENT_PREFIX}{name}" for name in meant)
        conditions = tuple(condition for name in meant if (condition := segments.get(name or "")) is not None)
        self._names.gaps += len(meant) - len(conditions)
        any_of = test.comparison is _C.CONTAINS_ANY and conditions
        return AnyOf(conditions, test.place) if any_of else AllOf(conditions, test.place)

    def _segment_like(self, name: str, place: Place) -> str | None:
        known, none = self._names.segments, 'add it to a section "segments"'
        return self._problems.unknown(place, Code.UNKNOWN_VALUE, "segment", name, known, none=none)

    def _nested(self, name: str, node: Node) -> list[Condition]:
        if not isinstance(node, Sequence) or not node.items:
            message = f"{name} must be a list of conditions, such as [{{…}}, {{…}}], not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return []
        parts = tuple(self.condition(item, f"an entry of {name}") for item in node.items)
        return [AllOf(parts) if name == "all" else AnyOf(parts)]

    def _items(self, place: Place, node: Node) -> list[Condition]:
        """Return the condition on the lines of a purchase: some, all or none of them, or a sum over them."""
        if self._trigger not in (None, "purchase"):
            message = f"items are the lines of purchases and this rule is on {self._trigger}; it could never hold"
            self._problems.error(place, Code.OTHER_EVENT, message)
            return []

        # one way to look at the lines
        known = (*_QUANTIFIERS, "where", *(test.value for test in _ORDERED if test is not _C.EXISTS))
        entries = entries_of(node, "items", self._problems, known)
        if entries is None:
            return []
        if sum(name in entries for name in _QUANTIFIERS) != 1 or ("sum" not in entries and len(entries) > 1):
            message = "items take one of some, all, none or sum, such as {some: {category: food}}"
            self._problems.error(node.place, Code.CONTRADICTION, message)
            return []
        if "sum" in entries:
            return self._sum(node, entries)

        # some: at least one line is so; none: no line is; all: no line is not
        ((name, value),) = entries.items()
        lines = WhenReader(self._problems, LINE, self._names).whole(value, f"items: {name}")
        if lines is None:
            return []
        where: Condition = Not(lines) if name == "all" else lines
        counted = Field("items", Kind.INTEGER, Lines(where))
        comparison, wanted = (_C.GTE, 1) if name == "some" else (_C.EQ, 0)
        return [FieldTest(counted, comparison, wanted, node.place)]

    def _sum(self, node: Node, entries: dict[str, Node]) -> list[Condition]:
        """Return the tests of the sum of an amount or a quantity over some lines."""
        summed = text_of(entries["sum"], "sum", self._problems)
        if summed is not None and summed not in ("amount", "quantity"):
            summed = self._problems.unknown(
                entries["sum"].place, Code.UNKNOWN_VALUE, "sum of lines", summed, ["amount", "quantity"]
            )
        reader = WhenReader(self._problems, LINE, self._names)
        where = reader.whole(entries["where"], "where") if "where" in entries else ALWAYS
        if summed is None or where is None:
            return []

        # every other entry is a test of the sum
        kind = Kind.DECIMAL if summed == "quantity" else Kind.MONEY
        field = Field("items", kind, Lines(where, summed))
        tests = {name: value for name, value in entries.items() if name not in ("sum", "where")}
        if not tests:
            message = f"items: {{sum: {summed}}} has no test; add one such as gte: 50"
            self._problems.error(node.place, Code.MISSING_VALUE, message)
        assert isinstance(node, Mapping)  # entries_of has refused everything else
        places = node.key_places
        read = [self._named_test(field, name, places.get(name, value.place), value) for name, value in tests.items()]
        return [condition for condition in read if condition is not None]

    def _tests(self, field: Field, node: Node) -> list[Condition]:
        """Return the tests of a field: named tests, a value that it must equal, or a list that must contain it."""
        if isinstance(node, Mapping):
            return self._mapped(field, node)
        comparison = _C.EQ if isinstance(node, Scalar) else _C.IN
        if comparison not in TESTS[field.kind]:
            example = f"{field.path}: {_EXAMPLES.get(field.kind, '…')}"
            message = f"{field.path} is {field.kind} and takes a test, such as {{{example}}}"
            self._problems.error(node.place, Code.WRONG_TEST, message)
            return []
        test = self._compared(field, comparison, node, node.place)
        return [] if test is None else [test]

    def _mapped(self, field: Field, node: Mapping) -> list[Condition]:
        if not node.entries:
            self._problems.error(node.place, Code.MISSING_VALUE, f"{field.path} has no test; write one")
        if field.kind is Kind.CLOCK:
            return self._clock(field, node)
        read = [self._named_test(field, name, node.key_places[name], operand) for name, operand in node.entries.items()]
        return [condition for condition in read if condition is not None]

    def _clock(self, field: Field, node: Mapping) -> list[Condition]:
        """Return the test of a time of day, `{from, to}`."""
        entries = entries_of(node, field.path, self._problems, ("from", "to")) or {}
        start = clock_of(entries["from"], "from", self._problems) if "from" in entries else 0
        end = clock_of(entries["to"], "to", self._problems) if "to" in entries else DAY_MS
        if start is None or end is None or not entries:
            return []
        if start % DAY_MS == end % DAY_MS:
            message = "from and to are the same time of day; take the test out for the whole day"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
            return []
        return [FieldTest(field, _C.CLOCK, (start % DAY_MS, end), node.place)]

    def _named_test(self, field: Field, name: str, place: Place, operand: Node) -> Condition | None:
        """Return the test of a name, None where it is misspelt or does not test such a field."""
        if name not in _ALL_TESTS:
            meant = self._problems.unknown(place, Code.UNKNOWN_FIELD, "test", name, TESTS[field.kind])
            if meant is None:
                return None
            name = meant
        comparison = Comparison(name)
        known = TESTS[field.kind]
        if comparison not in known:
            message = f'"{name}" does not test {field.path}, which is {field.kind}; use {" or ".join(known)}'
            self._problems.error(place, Code.WRONG_TEST, message)
            return None
        return self._compared(field, comparison, operand, place)

    def _compared(self, field: Field, comparison: Comparison, operand: Node, place: Place) -> Condition | None:
        test = self._test(field, comparison, operand, place)
        return by_line(test) if test is not None and field.path in LINE_TEXTS else test

    def _test(self, field: Field, comparison: Comparison, operand: Node, place: Place) -> FieldTest | None:
        """Return a test with the constants that stand in `operand`."""
        if comparison is _C.EXISTS:
            exists = boolean_of(operand, f"exists of {field.path}", self._problems)
            return None if exists is None else FieldTest(field, comparison, exists, place)
        if comparison in _LISTING:
            values = self._listed(field, operand)
            return FieldTest(field, comparison, values, operand.place) if values else None
        if comparison is _C.BETWEEN:
            return self._between(field, operand)

        # all others compare with one constant
        value = self._literal(field, operand)
        if value is not None and field.kind is Kind.RECURRING and not _whole_days(value):
            message = f"within of {field.path} counts days; write a duration such as 3d or 1w, at most 183d"
            self._problems.error(operand.place, Code.WRONG_TYPE, message)
            return None
        return None if value is None else FieldTest(field, comparison, value, operand.place)

    def _listed(self, field: Field, node: Node) -> tuple[Literal, ...]:
        """Return the constants of a list, without those that are wrong."""
        if not isinstance(node, Sequence):
            message = f"{field.path} is compared with a list here, such as [a, b], not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return ()

        values = [value for item in node.items if (value := self._literal(field, item)) is not None]
        if not node.items:
            message = f"{field.path} may be any of nothing; list at least one value"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
        if len(set(values)) < len(values):
            self._problems.warn(node.place, Code.DUPLICATE_VALUE, f"{field.path} lists a value twice; keep one")
        return tuple(values)

    def _between(self, field: Field, node: Node) -> FieldTest | None:
        if not isinstance(node, Sequence) or len(node.items) != 2:
            message = f"between takes a list of two, the least and the most, not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return None
        least, most = (self._literal(field, item) for item in node.items)
        if least is None or most is None:
            return None
        if _size(least) > _size(most):
            message = f"nothing is between these two of {field.path}: the first is above the second"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
        return FieldTest(field, _C.BETWEEN, (least, most), node.place)

    def _literal(self, field: Field, node: Node) -> Literal | None:
        value = literal_of(field.kind, node, field.path, self._problems, self._names.measures)
        self._names.check_level(field.path, value, node.place, self._problems)
        return value


def _size(value: Literal) -> int:
    if isinstance(value, int):
        return value
    assert not isinstance(value, str)  # texts have no between
    return length_ms(value)


def _whole_days(value: Literal) -> bool:
    duration: Duration | None = None if isinstance(value, (str, int)) else value
    return duration is not None and not duration.ms and not duration.months and duration.days <= 183


def by_line(test: FieldTest) -> Condition:
    """Return the test of a purchase's categories, brands or skus as a test of its lines."""
    name = LINE_TEXTS[test.of.path]
    if test.comparison is _C.EXISTS:
        some = _some(test, line_test(name, _C.EXISTS, value=True))
        return some if test.value is True else Not(some)
    texts = tuple(str(value) for value in (test.value if isinstance(test.value, tuple) else (test.value,)))
    if test.comparison is _C.CONTAINS_ALL:
        return AllOf(tuple(_some(test, line_test(name, _C.EQ, text)) for text in texts))
    return _some(test, line_test(name, _C.IN, texts))


def _some(test: FieldTest, line: FieldTest) -> FieldTest:
    counted = replace(test.of, kind=Kind.INTEGER, source=Lines(AllOf((line,))))
    return FieldTest(counted, _C.GTE, 1, test.place)
