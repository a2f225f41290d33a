"""Read the facts of one event and test them, plainly: the reference meaning of every condition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Any, assert_never

from engine.member.state import attribute_of, birthday_of
from engine.programme.conditions import (
    MILLION,
    AllOf,
    AnyOf,
    Attribute,
    Comparison,
    Difference,
    Duration,
    Every,
    FieldTest,
    History,
    Kind,
    Lines,
    LocalPart,
    LocalTime,
    Measure,
    MemberPart,
    MemberValue,
    Not,
    Tender,
    TierValue,
)
from engine.programme.localtime import DAY_MS, DAY_ZERO, days_to_birthday
from engine.programme.rules.metrics import (
    add_last,
    add_streak,
    add_total,
    add_window,
    last_of,
    streak_of,
    total_of,
    window_sum,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from engine.programme.conditions import Condition, Field, Metric, Source
    from engine.programme.localtime import Calendar
    from engine.programme.model import MultipliedAmount

MONDAY_OF_DAY_ZERO = 3
"""1970-01-01 was a Thursday."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Hold what conditions can read."""

    event: Any
    """The event; in the tests of a line, the line."""

    at_ms: int
    """When the event occurred."""

    calendar: Calendar
    state: MemberState

    available: int
    """The member's points before the event."""

    possessed: dict[str, int]
    """The member's badges and benefits before the event, with the instant at which each ends; 0: it does not end."""

    @classmethod
    def before(cls, event: Any, state: MemberState, calendar: Calendar) -> Facts:
        """Return the facts of an event that has not changed anything yet."""
        possessed = {} if state.memory is None else dict(state.memory.possessed)
        return cls(event, event.occurred_at, calendar, state, available=state.available, possessed=possessed)

    def holds(self, condition: Condition) -> bool:
        """Whether `condition` is fulfilled."""
        if isinstance(condition, AllOf):
            return all(self.holds(part) for part in condition.parts)
        if isinstance(condition, AnyOf):
            return any(self.holds(part) for part in condition.parts)
        if isinstance(condition, Not):
            return not self.holds(condition.part)
        return self._passes(condition)

    def value_of(self, field: Field) -> Any:
        """Return the value of a field in the unit of its kind, or None where it is missing."""
        value = self._read(field.source)
        if field.kind is Kind.DECIMAL and isinstance(value, str):
            return millionths(value)
        if field.kind is Kind.RECURRING:
            return days_to_birthday(value, self.calendar.local_day(self.at_ms))
        return value

    def extra_of(self, amount: MultipliedAmount) -> tuple[int, int] | None:
        """Return a multiplier's factor less 1, as a fraction; None where its key's value has no factor."""
        if amount.key is None:
            return amount.extra
        return dict(amount.extras).get(self.value_of(amount.key))

    def _read(self, source: Source) -> Any:  # noqa: PLR0911  one answer for each source
        """Return the value that a source has, None where it is missing."""
        if isinstance(source, Attribute):
            value = getattr(self.event, source.name)
            if source.key is not None and value is not None:
                return value.get(source.key)
            return None if isinstance(value, (list, tuple)) and not value else value  # an empty one is missing

        if isinstance(source, Tender):
            return tendered(self.event.tenders, source.kind)
        if isinstance(source, LocalTime):
            return self._local(source.part)
        if isinstance(source, Lines):
            return self._lines(source)

        # the member's past and present
        if isinstance(source, History):
            return self._history(source.metric)
        if isinstance(source, MemberValue):
            return self._member(source)
        if isinstance(source, TierValue):
            rank = tier_rank_of(self.state, source.levels)
            return rank if source.ranked else source.levels[rank]

        assert isinstance(source, Difference)  # the union has no other member
        values = [self.value_of(field) for _, field in source.terms]
        if None in values:
            return None
        return sum(sign * value for (sign, _), value in zip(source.terms, values, strict=True))

    def _history(self, metric: Metric) -> int | None:
        if metric.measure is Measure.LAST:
            return last_of(self.state, metric.key)
        if metric.unit is not None:
            return streak_of(self.state, metric.key, period_of(Every(metric.unit), self.at_ms, self.calendar))
        if metric.over is None:
            return total_of(self.state, metric.key)
        return window_sum(self.state, metric.key, self.calendar.before(self.at_ms, metric.over), self.at_ms)

    def enter(self, metric: Metric) -> None:
        """Let a metric take the event in."""
        value = 1 if metric.of is None else self.value_of(metric.of)
        if metric.measure is Measure.LAST:
            add_last(self.state, metric.key, self.at_ms)
        elif metric.unit is not None:
            add_streak(self.state, metric.key, period_of(Every(metric.unit), self.at_ms, self.calendar))
        elif metric.over is None:
            add_total(self.state, metric.key, value)
        else:
            add_window(self.state, metric.key, value, self.calendar.before(self.at_ms, metric.over), self.at_ms)

    def _member(self, source: MemberValue) -> int | bool | str | None:
        if source.part is MemberPart.AGE:
            return self.state.signup_ms
        if source.part is MemberPart.REFERRER:
            return referrer_of(self.state)
        if source.part is MemberPart.BALANCE:
            return self.available
        if source.part is MemberPart.BIRTHDAY:
            return birthday_of(self.state)
        if source.part is MemberPart.ATTRIBUTE:
            return attribute_of(self.state, source.item)
        return is_possessed(self.possessed, source.item, self.at_ms)

    def _local(self, part: LocalPart) -> int:
        day, clock_ms = divmod(self.calendar.local_time(self.at_ms), DAY_MS)
        match part:
            case LocalPart.CLOCK:
                return clock_ms
            case LocalPart.WEEKDAY:
                return (day + MONDAY_OF_DAY_ZERO) % 7
            case LocalPart.DATE:
                return day
            case LocalPart.DAY:
                return date.fromordinal(day + DAY_ZERO).day
            case LocalPart.MONTH:
                return date.fromordinal(day + DAY_ZERO).month
            case _:
                assert_never(part)

    def _lines(self, source: Lines) -> int | None:
        """Count or add up the lines that fulfil a condition; None where the purchase has no lines."""
        if not self.event.items:
            return None

        chosen = [line for line in self.event.items if replace(self, event=line).holds(source.where)]
        if source.sum is None:
            return len(chosen)
        if source.sum == "quantity":
            return sum(millionths(line.quantity) for line in chosen)
        total: int = sum(line.amount for line in chosen)
        return total

    def _passes(self, test: FieldTest) -> bool:
        value = self.value_of(test.of)
        if test.comparison is Comparison.EXISTS:
            return (value is not None) is test.value
        if value is None:
            return test.comparison in (Comparison.NE, Comparison.NOT_IN)
        if test.of.kind is Kind.AGE:
            return self._is_of_age(value, test)
        return passes(test, value)

    def _is_of_age(self, since_ms: int, test: FieldTest) -> bool:
        """Whether the time since an instant passes a test of an age."""
        durations = test.value if isinstance(test.value, tuple) else (test.value,)
        ends = [self.calendar.after(since_ms, each) for each in durations if isinstance(each, Duration)]
        if test.comparison is Comparison.BETWEEN:
            return ends[0] <= self.at_ms <= ends[1]
        within = test.comparison is Comparison.WITHIN
        return compared(Comparison.LTE if within else test.comparison, self.at_ms, ends[0])


