"""Interpret a programme by walking its model: slow, plain, and the reference for what `compile` generates.

It judges in the tests that hold both equal, in explanations (`guerdon why`), and where a refund completes a challenge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.member.state import LimitUse
from engine.programme.conditions import Duration, Every
from engine.programme.fields import TRIGGERS
from engine.programme.interpret.facts import Facts, metric_value, period_of
from engine.programme.interpret.observer import Gate, Observer
from engine.programme.localtime import calendar_of
from engine.programme.model import (
    Arm,
    MaxLimit,
    Over,
    Phase,
    Pick,
    RefusalReason,
    TimesLimit,
    decides,
    in_order,
)
from engine.programme.rules.awards import (
    NOTHING,
    award_of,
    completion,
    completion_posting,
    grant_posting,
    order_of,
    refusal,
    refusal_posting,
)
from engine.programme.rules.budgets import budget_of, open_budget, shared_limit
from engine.programme.rules.cohorts import begins, cohort_key, control_key, entry, entry_posting, is_treated
from engine.programme.rules.counting import counting_of, counts
from engine.programme.rules.draws import wins
from engine.programme.rules.expiry import Expiry
from engine.programme.rules.judge import Judge
from engine.programme.rules.kept_facts import ORDERS, are_always_kept, frozen_items, frozen_value, keep_facts
from engine.programme.rules.limits import ForgottenUse, RollingUse, is_forgotten, limit_count
from schemas.canonical import grant_key
from schemas.events import INT64_MAX
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from engine.programme.model import Amount, Challenge, Cohort, Draw, Give, Limit, LimitScope, Programme, Rule
    from engine.programme.rules.kept_facts import Frozen
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import Event, MemberEvent

    Uses = dict[LimitScope, LimitUse | RollingUse | ForgottenUse]


class Interpreter(Judge):
    """Judge events by one programme version, and let an observer hear how."""

    __slots__ = ("_frozen", "_observer", "_rules")

    def __init__(self, programme: Programme, version: int, observer: Observer | None = None) -> None:
        super().__init__(programme, version)
        self._observer = observer or Observer()
        self._rules = in_order(programme.rules)
        self._frozen: dict[type[Event], tuple[Frozen, ...]] = {kind: frozen_items(programme, kind) for kind in ORDERS}

    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member and count it in `state`."""
        rules = [rule for rule in self._rules if isinstance(event, rule.on)]
        judging = _Judging(self.programme, self.version, event, state, occurrence, observer=self._observer)  # type: ignore[arg-type]  # rules are on members

        # what a refund must know later is read before anything changes
        frozen = self._frozen.get(type(event), ())
        facts = tuple(frozen_value(item, judging.facts) for item in frozen)

        judging.go_through(rules)
        self._enter_metrics(event, judging, state)
        if frozen and (judging.rewards or are_always_kept(self.programme, type(event))):
            keep_facts(state, event, facts)  # type: ignore[arg-type]  # orders are members'
        return judging.rewards or NOTHING

    def _enter_metrics(self, event: Event, judging: _Judging, state: MemberState) -> None:
        """Let the metrics take the event in, and count for the tiers what their metric gained."""
        tiers = self.programme.terms.tiers
        tier_metric = None if tiers is None else tiers.metric
        for metric in self.programme.metrics:
            if isinstance(event, TRIGGERS[metric.on]) and judging.facts.holds(metric.where):
                judging.facts.enter(metric)
                if tier_metric is not None and metric.key == tier_metric.key:
                    state.gained += metric_value(metric, judging.facts)

    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return the rewards of a challenge that a refund completes, and count them in `state`."""
        judging = _Judging(self.programme, self.version, facts.event, state, occurrence, observer=self._observer)
        judging.facts = facts
        judging.rewards.append(completion(completion_posting(rule, self.version), facts.event, occurrence))
        if given is not None and (rule.draw is None or judging.wins(rule, rule.draw)):
            judging.given = given
            judging.give(rule)
        return judging.rewards


@dataclass
class _Judging:
    """Judge one event rule by rule; `rewards` and `given` (points by phase) are its rewards so far."""

    programme: Programme
    version: int
    event: MemberEvent
    state: MemberState
    occurrence: Occurrence
    observer: Observer
    rewards: list[RewardEvent] = field(default_factory=list)
    given: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))

    def __post_init__(self) -> None:
        self.calendar = calendar_of(self.programme.timezone)
        self.facts = Facts.before(self.event, self.state, self.calendar)

    def go_through(self, rules: list[Rule]) -> None:
        """Let each rule that stands give, and of a group the rule that it picks."""
        picked: dict[str, Rule | None] = {}
        for rule in rules:
            if not decides(rule.group):
                if self.stands(rule):
                    self.give(rule)
                continue

            # the whole group is examined where its first rule stands
            assert rule.group is not None  # decides() says so
            if rule.group.id not in picked:
                picked[rule.group.id] = self.pick([each for each in rules if each.group == rule.group])
            if picked[rule.group.id] is rule:
                self.give(rule)

    def stands(self, rule: Rule) -> bool:
        """Whether the rule's time, condition, cohort, challenge and draw let it give.

        A completed challenge is recorded.
        """
        at_ms, active = self.event.occurred_at, rule.active
        if active.from_ms is not None and at_ms < active.from_ms:
            return self._stopped(rule, Gate.NOT_YET)
        if active.until_ms is not None and at_ms >= active.until_ms:
            return self._stopped(rule, Gate.NO_LONGER)
        if not self.facts.holds(rule.when):
            return self._stopped(rule, Gate.CONDITION)

        if rule.cohort is not None and not self._treats(rule, rule.cohort):
            return self._stopped(rule, Gate.CONTROL)
        if rule.challenge is not None and not self._completes(rule, rule.challenge):
            return False
        return rule.draw is None or self.wins(rule, rule.draw)

    def _treats(self, rule: Rule, cohort: Cohort) -> bool:
        """Whether the rule's cohort treats the member, whose first event there is recorded.

        The first event of a control member is recorded as refused, too, once for each rule.
        """
        treated = is_treated(cohort, self.event.member_id)
        if self.programme.enters_cohorts and begins(self.state, cohort_key(cohort.salt)):
            posting = entry_posting(rule, self.version, Arm.TREATED if treated else Arm.CONTROL)
            self.rewards.append(entry(posting, cohort.salt, self.event, self.occurrence))
        if not treated and begins(self.state, control_key(rule.id)):
            self._refuse(rule, 0, RefusalReason.COHORT_CONTROL, self._award(rule.gives[0].amount))
        return treated

    def wins(self, rule: Rule, draw: Draw) -> bool:
        """Whether the event wins the rule's draw."""
        return wins(draw, rule.id, self.event.source, self.event.event_id) or self._stopped(rule, Gate.DRAW)

    def _stopped(self, rule: Rule, gate: Gate) -> bool:
        """Let the observer hear that the rule ends at a gate; return False, as it does not stand."""
        self.observer.stopped(rule, gate, self.facts)
        return False

    def _completes(self, rule: Rule, challenge: Challenge) -> bool:
        """Whether the event counts for the rule's challenge and completes it; a completion is recorded."""
        if not self.facts.holds(challenge.where):
            return self._stopped(rule, Gate.COUNTS)

        at_ms = self.event.occurred_at
        from_ms = None if challenge.within is None else self.calendar.before(at_ms, challenge.within)
        by = 1 if challenge.of is None else self.facts.value_of(challenge.of)
        counting = counting_of(rule, self.programme, self.version)
        if not counts(self.state, counting, by, from_ms, self.event, identity=self.occurrence.identity):
            return self._stopped(rule, Gate.CHALLENGE)

        self.rewards.append(completion(completion_posting(rule, self.version), self.event, self.occurrence))
        return True

    def pick(self, rules: list[Rule]) -> Rule | None:
        """Return the rule that a group lets give, of those that stand: the first, or the one worth most."""
        picked, best = None, -1
        stood: list[tuple[Rule, int | None]] = []
        for rule in rules:
            if not self.stands(rule):
                continue
            assert rule.group is not None  # they are a group's
            if rule.group.pick is Pick.FIRST:
                picked = picked or rule
                stood.append((rule, None))
                continue

            # of rules worth the same the first wins
            worth = self._worth(rule)
            stood.append((rule, worth))
            if worth > best:
                picked, best = rule, worth

        if picked is not None:
            self.observer.picked(picked, stood)
        return picked

    def give(self, rule: Rule) -> None:
        """Grant the part of the rule's awards that its limits let through, and refuse the rest."""
        awards = [self._award(give.amount) for give in rule.gives]
        self.observer.weighed(rule, awards, self.facts, self.given)
        if not any(awards):
            return

        # refuse everything where a `times` is used up, else trim to each `max`
        uses = self._uses(rule, awards)
        self.observer.limited(rule, uses, self.facts)
        used_up = _is_used_up(rule, uses)
        gave = False
        for index, award in enumerate(awards):
            if award > INT64_MAX:
                self._refuse(rule, index, RefusalReason.OUT_OF_RANGE, award)
            elif award and used_up:
                self._refuse(rule, index, _reason(rule, TimesLimit, None, uses), award)
            elif award:
                gave = self._give_within(rule, index, award, uses) or gave

        # count the time, and the awards that rolling limits let through, once for all gives
        if gave:
            for scope in dict.fromkeys(limit.scope for limit in rule.limits if isinstance(limit, TimesLimit)):
                uses[scope].times += 1
        for use in uses.values():
            if isinstance(use, RollingUse):
                use.record()

    def _give_within(self, rule: Rule, index: int, award: int, uses: Uses) -> bool:
        """Grant the part of one award that the `max` limits allow, refuse the rest, and say if any is granted."""
        self.observer.cut(rule, index, uses, self.facts)
        allowed = _take(rule, rule.gives[index], uses, award)
        if allowed:
            self._grant(rule, index, allowed)
        if allowed < award:
            self._refuse(rule, index, _reason(rule, MaxLimit, rule.gives[index].unit, uses), award - allowed)
        return allowed > 0

    def _worth(self, rule: Rule) -> int:
        """Return the points that the rule would give after its own limits."""
        awards = [self._award(give.amount) for give in rule.gives]
        if not any(awards):
            return 0

        # copies of the uses: weighing counts nothing
        present = self._uses(rule, awards, is_weighed=True)
        uses: Uses = {scope: LimitUse(0, use.amount, use.times) for scope, use in present.items()}
        if _is_used_up(rule, uses):
            return 0

        worth = 0
        for give, award in zip(rule.gives, awards, strict=True):
            if award <= INT64_MAX:
                allowed = _take(rule, give, uses, award)
                worth += allowed if give.unit == "points" else 0
        return worth

    def _award(self, amount: Amount) -> int:
        return award_of(self.facts, amount, self.given)

    def _uses(self, rule: Rule, awards: list[int], *, is_weighed: bool = False) -> Uses:
        return {
            scope: self._budget_use(rule, scope, awards, is_weighed=is_weighed)
            if scope.is_shared
            else self._use(rule, scope)
            for scope in dict.fromkeys(limit.scope for limit in rule.limits)
        }

    def _budget_use(self, rule: Rule, scope: LimitScope, awards: list[int], *, is_weighed: bool) -> LimitUse:
        limit, asked = shared_limit(rule, scope), 1
        assert isinstance(scope.every, Every)  # no budget rolls
        if isinstance(limit, MaxLimit):
            asked = sum(award for give, award in zip(rule.gives, awards, strict=True) if give.unit == scope.unit)
        period = period_of(scope.every, self.event.occurred_at, self.calendar)
        return open_budget(self.occurrence, budget_of(rule, limit, is_weighed=is_weighed), period, asked)

    def _use(self, rule: Rule, scope: LimitScope) -> LimitUse | RollingUse | ForgottenUse:
        count, at_ms = limit_count(self.programme, rule.id, scope), self.event.occurred_at
        value = None if scope.by is None else self.facts.value_of(scope.by)

        if isinstance(scope.every, Duration):
            from_ms = self.calendar.before(at_ms, scope.every)
            if scope.by is not None:
                return count.rolling_value_use(self.state, value, at_ms, from_ms, self.occurrence)
            return count.rolling_use(self.state, at_ms, from_ms, self.occurrence)

        period = period_of(scope.every, at_ms, self.calendar)
        if scope.by is not None:
            return count.value_use(self.state, value, period, at_ms, self.occurrence)
        return count.use(self.state, period, at_ms, self.occurrence)

    def _grant(self, rule: Rule, index: int, amount: int) -> None:
        give, at_ms = rule.gives[index], self.event.occurred_at
        available_ms = at_ms if give.hold is None else self.calendar.after(at_ms, give.hold)
        until_ms = None if give.lasts is None else self.calendar.after(available_ms, give.lasts)
        if give.validity is not None:
            rounding = self.programme.terms.points.round_expiry
            until_ms = Expiry(self.calendar, give.validity, rounding)(available_ms)

        self.rewards.append(
            RewardEvent(
                posting=grant_posting(rule, give, self.version),
                amount=amount,
                reward_key=grant_key(self.occurrence.identity, rule.id, self.event.member_id, index),
                occurred_at_ms=at_ms,
                order_id=order_of(self.event),
                available_at_ms=available_ms,
                expires_at_ms=until_ms,
                give=index,
            )
        )

        # later multipliers and conditions see what was given
        if give.unit == "points":
            self.given[rule.phase] += amount
        if give.item is not None and give.hold is None:
            self.state.note_possession(give.unit, give.item, until_ms)

    def _refuse(self, rule: Rule, index: int, reason: RefusalReason, amount: int) -> None:
        posting = refusal_posting(rule, rule.gives[index], self.version, reason)
        self.rewards.append(refusal(posting, amount, self.event, self.occurrence, index))


