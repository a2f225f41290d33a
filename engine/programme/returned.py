"""Take back from limits and metrics what a refund has undone, in the period in which it was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.budgets import budget_key
from engine.programme.conditions import Duration, Measure, may_be_negative
from engine.programme.facts import period_of
from engine.programme.model import Every, MaxLimit
from engine.programme.uses import value_key
from engine.windows import bounded
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.programme.conditions import Metric
    from engine.programme.facts import Facts
    from engine.programme.model import LimitScope, Rule
    from engine.state import LimitUse, MemberState
    from engine.windows import Window


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
            _give_back(turn.state, scope, rule.id, bought, back)
        elif any(back) and isinstance(scope.every, Every):
            period = period_of(scope.every, bought.at_ms, bought.calendar)
            turn.books.return_to_budget(budget_key(rule, scope), period, *back)


def _give_back(state: MemberState, scope: LimitScope, rule_id: str, bought: Facts, back: tuple[int, int]) -> None:
    amount, times = back
    key = scope.key(rule_id)
    value = None if scope.by is None else value_key(bought.value_of(scope.by))
    if isinstance(scope.every, Duration):
        window = _window_of(state, key, value)
        if window is not None and (amount or times):
            window.take(bought.at_ms, amount, times, least=0)
        return
    use = _use_of(state, key, value, period_of(scope.every, bought.at_ms, bought.calendar))
    if use is not None:
        use.amount = max(0, use.amount - amount)
        use.times = max(0, use.times - times)


def _window_of(state: MemberState, key: str, value: str | None) -> Window | None:
    if state.memory is None:
        return None
    return state.memory.windows.get(key) if value is None else state.memory.value_windows.get(key, {}).get(value)


def _use_of(state: MemberState, key: str, value: str | None, period: int) -> LimitUse | None:
    """Return what was used in a period, or None where that is forgotten."""
    if value is None:
        newest = state.limits.get(key)
    else:
        newest = None if state.memory is None else state.memory.value_limits.get(key, {}).get(value)
    if newest is None:
        return None
    return next((use for use in (newest, *(newest.earlier or ())) if use.period == period), None)


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