def passes(test: FieldTest, value: Any) -> bool:  # noqa: C901, PLR0911  one answer for each comparison
    """Whether `value`, which is not missing and no age, passes `test`."""
    wanted: Any = test.value
    match test.comparison:
        case Comparison.EXISTS:
            return wanted is True

        # of one value among several
        case Comparison.IN:
            return value in wanted
        case Comparison.NOT_IN:
            return value not in wanted

        # of a size
        case Comparison.BETWEEN:
            return bool(wanted[0] <= value <= wanted[1])
        case Comparison.CLOCK:
            start, end = wanted
            return bool(start <= value < end) if start < end else bool(value >= start or value < end)
        case Comparison.WITHIN:
            return bool(value <= wanted.days)

        # of a part of a text or list
        case Comparison.CONTAINS:
            return wanted in value
        case Comparison.CONTAINS_ANY:
            return any(each in value for each in wanted)
        case Comparison.CONTAINS_ALL:
            return all(each in value for each in wanted)
        case Comparison.STARTS_WITH:
            return bool(value.startswith(wanted))

        case _:
            return compared(test.comparison, value, wanted)


def compared(comparison: Comparison, value: Any, wanted: Any) -> bool:
    """Compare two values of one kind."""
    if comparison is Comparison.EQ:
        return bool(value == wanted)
    if comparison is Comparison.NE:
        return bool(value != wanted)
    if comparison is Comparison.GT:
        return bool(value > wanted)
    if comparison is Comparison.GTE:
        return bool(value >= wanted)
    if comparison is Comparison.LT:
        return bool(value < wanted)
    return bool(value <= wanted)


