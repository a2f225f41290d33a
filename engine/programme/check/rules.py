"""Check what the rules of a programme mean: which conditions can never hold, which rules can never give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.programme.check.possible import passer_of, tests_in, values_of
from engine.programme.check.unmeant import warn_of_rounding
from engine.programme.conditions import NOWHERE, AllOf, AnyOf, Attribute, Comparison, Field, FieldTest, Kind, Lines, Not
from engine.programme.fields import TRIGGER_NAMES
from engine.programme.file.problems import Code, shown
from engine.programme.model import FixedAmount, MaxLimit, MultipliedAmount, Over, Phase, RatedAmount
from engine.programme.rules.cohorts import TREAT_OF

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.programme.check.possible import Possibilities
    from engine.programme.conditions import Condition, Place
    from engine.programme.file.problems import Problems
    from engine.programme.model import Active, Cohort, Rule


@dataclass(frozen=True)
class Checker:
    """Check the conditions and rules of one programme.

    With `was_activated`, it is a version that an earlier release has let judge: what has become an error since then is
    none.
    """

    possible: Possibilities
    problems: Problems
    was_activated: bool = False

    def rules(self, rules: tuple[Rule, ...]) -> None:
        """Record every contradiction within `rules`."""
        for rule in rules:
            self._rule(rule)
            _check_limits(rule, self.problems)
            _check_multipliers(rule, rules, self.problems)
        _check_groups(rules, self.problems)
        if not self.was_activated:
            _check_cohorts(rules, self.problems)

    def _rule(self, rule: Rule) -> None:
        active = _active_tests(rule)
        if self.condition(rule.when, rule.place, active):
            parts = [*active, *parts_of(rule.when)]
            self._alternatives(parts)
            if rule.challenge is not None:
                self.condition(rule.challenge.where, rule.place, parts)
        for give in rule.gives:
            basis = give.amount.basis.source if isinstance(give.amount, RatedAmount) else None
            if isinstance(basis, Lines):
                self.condition(basis.where, give.place)

    def condition(self, condition: Condition, place: Place, beside: Sequence[Condition] = ()) -> bool:
        """Record every contradiction within a condition; return whether it can hold at all.

        Args:
            condition: the condition to check.
            place: where the condition stands, if no test in it says so better.
            beside: conditions that must hold as well; they can hold without it.
        """
        # its own parts first: branches, and the conditions on lines
        parts = list(parts_of(condition))
        by_field: dict[Field, list[FieldTest]] = {}
        for test in parts:
            if isinstance(test, FieldTest):
                by_field.setdefault(test.of, []).append(test)
        possible = [self.condition(branch, place) for part in parts for branch in branches_of(part)]
        for field in list(by_field):
            if isinstance(field.source, Lines):
                possible.append(self.condition(field.source.where, place))
                if not possible[-1]:
                    del by_field[field]  # one error is enough: if no line fulfils it, no purchase does

        # all of it together
        if self.possible.may_hold(*beside, *parts):
            for field, tests in by_field.items():
                self._listed(field, tests)
            return all(possible)

        # it cannot hold: name the field to blame, or else the part that excludes the others
        possible += [self._field(field, tests) for field, tests in by_field.items()]
        if all(possible):
            self._together([*beside, *parts], place)
        return False

    def _field(self, field: Field, tests: list[FieldTest]) -> bool:
        """Record that no value passes all of `tests`; return whether one does."""
        if self.possible.may_hold(*tests):
            return True
        message = f"no value of {field.path} passes all of its tests; this can never hold"
        if any(test.comparison is Comparison.EXISTS and test.value is False for test in tests):
            message = f"{field.path} must be missing here and cannot be; this can never hold"
        self.problems.error(tests[-1].place, Code.NEVER_MATCHES, message)
        return False

    def _listed(self, field: Field, tests: list[FieldTest]) -> None:
        """Record values of a list that the other tests of the field exclude."""
        if len(tests) > TESTS_COMPARED_MAX:
            return
        passers = [passer_of(test, wanted=True) for test in tests]
        for test in tests:
            if test.comparison is not Comparison.IN:
                continue
            among = frozenset(self.possible.candidates(field, [(test, True)]))
            if not all(value in among and all(passed(value) for passed in passers) for value in values_of(test)):
                message = f"not every value listed for {field.path} can pass its other tests; take those out"
                self.problems.warn(test.place, Code.UNREACHABLE_VALUE, message)

    def _together(self, parts: list[Condition], place: Place) -> None:
        """Record the first of `parts`, which exclude each other, that cannot hold with those before it."""
        # halve the number of parts that can still hold together
        least, most = 1, len(parts)
        while least < most:
            middle = (least + most) // 2
            if self.possible.may_hold(*parts[:middle]):
                least = middle + 1
            else:
                most = middle

        message = "this can never hold beside what else must"
        where = _place_in(parts[most - 1], place) if parts else place
        self.problems.error(where, Code.NEVER_MATCHES, message)

    def _alternatives(self, parts: list[Condition]) -> None:
        """Record the alternatives of an `any` that can never hold with the rest of the condition."""
        for number, part in enumerate(parts):
            if not isinstance(part, AnyOf) or self.possible.effort <= 0:
                continue
            others = parts[:number] + parts[number + 1 :]
            for alternative in part.parts:
                if not self.possible.may_hold(*others, alternative):
                    message = "this alternative can never hold beside what else must; take it out"
                    place = _place_in(part, NOWHERE) if part.named_at else _place_in(alternative, NOWHERE)
                    self.problems.warn(place, Code.UNREACHABLE_VALUE, message)


TESTS_COMPARED_MAX = 100
"""If a field has more tests, its lists are not checked for excluded values."""


def tests_of(condition: Condition) -> Iterator[FieldTest]:
    """Yield every test that must hold for `condition` to hold."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from tests_of(part)
    elif isinstance(condition, FieldTest):
        yield condition


