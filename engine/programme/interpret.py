"""Interpret a programme by walking its model: slow, plain, and the reference meaning of what `compile` generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.awards import NOTHING, grant_posting, order_of, refusal, refusal_posting, rounded
from engine.programme.facts import Facts
from engine.programme.localtime import calendar_of
from engine.programme.model import (
    KEPT_PERIODS,
    FixedAmount,
    MaxLimit,
    Over,
    RefusalReason,
    TimesLimit,
    in_order,
)
from engine.state import use_in
from schemas.canonical import grant_key
from schemas.events import INT64_MAX
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.model import Amount, Every, LimitScope, Programme, Rule
    from engine.state import LimitUse, MemberState, Occurrence
    from schemas.events import Event, MemberEvent

    Uses = dict[LimitScope, LimitUse]


class Interpreter:
    """Judge events by one programme version, as `compile.Judge` does."""

    def __init__(self, programme: Programme, version: int) -> None:
        self.programme = programme
        self.version = version
        self._rules = in_order(programme.rules)
        self._calendar = calendar_of(programme.timezone)

    def judge(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member and count it in `state.limits`."""
        facts = Facts(event, event.occurred_at, self._calendar)
        rewards: list[RewardEvent] = []
        for rule in self._rules:
            if isinstance(event, rule.on) and facts.holds(rule.when):
                rewards += self._give(rule, facts, state, occurrence)
        return rewards or NOTHING

    def _give(self, rule: Rule, facts: Facts, state: MemberState, occurrence: Occurrence) -> list[RewardEvent]:
        event: MemberEvent = facts.event
        awards = [award_of(give.amount, facts) for give in rule.gives]
        if not any(awards):
            return []
        uses = {limit.scope: self._use(rule, limit.scope, event, state) for limit in rule.limits}
        times = [limit for limit in rule.limits if isinstance(limit, TimesLimit)]
        used_up = any(uses[limit.scope].times >= limit.times for limit in times)
        rewards: list[RewardEvent] = []
        gave = False
        for index, award in enumerate(awards):
            if award > INT64_MAX:
                rewards.append(self._refuse(rule, index, RefusalReason.OUT_OF_RANGE, award, event, occurrence))
            elif award and used_up:
                rewards.append(self._refuse(rule, index, RefusalReason.LIMIT_TIMES, award, event, occurrence))
            elif award:
                allowed = _take(rule, uses, award)
                if allowed:
                    gave = True
                    rewards.append(self._grant(rule, index, allowed, event, occurrence))
                if allowed < award:
                    cut_off = award - allowed
                    rewards.append(self._refuse(rule, index, RefusalReason.LIMIT_MAX, cut_off, event, occurrence))
        if gave:
            for scope in dict.fromkeys(limit.scope for limit in times):
                uses[scope].times += 1
        return rewards

    def _use(self, rule: Rule, scope: LimitScope, event: MemberEvent, state: MemberState) -> LimitUse:
        period = self._period(scope.every, event.occurred_at)
        return use_in(state.limits, scope.key(rule.id), period, KEPT_PERIODS[scope.every])

    def _period(self, _every: Every, at_ms: int) -> int:
        """Return the number of the period that holds an instant; days are the only periods yet."""
        return self._calendar.local_day(at_ms)

    def _grant(self, rule: Rule, index: int, amount: int, event: MemberEvent, occurrence: Occurrence) -> RewardEvent:
        return RewardEvent(
            posting=grant_posting(rule, rule.gives[index], self.version),
            amount=amount,
            reward_key=grant_key(occurrence.identity, rule.id, event.member_id, index),
            occurred_at_ms=event.occurred_at,
            order_id=order_of(event),
            available_at_ms=event.occurred_at,
        )

    def _refuse(
        self, rule: Rule, index: int, reason: RefusalReason, amount: int, event: MemberEvent, occurrence: Occurrence
    ) -> RewardEvent:
        posting = refusal_posting(rule, rule.gives[index], self.version, reason)
        return refusal(posting, amount, event, occurrence, index)


def award_of(amount: Amount, facts: Facts) -> int:
    """Return what an amount comes to, before limits; 0 where its basis is missing."""
    if isinstance(amount, FixedAmount):
        return amount.amount
    basis = facts.value_of(amount.basis)
    if basis is None:
        return 0
    return rounded(max(basis, 0) * amount.numerator, amount.denominator, amount.rounding)


def _take(rule: Rule, uses: Uses, award: int) -> int:
    """Return what the rule's `max` limits let through of `award`, each in turn, and count it in them."""
    maxima = [limit for limit in rule.limits if isinstance(limit, MaxLimit)]
    allowed = award
    for limit in maxima:
        left = max(limit.amount - uses[limit.scope].amount, 0)
        if allowed > left:
            allowed = left if limit.over is Over.TRIM else 0
    for scope in dict.fromkeys(limit.scope for limit in maxima):
        uses[scope].amount += allowed
    return allowed