def period_of(every: Every, at_ms: int, calendar: Calendar) -> int:
    """Return the number of the calendar period that holds an instant."""
    day = calendar.local_day(at_ms)
    local = date.fromordinal(day + DAY_ZERO)
    month = local.year * 12 + local.month - 1
    return {
        Every.DAY: day, Every.WEEK: (day + MONDAY_OF_DAY_ZERO) // 7, Every.MONTH: month, Every.QUARTER: month // 3,
        Every.YEAR: local.year, Every.LIFETIME: 0,
    }[every]  # fmt: skip


def is_possessed(possessed: dict[str, int], item: str, at_ms: int) -> bool:
    """Whether a badge or benefit was given and has not ended; 0 stands for no end."""
    until_ms = possessed.get(item)
    return until_ms is not None and (until_ms == 0 or at_ms < until_ms)


def holds_item(state: MemberState, item: str, at_ms: int) -> bool:
    """Whether the member holds a badge or benefit."""
    return state.memory is not None and is_possessed(state.memory.possessed, item, at_ms)


def referrer_of(state: MemberState) -> str | None:
    """Return who referred the member, None where nobody did or the referral was voided."""
    referral = state.referral
    return None if referral is None or referral.voided else referral.referrer_id


def tier_rank_of(state: MemberState, levels: Sequence[str]) -> int:
    """Return the rank of the member's tier among `levels`; 0, the lowest, is where everybody begins."""
    tier_state = state.tier_state
    return 0 if tier_state is None or tier_state.level not in levels else levels.index(tier_state.level)


def tier_of(state: MemberState, levels: Sequence[str]) -> str:
    """Return the member's tier among `levels`."""
    return levels[tier_rank_of(state, levels)]


def metric_value(metric: Metric, facts: Facts) -> Any:
    """Return how much an event adds to a count or sum whose `where` it fulfils; 0 where its number is missing."""
    if metric.measure is Measure.COUNT:
        return 1
    if metric.measure is not Measure.SUM or metric.of is None:
        return 0
    return facts.value_of(metric.of) or 0


def tendered(tenders: Sequence[Any] | None, kind: str) -> int:
    """Return what was paid by tenders of `kind`, in minor units."""
    return sum(tender.amount for tender in tenders or () if tender.kind == kind)


def millionths(quantity: str | Fraction) -> int:
    """Return a canonical decimal of at most six decimals as an integer of millionths.

    The lines of an order after a refund hold exact rationals of millionths: these are returned as they are.
    """
    if isinstance(quantity, Fraction):
        return quantity  # type: ignore[return-value]  # whoever adds these up adds rationals
    whole, _, fraction = quantity.partition(".")
    return int(whole) * MILLION + int(f"{fraction:0<6}") if fraction else int(whole) * MILLION