def _maxima(rule: Rule, give: Give) -> list[MaxLimit]:
    return [limit for limit in rule.limits if isinstance(limit, MaxLimit) and limit.scope.unit == give.unit]


def _reason(rule: Rule, kind: type[Limit], unit: str | None, uses: Uses) -> RefusalReason:
    """Return why limits of one kind (and unit, unless it is None) refuse: a use is forgotten, or they are used up."""
    scopes = [limit.scope for limit in rule.limits if isinstance(limit, kind) and unit in (None, limit.scope.unit)]
    if any(is_forgotten(uses[scope]) for scope in scopes):
        return RefusalReason.LIMIT_FORGOTTEN
    return RefusalReason.LIMIT_TIMES if kind is TimesLimit else RefusalReason.LIMIT_MAX


def _is_used_up(rule: Rule, uses: Uses) -> bool:
    return any(uses[limit.scope].times >= limit.times for limit in rule.limits if isinstance(limit, TimesLimit))


def _take(rule: Rule, give: Give, uses: Uses, award: int) -> int:
    """Return how much of `award` the rule's `max` limits let through, each in turn, and count that in them."""
    allowed = award
    for limit in _maxima(rule, give):
        left = max(limit.amount - uses[limit.scope].amount, 0)
        if allowed > left:
            allowed = left if limit.over is Over.TRIM else 0
    for scope in dict.fromkeys(limit.scope for limit in _maxima(rule, give)):
        uses[scope].amount += allowed
    return allowed
