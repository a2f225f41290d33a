"""Turn rules into statements: condition, awards, limits, grants, in the order in which `interpret` takes them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from engine.programme import syntax
from engine.programme.awards import grant_posting, refusal_posting
from engine.programme.compile_fields import FieldReader
from engine.programme.compile_when import condition_expression
from engine.programme.conditions import may_be_negative
from engine.programme.model import (
    KEPT_PERIODS,
    FixedAmount,
    LimitScope,
    MaxLimit,
    Over,
    RefusalReason,
    Rounding,
    TimesLimit,
)
from engine.programme.syntax import arithmetic, assign, attribute, call, compare, constant, name, run, when
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from engine.programme.localtime import Calendar
    from engine.programme.model import Amount, Give, RatedAmount, Rule
    from schemas.events import Event
    from schemas.rewards import Posting


class RuleCompiler:
    """Compile the rules of one programme version into a module whose globals are `names`."""

    def __init__(self, version: int, calendar: Calendar, names: dict[str, Any]) -> None:
        self._version = version
        self._calendar = calendar
        self._names = names
        self._fields = FieldReader(calendar, names)
        self._kind_fields: tuple[str, ...] = ()
        self._scopes: set[LimitScope] = set()

    def begin(self, kind: type[Event]) -> None:
        """Begin the function of one event type."""
        self._fields = FieldReader(self._calendar, self._names)
        self._kind_fields = kind.__struct_fields__
        self._scopes = set()

    def preamble(self) -> list[ast.stmt]:
        """Read once what the rules compiled since `begin` need of the event and the member."""
        event, occurrence = name("event"), name("occurrence")
        order = attribute(event, "order_id") if "order_id" in self._kind_fields else constant(None)
        statements = [
            assign("rewards", ast.List([], ast.Load())),
            assign("at_ms", attribute(event, "occurred_at")),
            assign("member", call(attribute(attribute(event, "member_id"), "encode"))),
            assign("identity", attribute(occurrence, "identity")),
            assign("order", order),
        ]
        if self._scopes:
            self._fields.local_day()
            statements.append(assign("limits", attribute(name("state"), "limits")))
        return [*statements, *self._fields.statements()]

    def statements(self, rule: Rule) -> list[ast.stmt]:
        """Judge one rule."""
        body = self._awards(rule)
        condition = condition_expression(rule.when, self._fields.local, self._fields.constant)
        return body if condition is None else [when(condition, body)]

    def _global(self, kind: str, value: object) -> ast.Name:
        """Put a value into the module's globals and return the name that reads it."""
        identifier = f"{kind}_{len(self._names)}"
        self._names[identifier] = value
        return name(identifier)

    def _awards(self, rule: Rule) -> list[ast.stmt]:
        """Compute what the gives come to; where one comes to something, pass it through the limits and grant it."""
        statements = [assign(f"award_{index}", self._amount(give.amount)) for index, give in enumerate(rule.gives)]
        if rule.limits:
            granting = self._limited(rule)
        else:
            granting = [s for index, give in enumerate(rule.gives) for s in self._give(rule, index, give)]
        if any(isinstance(give.amount, FixedAmount) for give in rule.gives):
            return statements + granting
        anything = syntax.either([name(f"award_{index}") for index in range(len(rule.gives))])
        return [*statements, when(anything, granting)]

    def _amount(self, amount: Amount) -> ast.expr:
        if isinstance(amount, FixedAmount):
            return constant(amount.amount)
        basis = self._fields.local(amount.basis)
        rated = _rated(basis, amount)
        nothing = [compare(basis, "is", constant(None))] if amount.basis.optional else []
        if may_be_negative(amount.basis):
            nothing.append(compare(basis, "<", constant(0)))
        return syntax.choose(syntax.either(nothing), constant(0), rated) if nothing else rated

    def _limited(self, rule: Rule) -> list[ast.stmt]:
        """Refuse everything where a `times` is used up, else trim to each `max` in turn and count what was given."""
        scopes = list(dict.fromkeys(limit.scope for limit in rule.limits))
        self._scopes.update(scopes)
        uses = {scope: f"use_{index}" for index, scope in enumerate(scopes)}
        statements = [s for scope, local in uses.items() for s in self._open(rule, scope, local)]
        granting: list[ast.stmt] = [assign("given", constant(0))]
        for index, give in enumerate(rule.gives):
            granting += self._give(rule, index, give, uses)
        times = [limit for limit in rule.limits if isinstance(limit, TimesLimit)]
        if not times:
            return statements + granting
        counted = [
            syntax.increase(name(uses[scope]), "times", constant(1)) for scope in dict.fromkeys(t.scope for t in times)
        ]
        granting.append(when(name("given"), list(counted)))
        used_up = syntax.either(
            [compare(attribute(name(uses[t.scope]), "times"), ">=", constant(t.times)) for t in times]
        )
        refusing = [s for index, give in enumerate(rule.gives) for s in self._used_up(rule, index, give)]
        return [*statements, when(used_up, refusing, granting)]

    def _open(self, rule: Rule, scope: LimitScope, local: str) -> list[ast.stmt]:
        """Find the rule's use in the event's period; the dictionary alone answers for most events."""
        key = constant(scope.key(rule.id))
        period = name(f"period_{scope.every}")
        found = call(attribute(name("limits"), "get"), key)
        stale = syntax.either(
            [compare(name(local), "is", constant(None)), compare(attribute(name(local), "period"), "!=", period)]
        )
        opened = call(name("use_in"), name("limits"), key, period, constant(KEPT_PERIODS[scope.every]))
        return [assign(local, found), when(stale, [assign(local, opened)])]

    def _used_up(self, rule: Rule, index: int, give: Give) -> list[ast.stmt]:
        award = name(f"award_{index}")
        refused = self._refuse(rule, index, give, RefusalReason.LIMIT_TIMES, award)
        return self._ranged(rule, index, give, [refused])

    def _give(self, rule: Rule, index: int, give: Give, uses: dict[LimitScope, str] | None = None) -> list[ast.stmt]:
        """Grant what is left of one award after the rule's `max` limits, and refuse what they cut off."""
        award = name(f"award_{index}")
        if uses is None:
            return self._ranged(rule, index, give, [self._grant(rule, index, give, award)])
        maxima = [limit for limit in rule.limits if isinstance(limit, MaxLimit)]
        body: list[ast.stmt] = [assign("allowed", award)]
        for limit in maxima:
            body += _fit(limit, uses[limit.scope])
        allowed = name("allowed")
        granting = [self._grant(rule, index, give, allowed), assign("given", constant(1))]
        scopes = dict.fromkeys(limit.scope for limit in maxima)
        granting += [syntax.increase(name(uses[scope]), "amount", allowed) for scope in scopes]
        if maxima:
            body.append(when(allowed, granting))
            cut_off = arithmetic(award, "-", allowed)
            refused = self._refuse(rule, index, give, RefusalReason.LIMIT_MAX, cut_off)
            body.append(when(compare(allowed, "<", award), [refused]))
        else:
            body += granting
        return self._ranged(rule, index, give, body)

    def _ranged(self, rule: Rule, index: int, give: Give, body: list[ast.stmt]) -> list[ast.stmt]:
        """Run `body` for an award within 64 bits; refuse a larger one and pass over an award of 0."""
        amount = give.amount
        if isinstance(amount, FixedAmount):
            return body
        award = name(f"award_{index}")
        if amount.numerator > amount.denominator:
            refused = self._refuse(rule, index, give, RefusalReason.OUT_OF_RANGE, award)
            body = [when(compare(award, "<=", constant(INT64_MAX)), body, [refused])]
        return [when(award, body)] if len(rule.gives) > 1 else body

    def _grant(self, rule: Rule, index: int, give: Give, amount: ast.expr) -> ast.stmt:
        posting = self._global("posting", grant_posting(rule, give, self._version))
        head, tail = constant(b"\0grant\0%b\0" % rule.id.encode()), constant(b"\0%d" % index)
        hashed = arithmetic(arithmetic(arithmetic(name("identity"), "+", head), "+", name("member")), "+", tail)
        key = call(attribute(call(name("sha256"), hashed), "digest"))
        at, nothing = name("at_ms"), constant(None)
        reward = call(name("RewardEvent"), posting, amount, key, at, name("order"), nothing, at)
        return run(call(attribute(name("rewards"), "append"), reward))

    def _refuse(self, rule: Rule, index: int, give: Give, reason: RefusalReason, amount: ast.expr) -> ast.stmt:
        posting: Posting = refusal_posting(rule, give, self._version, reason)
        arguments = (self._global("posting", posting), amount, name("event"), name("occurrence"), constant(index))
        return run(call(attribute(name("rewards"), "append"), call(name("refusal"), *arguments)))


def _rated(basis: ast.expr, amount: RatedAmount) -> ast.expr:
    """Multiply and divide once; `awards.rounded` is the reference."""
    numerator, denominator = amount.numerator, amount.denominator
    added = 0
    if amount.rounding is Rounding.CEIL:
        added = denominator - 1
    elif amount.rounding is Rounding.HALF_UP:
        numerator, added, denominator = 2 * numerator, denominator, 2 * denominator
    product = basis if numerator == 1 else arithmetic(basis, "*", constant(numerator))
    total = product if added == 0 else arithmetic(product, "+", constant(added))
    return total if denominator == 1 else arithmetic(total, "//", constant(denominator))


def _fit(limit: MaxLimit, use: str) -> list[ast.stmt]:
    """Lower `allowed` to what the limit has left: to nothing where it refuses awards that do not fit."""
    left, allowed = name("left"), name("allowed")
    fitting: ast.expr = constant(0)
    if limit.over is Over.TRIM:
        fitting = syntax.choose(compare(left, ">", constant(0)), left, constant(0))
    remaining = arithmetic(constant(limit.amount), "-", attribute(name(use), "amount"))
    return [assign("left", remaining), when(compare(allowed, ">", left), [assign("allowed", fitting)])]
