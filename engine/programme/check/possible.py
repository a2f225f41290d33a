"""Decide whether a condition can hold at all: whether some values of its fields pass all of its tests.

The answer no is certain. The answer yes may be wrong if fields depend on each other (lines, metrics) or if looking
further would take too long: then nothing is reported, and the rule just never matches.

The search works on alternatives. All tests that must pass together are gathered by field; then for each field a list
of candidate values is tried that contains a passing one, if there is any. An `any` is tried part by part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.programme.check.possible_days import days_may_pass
from engine.programme.conditions import (
    NUMBERS,
    AllOf,
    AnyOf,
    Comparison,
    Duration,
    Field,
    FieldTest,
    Kind,
    Lines,
    LocalPart,
    LocalTime,
    Not,
    may_be_negative,
)
from engine.programme.interpret.facts import passes
from engine.programme.localtime import DAY_MS
from schemas.events import INT64_MAX, OCCURRED_AT_MS_END

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from engine.programme.conditions import Condition, Literal
    from engine.programme.localtime import Calendar

Wanted = tuple[FieldTest, bool]
"""A test, and whether it has to pass or to fail."""

EFFORT_MAX = 1_000_000
"""How many tests of values are spent on one file; after that everything counts as possible."""
QUESTION_EFFORT_MAX = 50_000
"""How many are spent on one question, so that one rule does not use up what the others need."""
_SEARCH_EFFORT = 40
_DAY_EFFORT = 5
"""How many tests of values take as long as one alternative, and as one day."""
_MEASURED = NUMBERS | {Kind.DATE, Kind.INSTANT}
_LISTED = (Comparison.EQ, Comparison.IN)
_TRUE_OF_MISSING = (Comparison.NE, Comparison.NOT_IN)
_OPPOSITES = {
    Comparison.EQ: Comparison.NE, Comparison.NE: Comparison.EQ, Comparison.IN: Comparison.NOT_IN,
    Comparison.NOT_IN: Comparison.IN,
}  # fmt: skip
_APART = "\0"
"""Separates the parts of a made-up text; no text of a programme contains it."""
_ANYTHING: list[Any] = []
"""Stands for values that cannot be listed but always contain a passing one."""
_ALTERNATIVES_MAX = 100
"""How deep alternatives are tried one within the other; deeper ones count as possible."""


@dataclass
class Possibilities:
    """Answer questions about one programme, with a bounded effort for the file and for each question."""

    currency: str | None
    calendar: Calendar
    effort: int = EFFORT_MAX
    _left: int = 0
    _lines: dict[Condition, bool] = field(default_factory=dict)
    _days: dict[tuple[tuple[Field, tuple[Wanted, ...]], ...], bool] = field(default_factory=dict)

    def may_hold(self, *conditions: Condition) -> bool:
        """Whether all of `conditions` can hold of one event."""
        if self.effort <= 0:
            return True

        # a question about lines is asked within another question, whose effort goes on afterwards
        outer = self._left
        self._left = min(QUESTION_EFFORT_MAX, self.effort)
        answer = self._search({}, [(condition, True) for condition in conditions], _ALTERNATIVES_MAX)
        self._left = outer
        return answer

    def spend(self, effort: int) -> bool:
        """Subtract an effort from this question's and this file's, and return whether any is left of both."""
        self._left -= effort
        self.effort -= effort
        return self._left > 0 and self.effort > 0

    def _search(self, tests: dict[Field, list[Wanted]], open_: list[tuple[Condition, bool]], deep: int) -> bool:
        """Whether the conditions in `open_` can come out as wanted together with `tests`.

        Args:
            tests: the tests that were decided so far, by field.
            open_: conditions that must hold (True) or must not (False).
            deep: how many more alternatives may be tried one within the other.
        """
        # take conditions apart until only tests and alternatives are left
        tests = {of: list(wanted) for of, wanted in tests.items()}
        alternatives: list[tuple[Condition, bool]] = []
        touched: dict[Field, None] = {}
        for condition, holds in open_:  # the list grows while it is gone through
            if isinstance(condition, Not):
                open_.append((condition.part, not holds))
            elif isinstance(condition, FieldTest):
                wanted = normalised(condition, holds)
                tests.setdefault(condition.of, []).append(wanted)
                touched[condition.of] = None
            elif isinstance(condition, AllOf) is holds:
                open_ += [(part, holds) for part in condition.parts]
            else:
                alternatives.append((condition, holds))

        # can the tests pass?
        enough = self.spend(_SEARCH_EFFORT + len(open_) + sum(map(len, tests.values())))
        if not all(self._may_pass(of, tests[of]) for of in touched) or not self._may_fall_on_a_day(tests):
            return False
        if not (alternatives and deep and enough):
            return True

        # then one part of each alternative must be possible, too
        (first, holds), *rest = alternatives
        assert isinstance(first, (AllOf, AnyOf))  # the others are no alternatives
        return any(self._search(tests, [(part, holds), *rest], deep - 1) for part in first.parts)

    def _may_pass(self, of: Field, tests: list[Wanted]) -> bool:
        """Whether a value of a field, or its absence, passes the tests that must pass and fails the others."""
        if of.optional and all(_of_missing(test) is wanted for test, wanted in tests):
            return True
        if any(test.comparison is Comparison.EXISTS and (test.value is True) is not wanted for test, wanted in tests):
            return False
        if of.kind is Kind.AGE:
            return _ages_may_pass(tests)

        candidates = self.candidates(of, tests)
        if candidates is _ANYTHING or not self.spend(len(candidates) * len(tests)):
            return True  # nothing is certain, or it would take too long to be
        passers = [passer_of(test, wanted=wanted) for test, wanted in tests]
        return any(all(passed(value) for passed in passers) for value in candidates)

    def candidates(self, of: Field, tests: list[Wanted]) -> list[Any]:
        """Return values to try: if any value does as wanted, one of these does."""
        least, most = self._domain(of)
        if of.path == "purchase.currency" and self.currency is not None:
            return [self.currency]

        # a list that it must be in has few values
        listed = [test for test, wanted in tests if wanted and test.comparison in _LISTED]
        if listed:
            values = min((values_of(test) for test in listed), key=len)
            return [value for value in values if not isinstance(value, int) or least <= value <= most]

        # answers of tests of a size change only next to their constants
        if of.kind in _MEASURED:
            near = [least, most]
            for test, _ in tests:
                near += [each + by for each in values_of(test) if isinstance(each, int) for by in (-1, 0, 1)]
            return [value for value in near if least <= value <= most]

        return _SMALL.get(of.kind, _no_candidates)(tests)

    def _domain(self, of: Field) -> tuple[int, int]:
        """Return the least and the greatest value that a number or an instant can have."""
        if isinstance(of.source, LocalTime) and of.kind is Kind.INTEGER:
            return (1, 31) if of.source.part is LocalPart.DAY else (1, 12)
        if of.kind in (Kind.DATE, Kind.INSTANT):
            return 0, (OCCURRED_AT_MS_END - 1) // (DAY_MS if of.kind is Kind.DATE else 1)
        if isinstance(of.source, Lines) and not self._some_line(of.source.where):
            return 0, 0
        return -INT64_MAX if may_be_negative(of) else 0, INT64_MAX

    def _some_line(self, where: Condition) -> bool:
        if where not in self._lines:
            self._lines[where] = self.may_hold(where)
        return self._lines[where]

    def _may_fall_on_a_day(self, tests: dict[Field, list[Wanted]]) -> bool:
        """Whether there is a day on which all tests of date, weekday, day, month and instant come out as wanted."""
        dated = {of: wanted for of, wanted in tests.items() if _is_dated(of)}
        if len(dated) < 2 or not self.spend(_DAY_EFFORT):
            return True
        asked = tuple((of, tuple(wanted)) for of, wanted in dated.items())
        if asked not in self._days:
            self._days[asked], days = days_may_pass(dated, self.calendar)
            self.spend(days * _DAY_EFFORT)
        return self._days[asked]


def normalised(test: FieldTest, holds: bool) -> Wanted:  # noqa: FBT001  whether it holds is the question
    """Return a test that must fail as its opposite that must pass, if it has one; both say the same of None."""
    opposite = _OPPOSITES.get(test.comparison)
    if holds or opposite is None:
        return test, holds
    return FieldTest(test.of, opposite, test.value, test.place), True


def tests_in(condition: Condition) -> Iterator[FieldTest]:
    """Yield every test in a condition, in the order written."""
    if isinstance(condition, FieldTest):
        yield condition
    elif isinstance(condition, Not):
        yield from tests_in(condition.part)
    else:
        for part in condition.parts:
            yield from tests_in(part)


def values_of(test: FieldTest) -> tuple[Literal, ...]:
    """Return the constants of a test."""
    return test.value if isinstance(test.value, tuple) else (test.value,)


def passer_of(test: FieldTest, *, wanted: bool) -> Callable[[Any], bool]:
    """Return a function that says whether a value passes (or, if not `wanted`, fails) a test; it is fast for lists."""
    if test.comparison in (Comparison.IN, Comparison.NOT_IN):
        listed, inside = frozenset(values_of(test)), (test.comparison is Comparison.IN) is wanted
        return lambda value: (value in listed) is inside
    return partial(_does, test, wanted)


def _does(test: FieldTest, wanted: bool, value: Any) -> bool:  # noqa: FBT001  bound by `partial`
    return passes(test, value) is wanted


def _of_missing(test: FieldTest) -> bool:
    """Whether a missing value passes."""
    return test.comparison in _TRUE_OF_MISSING or (test.comparison is Comparison.EXISTS and test.value is False)


def _is_dated(of: Field) -> bool:
    if isinstance(of.source, LocalTime):
        return of.source.part is not LocalPart.CLOCK
    return of.kind is Kind.INSTANT


def _no_candidates(_: list[Wanted]) -> list[Any]:
    return _ANYTHING


def _clocks(tests: list[Wanted]) -> list[Any]:
    """Return the instants of a day at which an answer changes."""
    return [0, *(value % DAY_MS for test, _ in tests for value in values_of(test) if isinstance(value, int))]


def _texts(tests: list[Wanted]) -> list[Any]:
    """Return a text that passes all `starts_with` and `contains`, and contains as little else as possible.

    It is made of the texts of these tests with a separator between them. If it passes a test that must fail, that
    test's text is within one of them, and so every text passes that test.
    """
    asked = [(test.comparison, str(test.value)) for test, wanted in tests if wanted]
    beginnings = [text for comparison, text in asked if comparison is Comparison.STARTS_WITH]
    parts = [text for comparison, text in asked if comparison is Comparison.CONTAINS]
    return [_APART.join([max(beginnings, key=len, default=""), *parts]) + _APART]


def _sets(tests: list[Wanted]) -> list[Any]:
    """Return two sets: the required values alone, and the same with all alternatives of `contains_any`."""
    asked = [(test.comparison, values_of(test)) for test, wanted in tests if wanted]
    barred = [test for test, wanted in tests if not wanted and test.comparison is not Comparison.EXISTS]
    chosen = [values for comparison, values in asked if comparison is Comparison.CONTAINS_ANY]
    if chosen and any(test.comparison is Comparison.CONTAINS_ALL for test in barred):
        return _ANYTHING

    barred_values = [
        value for test in barred if test.comparison is not Comparison.CONTAINS_ALL for value in values_of(test)
    ]
    needing = (Comparison.CONTAINS, Comparison.CONTAINS_ALL)
    needed = [value for comparison, values in asked if comparison in needing for value in values]
    extra = [value for values in chosen for value in values if value not in barred_values]
    return [tuple(needed), tuple(needed + extra)]


_SMALL: dict[Kind, Callable[[list[Wanted]], list[Any]]] = {
    Kind.BOOLEAN: lambda _: [True, False],
    Kind.WEEKDAY: lambda _: list(range(7)),
    Kind.CLOCK: _clocks,
    Kind.TEXT: _texts,
    Kind.TEXTS: _sets,
}
_LOWER = {(Comparison.GT, True): True, (Comparison.GTE, True): False,
          (Comparison.LTE, False): True, (Comparison.WITHIN, False): True, (Comparison.LT, False): False}  # fmt: skip
_UPPER = {(Comparison.LT, True): True, (Comparison.LTE, True): False, (Comparison.WITHIN, True): False,
          (Comparison.GTE, False): True, (Comparison.GT, False): False}  # fmt: skip
_MONTH_DAYS = (28, 31)


def _ages_may_pass(tests: list[Wanted]) -> bool:
    """Whether no age that must be reached is certainly longer than an age that must not be exceeded."""
    lower = list(_bounds(tests, _LOWER, 0))
    upper = list(_bounds(tests, _UPPER, -1))
    return not any(_is_longer(low, high, strict or below) for low, strict in lower for high, below in upper)


def _bounds(
    tests: list[Wanted], strict: dict[tuple[Comparison, bool], bool], end: int
) -> Iterable[tuple[Duration, bool]]:
    for test, wanted in tests:
        value = values_of(test)[end]
        if isinstance(value, Duration):
            if test.comparison is Comparison.BETWEEN and wanted:
                yield value, False
            elif (test.comparison, wanted) in strict:
                yield value, strict[test.comparison, wanted]


def _is_longer(low: Duration, high: Duration, or_equal: bool) -> bool:  # noqa: FBT001  which of two bounds it is
    """Whether `low` is longer than `high` whenever they begin; months and days vary in length."""
    lows, highs = (low.months, low.days, low.ms), (high.months, high.days, high.ms)
    for one, other in zip(lows, highs, strict=True):
        if one and other:
            return one > other or (or_equal and one == other)
    return _shortest_ms(low) > _longest_ms(high)


def _shortest_ms(duration: Duration) -> int:
    return duration.ms + (duration.days * 23 + duration.months * _MONTH_DAYS[0] * 23) * DAY_MS // 24


def _longest_ms(duration: Duration) -> int:
    return duration.ms + (duration.days * 25 + duration.months * _MONTH_DAYS[1] * 25) * DAY_MS // 24
