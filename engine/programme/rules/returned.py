"""Take back from limits and metrics what a refund has undone, in the period in which it was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.windows import bounded
from engine.programme.conditions import Measure, may_be_negative
from engine.programme.interpret.facts import period_of
from engine.programme.model import Every, MaxLimit
from engine.programme.rules.budgets import budget_key
from engine.programme.rules.limits import LimitCount, value_key
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.member.state import MemberState
    from engine.programme.conditions import Metric
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Rule


def return_to_limits(turn: Turn, rule: Rule, bought: Facts, amounts: dict[str, int], times: int) -> None:
    """Give back what a rule's limits had counted of an order.

    Args:
        turn: whose state, or the budgets that members share, it gives back to.
        rule: whose limits these are.
        bought: the order's facts, at whose time it was counted.
        amounts: what was reversed, by unit.
        times: 1 where everything that the rule gave for the order is gone, else 0.
    """
    for scope in dict.fromkeys(limit.scope for limit in rule.limits):
        capped = any(isinstance(limit, MaxLimit) and limit.scope == scope for limit in rule.limits)
        timed = any(not isinstance(limit, MaxLimit) and limit.scope == scope for limit in rule.limits)
        amount = amounts.get(scope.unit, 0) if capped else 0
        back = (amount, times if timed else 0)
        if not scope.is_shared:
            value = None if scope.by is None else value_key(bought.value_of(scope.by))
            count = LimitCount(scope.key(rule.id), scope.every, turn.terms.refunds.window, bought.calendar)
            count.take_back(turn.state, value, bought.at_ms, back, turn.books)
        elif any(back) and isinstance(scope.every, Every):
            period = period_of(scope.every, bought.at_ms, bought.calendar)
            turn.books.return_to_budget(budget_key(rule, scope), period, *back)


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
