"""Explain a rule's awards: how each was computed, and why its challenge, group or limits kept it from giving."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.explain.conditions import Finding, described
from engine.explain.values import day, decimal, duration, percent, quoted
from engine.programme.conditions import ALWAYS, Difference, Duration, Every, Kind, Lines
from engine.programme.interpret.facts import MONDAY_OF_DAY_ZERO, period_of
from engine.programme.model import (
    FixedAmount,
    MaxLimit,
    MultipliedAmount,
    Over,
    Pick,
    RatedAmount,
    Rounding,
    TimesLimit,
)
from engine.programme.rules.awards import rounded
from engine.programme.rules.counting import count_of
from engine.programme.rules.limits import is_forgotten
from engine.programme.rules.metrics import window_sum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.explain.values import Wording
    from engine.member.state import MemberState
    from engine.programme.conditions import Field
    from engine.programme.interpret.facts import Facts
    from engine.programme.interpret.observer import Uses
    from engine.programme.localtime import Calendar
    from engine.programme.model import Challenge, Give, Limit, LimitScope, Phase, Rule

_ROUNDED = {Rounding.FLOOR: "floor", Rounding.HALF_UP: "half_up", Rounding.CEIL: "ceil"}


def computation(give: Give, facts: Facts, given: Mapping[Phase, int], wording: Wording) -> str | None:
    """Return how an award was computed, None for a fixed one."""
    amount = give.amount
    if isinstance(amount, FixedAmount):
        return None
    if isinstance(amount, MultipliedAmount):
        return _multiplied(amount, facts, given, wording)
    basis = facts.value_of(amount.basis)
    if basis is None:
        return f"{amount.basis.path} is missing"

    # the rate, then the caps that lowered it
    words = f"{_ROUNDED[amount.rounding]} of {_rate(amount, basis, wording, share=give.unit == wording.currency)}"
    raw = rounded(max(basis, 0) * amount.numerator, amount.denominator, amount.rounding)
    if amount.most is not None and raw > amount.most:
        words += f", at most {wording.money(amount.most)}"
    if amount.share is not None and raw > rounded(max(basis, 0) * amount.share[0], amount.share[1], Rounding.FLOOR):
        words += f", at most {percent(*amount.share)} of it"
    return words


def nothing(rule: Rule, facts: Facts, given: Mapping[Phase, int], wording: Wording) -> Finding:
    """Return why all awards of a rule are 0, and how much more would have brought 1."""
    amount = rule.gives[0].amount
    words = computation(rule.gives[0], facts, given, wording) or "0"
    says = words if words.endswith("is missing") else f"it comes to 0: {words}"
    if not isinstance(amount, RatedAmount):
        return Finding(says)
    basis = facts.value_of(amount.basis)
    if basis is None:
        return Finding(says, amount.basis.path, "any value", wording.value(amount.basis.kind, None))

    # how much more would have been enough, unless a cap of 0 lets nothing through
    least = _least_basis(amount)
    actual, wanted = wording.number(amount.basis.kind, basis), f"at least {wording.number(amount.basis.kind, least)}"
    if basis >= least or amount.most == 0 or amount.share == (0, 1):
        return Finding(says, amount.basis.path, None, actual)
    missing = f"{wording.number(amount.basis.kind, least - basis)} more"
    return Finding(f"{says}; {missing} would have been enough for that", amount.basis.path, wanted, actual, missing)


def lost_group(rule: Rule, winner: Rule, stood: Sequence[tuple[Rule, int | None]]) -> Finding:
    """Return why the group of a rule picked another one."""
    assert rule.group is not None  # it is a group's
    name = quoted(rule.group.id)
    if rule.group.pick is Pick.FIRST:
        says = f"its group {name} lets the first give, which is {winner.id}"
        return Finding(says, wanted=f"the first of group {name}", actual=f"{winner.id} comes before it")

    worths = {each.id: worth for each, worth in stood}
    actual = f"{worths[rule.id]} points, and {winner.id} {worths[winner.id]}"
    tie = ", and comes first" if worths[winner.id] == worths[rule.id] else ""
    says = (
        f"its group {name} lets the best give: {winner.id} is worth {worths[winner.id]} points and this rule "
        f"{worths[rule.id]}{tie}"
    )
    return Finding(says, wanted=f"the most points of group {name}", actual=actual)


def unfinished(rule: Rule, challenge: Challenge, facts: Facts, wording: Wording) -> Finding:
    """Return how much of a challenge is reached that an event counted for and did not complete."""
    value = 1 if challenge.of is None else facts.value_of(challenge.of)
    field = None if challenge.of is None else challenge.of.path
    stands = progress(rule.id, challenge, facts.state, facts.calendar, facts.at_ms)
    if stands.completions and not challenge.repeats:
        return Finding("its challenge was completed before and does not repeat", field)

    # what is reached, of what, and how much is missing
    kind = _kind_of(challenge)
    wanted, actual = goal_words(challenge, wording), wording.number(kind, stands.reached)
    missing = f"{wording.number(kind, stands.missing)} more" if stands.missing else None

    says = f"its challenge stands at {actual} of {wanted}"
    if value is None or value <= 0:
        says += f", and {field} is {wording.value(kind, value)}, which adds nothing"
    return Finding(says, field, wanted, actual, missing)


class Progress(NamedTuple):
    """Hold how far a member has come in a challenge, in the integer unit of what it counts."""

    reached: int
    missing: int
    completions: int
    """Completions that were not undone."""


def progress(rule_id: str, challenge: Challenge, state: MemberState, calendar: Calendar, at_ms: int) -> Progress:
    """Return how far a member has come in the challenge of a rule at an instant."""
    key = challenge.key(rule_id)
    reached, completions = count_of(state, key)
    if challenge.within is not None:
        reached = window_sum(state, key, calendar.before(at_ms, challenge.within), at_ms)
    return Progress(reached, max(challenge.goal - reached, 0), completions)


def goal_words(challenge: Challenge, wording: Wording) -> str:
    """Return the goal of a challenge in words: 3 events within 7d, 100.00 of purchase.amount."""
    goal = wording.number(_kind_of(challenge), challenge.goal)
    goal += " events" if challenge.of is None else f" of {challenge.of.path}"
    return goal + ("" if challenge.within is None else f" within {duration(challenge.within)}")


def _kind_of(challenge: Challenge) -> Kind:
    return Kind.INTEGER if challenge.of is None else challenge.of.kind


def used_up(rule: Rule, uses: Uses, facts: Facts, wording: Wording) -> Finding | None:
    """Return which limit on the number of times is used up, if any; a limit whose use is forgotten goes first."""
    timed = [limit for limit in rule.limits if isinstance(limit, TimesLimit)]
    if (forgotten := _forgotten(timed, uses, facts, wording)) is not None:
        return forgotten

    for limit in rule.limits:
        if isinstance(limit, TimesLimit) and (times := uses[limit.scope].times) >= limit.times:
            wanted = f"at most {limit_words(limit, wording)}"
            actual = f"{_times(times)} {_period(limit.scope, facts, wording)}"
            if limit.scope.is_shared:
                return _budget_finding(rule, limit, "is used up", wanted=wanted, actual=actual, wording=wording)
            return Finding(f"it gives {wanted} and had given {actual}", "limits", wanted, actual)
    return None


def cut_off(rule: Rule, index: int, award: int, uses: Uses, facts: Facts, wording: Wording) -> Finding | None:
    """Return which limit leaves the least of an award; None where all leave the whole award."""
    give = rule.gives[index]
    maxima = [limit for limit in rule.limits if isinstance(limit, MaxLimit) and limit.scope.unit == give.unit]
    if (forgotten := _forgotten(maxima, uses, facts, wording)) is not None:
        return forgotten

    tightest: tuple[int, MaxLimit] | None = None
    for limit in maxima:
        left = max(limit.amount - uses[limit.scope].amount, 0)
        lets = award if award <= left else left if limit.over is Over.TRIM else 0
        if lets < award and (tightest is None or lets < tightest[0]):
            tightest = lets, limit
    if tightest is None:
        return None

    # what it allows, and what was used of it
    _, limit = tightest
    wanted = f"at most {limit_words(limit, wording)}"
    used = wording.reward(give.unit, uses[limit.scope].amount, give.item)
    actual = f"{used} {_period(limit.scope, facts, wording)}"
    whole = "" if limit.over is Over.TRIM else ", and refuses what does not fit"
    if limit.scope.is_shared:
        left = max(limit.amount - uses[limit.scope].amount, 0)
        state = f"had {wording.reward(give.unit, left, give.item)} left" if left else "is used up"
        return _budget_finding(rule, limit, state + whole, wanted=wanted, actual=actual, wording=wording)
    return Finding(f"it gives {wanted} and had given {actual}{whole}", "limits", wanted, actual)


def _forgotten(limits: Sequence[Limit], uses: Uses, facts: Facts, wording: Wording) -> Finding | None:
    """Return which of some limits counts in a period whose use is forgotten, if any does."""
    limit = next((limit for limit in limits if is_forgotten(uses[limit.scope])), None)
    if limit is None:
        return None

    wanted = f"at most {limit_words(limit, wording)}"
    when = _period(limit.scope, facts, wording)
    clock, window = wording.instant(facts.state.clock_ms), duration(wording.refund_window)
    says = (
        f"it gives {wanted}, and what it had given {when} is no longer known: that is kept for {window} "
        f"(refunds.window) after the period, and the member's clock stood at {clock}"
    )
    return Finding(says, "limits", wanted, f"no longer known {when}")


def _budget_finding(rule: Rule, limit: Limit, state: str, *, wanted: str, actual: str, wording: Wording) -> Finding:
    """Return the finding on a budget that all members share: its owner, its size, and its `state` in words."""
    whose = f"rule {rule.id}" if rule.campaign is None else f"campaign {quoted(rule.campaign)}"
    says = f"the budget of {whose}, {limit_words(limit, wording)} for all members, {state}: {actual}"
    return Finding(says, "limits", f"{wanted} for all members", actual)


def limit_words(limit: Limit, wording: Wording) -> str:
    """Return a limit in words: 2 times a day, 500 points a month for each purchase.channel."""
    if isinstance(limit, TimesLimit):
        what = _times(limit.times)
    elif limit.scope.unit in ("points", "status", wording.currency):
        what = wording.reward(limit.scope.unit, limit.amount, None)
    else:
        what = f"{limit.amount} {limit.scope.unit}{'' if limit.amount == 1 else 's'}"

    every = limit.scope.every
    if isinstance(every, Duration):
        what += f" in {duration(every)}"
    elif every is Every.LIFETIME:
        what += " in a lifetime"
    else:
        what += f" a {every}"
    return what + ("" if limit.scope.by is None else f" for each {limit.scope.by.path}")


def _period(scope: LimitScope, facts: Facts, wording: Wording) -> str:
    """Return the period of a limit in which the event is, by its first day."""
    every = scope.every
    of = "" if scope.by is None else f" for {wording.value(scope.by.kind, facts.value_of(scope.by))}"
    if isinstance(every, Duration):
        return f"since {wording.instant(facts.calendar.before(facts.at_ms, every))}{of}"
    if every is Every.LIFETIME:
        return f"so far{of}"

    period = period_of(every, facts.at_ms, facts.calendar)
    if every is Every.DAY:
        return f"on {day(period)}{of}"
    if every is Every.WEEK:
        return f"in the week of {day(period * 7 - MONDAY_OF_DAY_ZERO)}{of}"
    if every is Every.QUARTER:
        return f"in {period // 4}-Q{period % 4 + 1}{of}"
    return f"in {period if every is Every.YEAR else f'{period // 12}-{period % 12 + 1:02}'}{of}"


def _times(count: int) -> str:
    return "1 time" if count == 1 else f"{count} times"


def _rate(amount: RatedAmount, basis: int, wording: Wording, *, share: bool) -> str:
    """Return the fraction that is rounded, as rate and basis; with `share` as a percentage."""
    kind, words = amount.basis.kind, _basis(amount.basis, basis, wording)
    if share:
        return f"{percent(amount.numerator, amount.denominator)} of {words}"

    # the shortest way to write the rate
    per = wording.number(kind, amount.denominator)
    if amount.numerator == 1 and amount.denominator > wording.unit(kind):
        return f"{words} / {per}"
    rate = decimal(amount.numerator * wording.unit(kind), amount.denominator)
    if "/" in rate:
        return f"{amount.numerator} * {words} / {per}"
    return words if rate == "1" else f"{rate} * {words}"


def _basis(field: Field, basis: int, wording: Wording) -> str:
    """Return a basis with its value, the lines that it is of, and the fields that it adds up."""
    words = f"{field.path} {wording.number(field.kind, basis)}"
    if isinstance(field.source, Lines) and field.source.where != ALWAYS:
        words += f" of lines where {described(field.source.where, wording)}"
    if isinstance(field.source, Difference):
        first, *others = field.source.terms
        terms = "".join(f" {'+' if sign > 0 else '-'} {term.path}" for sign, term in others)
        words += f" [{'-' if first[0] < 0 else ''}{first[1].path}{terms}]"
    return words


def _least_basis(amount: RatedAmount) -> int:
    """Return the smallest basis that brings an award of 1."""
    parts = {Rounding.FLOOR: (1, 1), Rounding.HALF_UP: (1, 2), Rounding.CEIL: (0, 1)}[amount.rounding]
    least = -(-amount.denominator * parts[0] // (amount.numerator * parts[1]))
    if amount.share is not None and amount.share[0]:
        least = max(least, -(-amount.share[1] // amount.share[0]))
    return max(least, 1)


def _multiplied(amount: MultipliedAmount, facts: Facts, given: Mapping[Phase, int], wording: Wording) -> str:
    base, extra, because = given[amount.phase], amount.extra, ""
    if amount.key is not None:
        value = facts.value_of(amount.key)
        extra = dict(amount.extras).get(value)
        words = f"{amount.key.path} is {wording.value(amount.key.kind, value)}"
        if extra is None:
            return f"{words}, for which there is no factor"
        because = f", as {words}"
    assert extra is not None  # without a key there is a factor
    points = wording.reward("points", base, None)
    return f"{_ROUNDED[amount.rounding]} of {points} of phase {amount.phase} * {decimal(*extra)}{because}"
