"""Take back from limits and metrics what a refund has undone, in the period in which it was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.member.windows import bounded
from engine.programme.conditions import Every, Measure, may_be_negative
from engine.programme.interpret.facts import period_of
from engine.programme.model import MaxLimit
from engine.programme.rules.budgets import budget_key
from engine.programme.rules.limits import LimitCount, value_key
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from engine.member.state import MemberState
    from engine.programme.conditions import Duration, Metric
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Rule
    from engine.programme.rules.occurrence import UseBooks


class Reversed(NamedTuple):
    """Say what of a rule's awards for an order was reversed.

    `bought` are the order's facts, at whose time its limits counted it. `amounts` were reversed, by unit; `times` is 1
    where everything that the rule gave for the order is gone, else 0. `window` is the programme's `refunds.window`.
    """

    rule: Rule
    bought: Facts
    amounts: dict[str, int]
    times: int
    window: Duration


def return_to_limits(state: MemberState, books: UseBooks, undone: Reversed) -> None:
    """Give back what a rule's limits had counted of an order: to the state, or to budgets that members share."""
    rule, bought, amounts, times, window = undone
    for scope in dict.fromkeys(limit.scope for limit in rule.limits):
        capped = any(isinstance(limit, MaxLimit) and limit.scope == scope for limit in rule.limits)
        timed = any(not isinstance(limit, MaxLimit) and limit.scope == scope for limit in rule.limits)
        amount = amounts.get(scope.unit, 0) if capped else 0
        back = (amount, times if timed else 0)
        if not scope.is_shared:
            value = None if scope.by is None else value_key(bought.value_of(scope.by))
            count = LimitCount(scope.key(rule.id), scope.every, window, bought.calendar)
            count.take_back(state, value, bought.at_ms, back, books)
        elif any(back) and isinstance(scope.every, Every):
            period = period_of(scope.every, bought.at_ms, bought.calendar)
            books.return_to_budget(budget_key(rule, scope), period, *back)


def take_from_metric(state: MemberState, metric: Metric, by: int, at_ms: int) -> None:
    """Take from a count or a sum what an order had entered at an instant; `last` and `streak` stay.

    A sum that has reached the most that can be stored has forgotten what was beyond it: what is taken back lowers it
    from there, and a sum of what is never negative stops at 0.
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
