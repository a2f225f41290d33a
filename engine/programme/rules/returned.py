"""Subtract a refund's amounts from limits and metrics, in the period in which they were counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.member.windows import bounded
from engine.programme.conditions import Every, Measure, may_be_negative
from engine.programme.interpret.facts import period_of
from engine.programme.model import MaxLimit
from engine.programme.rules.budgets import budget_key
from engine.programme.rules.limits import LimitCount, Used, value_key
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from engine.member.state import MemberState
    from engine.programme.conditions import Duration, Metric
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Rule
    from engine.programme.rules.occurrence import UseBooks


class Reversed(NamedTuple):
    """Say how much of a rule's awards for an order was reversed."""

    rule: Rule

    bought: Facts
    """The facts of the order; limits counted it at their time."""

    amounts: dict[str, int]
    """How much was reversed, by unit."""

    times: int
    """1 where everything that the rule gave for the order is gone, else 0."""

    window: Duration
    """The programme's `refunds.window`."""


def return_to_limits(state: MemberState, books: UseBooks, undone: Reversed) -> None:
    """Give an order's amounts back to a rule's limits: in the state, or in budgets that members share."""
    rule, bought, amounts, times, window = undone
    for scope in dict.fromkeys(limit.scope for limit in rule.limits):
        # a scope counts amounts for a `max` and times for a `times`
        capped = any(isinstance(limit, MaxLimit) and limit.scope == scope for limit in rule.limits)
        timed = any(not isinstance(limit, MaxLimit) and limit.scope == scope for limit in rule.limits)
        back = Used(amounts.get(scope.unit, 0) if capped else 0, times if timed else 0)

        if not scope.is_shared:
            value = None if scope.by is None else value_key(bought.value_of(scope.by))
            count = LimitCount(scope.key(rule.id), scope.every, window, bought.calendar)
            count.take_back(state, value, bought.at_ms, back, books)
        elif any(back) and isinstance(scope.every, Every):
            period = period_of(scope.every, bought.at_ms, bought.calendar)
            books.return_to_budget(budget_key(rule, scope), period, *back)


def take_from_metric(state: MemberState, metric: Metric, by: int, at_ms: int) -> None:
    """Subtract an addition of an order at an instant from a count or a sum; `last` and `streak` stay as they are.

    A sum is cut off at the largest number that can be stored; subtracting starts from there. A sum of numbers that are
    never negative stops at 0.
    """
    if not by or state.memory is None or metric.measure not in (Measure.COUNT, Measure.SUM):
        return

    least = -INT64_MAX if metric.of is not None and may_be_negative(metric.of) else 0
    if metric.over is None:
        counter = state.memory.counters.get(metric.key)
        if counter is not None:
            counter[0] = max(least, bounded(counter[0] - by))
    else:
        window = state.memory.windows.get(metric.key)
        if window is not None:
            window.take(at_ms, by, least=least)