def parts_of(condition: Condition) -> Iterator[Condition]:
    """Yield the parts of a condition that must all hold; a segment that a rule names is one part."""
    if isinstance(condition, AllOf) and condition.named_at is None:
        for part in condition.parts:
            yield from parts_of(part)
    else:
        yield condition


def branches_of(part: Condition) -> tuple[Condition, ...]:
    """Return the conditions within a part that need not hold; segments are checked where they are defined."""
    if isinstance(part, Not):
        return (part.part,)
    return part.parts if isinstance(part, AnyOf) and part.named_at is None else ()


def _active_tests(rule: Rule) -> list[FieldTest]:
    """Return the time in which a rule is judged, as tests of the event's instant."""
    trigger, active = TRIGGER_NAMES[rule.on], rule.active
    field = Field(f"{trigger}.occurred_at", Kind.INSTANT, Attribute("occurred_at"), optional=False)
    bounds = ((Comparison.GTE, active.from_ms), (Comparison.LT, active.until_ms))
    return [FieldTest(field, comparison, ms, active.place) for comparison, ms in bounds if ms is not None]


def _place_in(condition: Condition, otherwise: Place) -> Place:
    """Return the place of a condition: where it is named, or of its first test."""
    if isinstance(condition, (AllOf, AnyOf)) and condition.named_at is not None:
        return condition.named_at
    return next((test.place for test in tests_in(condition)), otherwise)


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
        if isinstance(give.amount, FixedAmount) and give.unit == limit.scope.unit and give.amount.amount > limit.amount:
            message = f"{give.amount.amount} {give.unit} never fit under this limit of {limit.amount}: all are refused"
            problems.error(limit.place, Code.NEVER_GIVES, message)


def _check_groups(rules: tuple[Rule, ...], problems: Problems) -> None:
    """Record groups whose rules have several phases, or say differently how one is picked."""
    firsts: dict[str, Rule] = {}
    for rule in rules:
        if rule.group is None:
            continue
        first = firsts.setdefault(rule.group.id, rule)
        if first.phase is not rule.phase:
            message = f'group "{shown(rule.group.id)}" has rules of {first.phase} and {rule.phase}; keep to one phase'
            problems.error(rule.group.place, Code.CONTRADICTION, message)
        if first.group is not None and first.group.pick is not rule.group.pick:
            message = f'group "{shown(rule.group.id)}" picks {first.group.pick} and {rule.group.pick}; write one'
            problems.error(rule.group.place, Code.CONTRADICTION, message)


def _check_cohorts(rules: tuple[Rule, ...], problems: Problems) -> None:
    """Record cohorts of one salt that divide members differently, or say differently how they are compared.

    Where all rules of a salt treat everybody or nobody, no member is divided from another.
    """
    by_salt: dict[str, list[tuple[Rule, Cohort]]] = {}
    for rule in rules:
        if rule.cohort is not None:
            by_salt.setdefault(rule.cohort.salt, []).append((rule, rule.cohort))

    for salt, cohorts in by_salt.items():
        first, divided = cohorts[0]
        is_divided = any(0 < cohort.treat < TREAT_OF for _, cohort in cohorts)
        for rule, cohort in cohorts[1:]:
            what = None
            if cohort.treat != divided.treat and is_divided:
                what = f"two splits, in rules {shown(first.id)} and {shown(rule.id)}; give one of them another salt"
            elif (cohort.planned, cohort.metric) != (divided.planned, divided.metric):
                what = f"two plans, in rules {shown(first.id)} and {shown(rule.id)}; write the same planned and metric"
            if what is not None:
                problems.error(cohort.place, Code.CONTRADICTION, f'the salt "{shown(salt)}" has {what}')


def _check_multipliers(rule: Rule, rules: tuple[Rule, ...], problems: Problems) -> None:
    """Record multipliers that have nothing to multiply, or round it away."""
    phases = list(Phase)
    for give in rule.gives:
        if not isinstance(give.amount, MultipliedAmount):
            continue

        phase = give.amount.phase
        if phases.index(phase) >= phases.index(rule.phase):
            message = f"a multiplier of phase {phase} must be in a later one; give the rule a phase such as boost"
            problems.error(give.place, Code.CONTRADICTION, message)
        elif not (bases := [other for other in rules if _gives_points(other, rule, phase)]):
            message = f"no rule on these events gives points in phase {phase}, so there is nothing to multiply"
            problems.warn(give.place, Code.NEVER_GIVES, message)
        else:
            warn_of_rounding(give, bases, problems)


def _gives_points(rule: Rule, multiplier: Rule, phase: Phase) -> bool:
    if rule.on is not multiplier.on or rule.phase is not phase or not _overlap(rule.active, multiplier.active):
        return False
    return any(give.unit == "points" for give in rule.gives)


def _overlap(one: Active, other: Active) -> bool:
    """Whether there is an instant at which both rules are judged."""
    starts = [active.from_ms for active in (one, other) if active.from_ms is not None]
    ends = [active.until_ms for active in (one, other) if active.until_ms is not None]
    return not starts or not ends or max(starts) < min(ends)
