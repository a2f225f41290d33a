"""Compile what a rule gives: awards, limits and grants, in the order in which `interpret` goes through them.

Of one point a dollar, at most 500 a day ::

    give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]
    limits: [{max: 500, per: member, every: day}]

this makes ::

    award_0 = field_0 // 100
    if award_0:
        use_0 = limits.get('member:day:point-a-dollar')
        if use_0 is None or use_0.period != period_day or is_late:
            use_0 = value_36.use(state, period_day, at_ms, occurrence)
        given = 0
        allowed = award_0
        left = 500 - use_0.amount
        if allowed > left:
            allowed = left if left > 0 else 0
        if allowed:
            rewards.append(RewardEvent(...))
            given = 1
            use_0.amount += allowed
        if allowed < award_0:
            rewards.append(refusal(...))

`award_N` is the amount of the Nth give before limits, `use_N` the use of the Nth limit's scope, `allowed` the rest of
an award after limits. `given` becomes 1 with a grant; then the event counts as one time for `times`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.compile import syntax
from engine.programme.compile.syntax import (
    arithmetic,
    assign,
    attribute,
    call,
    choose,
    compare,
    constant,
    either,
    increase,
    increase_name,
    name,
    run,
    when,
)
from engine.programme.conditions import Attribute, Duration, Every, may_be_negative
from engine.programme.model import (
    FixedAmount,
    LimitScope,
    MaxLimit,
    MultipliedAmount,
    Over,
    Phase,
    RatedAmount,
    RefusalReason,
    Rounding,
    TimesLimit,
)
from engine.programme.rules.awards import grant_posting, refusal_posting
from engine.programme.rules.budgets import budget_of, shared_limit
from engine.programme.rules.cohorts import control_key
from engine.programme.rules.limits import limit_count
from schemas.events import INT64_MAX
from schemas.rewards import POSSESSED_UNITS

if TYPE_CHECKING:
    import ast

    from engine.programme.compile.fields import FieldReader
    from engine.programme.model import Amount, Give, Programme, Rule
    from schemas.rewards import Posting


class GiveCompiler:
    """Compile the gives of rules on one event type; `multiplied` are the phases whose points a multiplier needs."""

    def __init__(self, programme: Programme, version: int, fields: FieldReader, multiplied: frozenset[Phase]) -> None:
        self._programme = programme
        self._version = version
        self._fields = fields
        self._multiplied = multiplied
        self.needs_limits = False
        """Whether the compiled gives read the variables `limits` and `is_late`."""

    def compile_gives(self, rule: Rule) -> list[ast.stmt]:
        """Compute the awards; where one is above 0, pass them through the limits and grant what is left."""
        if rule.limits:
            statements = self._limited(rule)
        else:
            statements = [s for index, give in enumerate(rule.gives) for s in self._one_give(rule, index, give, {})]
        return self._awarded(rule, statements)

    def worth(self, rule: Rule) -> list[ast.stmt]:
        """Set `worth` to the points that the rule would give after its limits; count nothing in them.

        `taken_N` is how much earlier gives of the rule would have used of the Nth scope.
        """
        uses, opening = self._opened(rule, is_weighed=True)
        taken = {scope: f"taken_{index}" for index, scope in enumerate(uses)}
        body: list[ast.stmt] = [assign(local, constant(0)) for local in taken.values()]
        for index, give in enumerate(rule.gives):
            award = name(f"award_{index}")
            maxima = _maxima(rule, give)

            # trim the award to each limit, then use the limits up by it
            trying: list[ast.stmt] = [assign("allowed", award)]
            for limit in maxima:
                trying += _fit(limit, uses[limit.scope], name(taken[limit.scope]))
            for scope in dict.fromkeys(limit.scope for limit in maxima):
                trying.append(increase_name(taken[scope], name("allowed")))
            if give.unit == "points":
                trying.append(increase_name("worth", name("allowed")))
            body.append(when(compare(award, "<=", constant(INT64_MAX)), trying))

        used_up = _used_up(rule, uses)
        weighing = body if used_up is None else [when(syntax.negated(used_up), body)]
        return [assign("worth", constant(0)), *self._awarded(rule, [*opening, *weighing])]

    def control(self, rule: Rule) -> list[ast.stmt]:
        """Record the first event of a control member as refused."""
        give = rule.gives[0]
        is_new = call(name("begins"), name("state"), constant(control_key(rule.id)))
        return [when(is_new, [self._refuse(rule, 0, give, RefusalReason.COHORT_CONTROL, self._amount(give.amount))])]

    def _awarded(self, rule: Rule, then: list[ast.stmt]) -> list[ast.stmt]:
        """Set `award_N` for each give, and go on where one of them is not 0; a fixed amount never is."""
        statements = [assign(f"award_{index}", self._amount(give.amount)) for index, give in enumerate(rule.gives)]
        if any(isinstance(give.amount, FixedAmount) for give in rule.gives):
            return statements + then
        any_award = either([name(f"award_{index}") for index in range(len(rule.gives))])
        return [*statements, when(any_award, then)]

    def _amount(self, amount: Amount) -> ast.expr:
        """Return the expression of an award before limits; `awards.award_of` is the reference."""
        if isinstance(amount, FixedAmount):
            return constant(amount.amount)
        if isinstance(amount, MultipliedAmount):
            return self._multiplied_amount(amount)

        # the rate, then its caps
        basis = self._fields.local(amount.basis)
        rated = _rated(basis, amount.numerator, amount.denominator, amount.rounding)
        if amount.most is not None:
            rated = call(name("min"), rated, constant(amount.most))
        if amount.share is not None:
            rated = call(name("min"), rated, _rated(basis, *amount.share, Rounding.FLOOR))

        # a missing or negative basis gives nothing
        nothing = [compare(basis, "is", constant(None))] if amount.basis.optional else []
        if may_be_negative(amount.basis):
            nothing.append(compare(basis, "<", constant(0)))
        return choose(either(nothing), constant(0), rated) if nothing else rated

    def _multiplied_amount(self, amount: MultipliedAmount) -> ast.expr:
        """Return the expression of the points that a multiplier adds to those of an earlier phase."""
        base = name(f"given_{amount.phase}")
        if amount.key is None:
            assert amount.extra is not None  # without a key there is one factor
            return _rated(base, *amount.extra, amount.rounding)
        table = self._fields.constant(dict(amount.extras))
        extra = call(attribute(table, "get"), self._fields.local(amount.key))
        return call(name("multiplied"), base, extra, self._fields.constant(amount.rounding))

    def _opened(self, rule: Rule, *, is_weighed: bool = False) -> tuple[dict[LimitScope, str], list[ast.stmt]]:
        """Return the variable of each scope that the rule's limits count in, and the statements that set them."""
        scopes = dict.fromkeys(limit.scope for limit in rule.limits)
        uses = {scope: f"use_{index}" for index, scope in enumerate(scopes)}
        opening: list[ast.stmt] = []
        for scope, local in uses.items():
            if scope.is_shared:
                opening.append(self._open_budget(rule, scope, local, is_weighed=is_weighed))
            else:
                opening += self._open(rule, scope, local)
        return uses, opening

    def _limited(self, rule: Rule) -> list[ast.stmt]:
        """Refuse everything where a `times` is used up, else trim to each `max` in turn and count what was given."""
        uses, opening = self._opened(rule)
        grants: list[ast.stmt] = [assign("given", constant(0))]
        for index, give in enumerate(rule.gives):
            grants += self._one_give(rule, index, give, uses)

        # count once for the event, whatever the number of gives
        counted: list[ast.stmt] = [
            increase(name(uses[scope]), "times", constant(1))
            for scope in dict.fromkeys(limit.scope for limit in rule.limits if isinstance(limit, TimesLimit))
        ]
        if counted:
            grants.append(when(name("given"), counted))
        rolling = [local for scope, local in uses.items() if isinstance(scope.every, Duration)]
        grants += [run(call(attribute(name(local), "record"))) for local in rolling]

        used_up = _used_up(rule, uses)
        if used_up is None:
            return opening + grants
        refusing = [s for index, give in enumerate(rule.gives) for s in self._refused_whole(rule, index, give, uses)]
        return [*opening, when(used_up, refusing, grants)]

    def _open(self, rule: Rule, scope: LimitScope, local: str) -> list[ast.stmt]:
        """Set `local` to the member's use of a scope in the event's period.

        For most events one look into the dictionary `limits` is enough.
        """
        count = self._fields.constant(limit_count(self._programme, rule.id, scope))
        is_rolling = isinstance(scope.every, Duration)
        kind = f"{'rolling_' if is_rolling else ''}{'value_' if scope.by is not None else ''}use"
        value = [] if scope.by is None else [self._fields.local(scope.by)]
        if isinstance(scope.every, Duration):
            where = [name("at_ms"), self._fields.window_start(scope.every)]
        else:
            where = [self._fields.period(scope.every), name("at_ms")]
        opening = assign(local, call(attribute(count, kind), name("state"), *value, *where, name("occurrence")))
        if is_rolling or scope.by is not None:
            return [opening]

        # look into the dictionary first; the first event of a period, and a late one, call the count
        self.needs_limits = True
        running = call(attribute(name("limits"), "get"), constant(scope.key(rule.id)))
        is_another = [
            compare(name(local), "is", constant(None)),
            compare(attribute(name(local), "period"), "!=", where[0]),
            *([] if scope.every is Every.LIFETIME else [name("is_late")]),
        ]
        return [assign(local, running), when(either(is_another), [opening])]

    def _open_budget(self, rule: Rule, scope: LimitScope, local: str, *, is_weighed: bool) -> ast.stmt:
        """Set `local` to all members' use of a budget, and say how much the rule asks for."""
        assert isinstance(scope.every, Every)  # no budget rolls
        limit = shared_limit(rule, scope)
        asked: ast.expr = constant(1)
        if isinstance(limit, MaxLimit):
            asked = constant(0)
            for index, give in enumerate(rule.gives):
                if give.unit == scope.unit:
                    asked = arithmetic(asked, "+", name(f"award_{index}"))

        budget = self._fields.constant(budget_of(rule, limit, is_weighed=is_weighed))
        period = self._fields.period(scope.every)
        return assign(local, call(name("open_budget"), name("occurrence"), budget, period, asked))

    def _refused_whole(self, rule: Rule, index: int, give: Give, uses: dict[LimitScope, str]) -> list[ast.stmt]:
        """Refuse one give whole, as a `times` is used up."""
        award = name(f"award_{index}")
        scopes = [limit.scope for limit in rule.limits if isinstance(limit, TimesLimit)]
        refused = self._refuse(rule, index, give, RefusalReason.LIMIT_TIMES, award)
        return self._ranged(rule, index, give, self._refuse_forgotten(rule, index, scopes, uses, refused))

    def _refuse_forgotten(
        self, rule: Rule, index: int, scopes: list[LimitScope], uses: dict[LimitScope, str], otherwise: ast.stmt
    ) -> list[ast.stmt]:
        """Refuse an award whole if the use of one of `scopes` is forgotten (dropped `refunds.window` after its period).

        Else run `otherwise`. Budgets and uses counted for life are never forgotten.
        """
        ending = [scope for scope in dict.fromkeys(scopes) if not scope.is_shared and scope.every is not Every.LIFETIME]
        if not ending:
            return [otherwise]

        gone = either([call(name("is_forgotten"), name(uses[scope])) for scope in ending])
        award = name(f"award_{index}")
        refused = self._refuse(rule, index, rule.gives[index], RefusalReason.LIMIT_FORGOTTEN, award)
        return [when(gone, [refused], [otherwise])]

    def _one_give(self, rule: Rule, index: int, give: Give, uses: dict[LimitScope, str]) -> list[ast.stmt]:
        """Grant the part of one award that the rule's `max` limits allow, and refuse the rest."""
        award = name(f"award_{index}")
        maxima = _maxima(rule, give)
        note_given = [assign("given", constant(1))] if uses else []
        if not maxima:
            return self._ranged(rule, index, give, [*self._append_grant(rule, index, give, award), *note_given])

        # trim to each limit in turn
        body: list[ast.stmt] = [assign("allowed", award)]
        for limit in maxima:
            body += _fit(limit, uses[limit.scope])

        # grant what is left, and count it in each scope once
        allowed = name("allowed")
        grant = [*self._append_grant(rule, index, give, allowed), *note_given]
        grant += [
            increase(name(uses[scope]), "amount", allowed) for scope in dict.fromkeys(limit.scope for limit in maxima)
        ]

        # refuse what was cut off
        cut_off = arithmetic(award, "-", allowed)
        refused = self._refuse(rule, index, give, RefusalReason.LIMIT_MAX, cut_off)
        refusing = self._refuse_forgotten(rule, index, [limit.scope for limit in maxima], uses, refused)
        body += [when(allowed, grant), when(compare(allowed, "<", award), refusing)]
        return self._ranged(rule, index, give, body)

    def _ranged(self, rule: Rule, index: int, give: Give, body: list[ast.stmt]) -> list[ast.stmt]:
        """Run `body` for an award within 64 bits; refuse a larger one, skip an award of 0."""
        if isinstance(give.amount, FixedAmount):
            return body
        award = name(f"award_{index}")
        if not _is_in_range(give.amount):
            refused = self._refuse(rule, index, give, RefusalReason.OUT_OF_RANGE, award)
            body = [when(compare(award, "<=", constant(INT64_MAX)), body, [refused])]

        # with one give, `_awarded` has skipped 0 already
        return [when(award, body)] if len(rule.gives) > 1 else body

    def _append_grant(self, rule: Rule, index: int, give: Give, amount: ast.expr) -> list[ast.stmt]:
        """Append the grant to the rewards; add it to the sum that later rules read."""
        posting = self._fields.constant(grant_posting(rule, give, self._version))

        # the reward key, as `canonical.grant_key` makes it
        head, tail = constant(b"\0grant\0%b\0" % rule.id.encode()), constant(b"\0%d" % index)
        hashed = arithmetic(arithmetic(arithmetic(name("identity"), "+", head), "+", name("member")), "+", tail)
        key = call(attribute(call(name("sha256"), hashed), "digest"))

        # the arguments of RewardEvent in their order; the last ones are left out where they are at their default
        times, (available, until) = self._times(give)
        arguments = [posting, amount, key, name("at_ms"), name("order"), constant(None), available]
        if index or until is not None:
            arguments.append(constant(None) if until is None else until)
        if index:
            arguments.append(constant(index))
        statements = [*times, run(call(attribute(name("rewards"), "append"), call(name("RewardEvent"), *arguments)))]

        if give.unit == "points" and rule.phase in self._multiplied:
            statements.append(increase_name(f"given_{rule.phase}", amount))
        if give.unit in POSSESSED_UNITS and give.hold is None:
            item = (constant(give.unit), constant(give.item), constant(None) if until is None else until)
            statements.append(run(call(attribute(name("state"), "note_possession"), *item)))
        return statements

    def _times(self, give: Give) -> tuple[list[ast.stmt], tuple[ast.expr, ast.expr | None]]:
        """Return statements that compute when an award becomes available and when it ends, and an expression for each.

        The second expression is None where the award never ends.
        """
        statements: list[ast.stmt] = []
        available: ast.expr = name("at_ms")
        if give.hold is not None:
            statements.append(assign("available", self._fields.after(available, give.hold)))
            available = name("available")
        if give.lasts is None and give.validity is None:
            return statements, (available, None)

        gone: ast.expr
        if give.validity is not None:
            expiry = self._fields.expiry(give.validity, self._programme.terms.points.round_expiry)
            gone = call(self._fields.constant(expiry), available)
        else:
            assert give.lasts is not None  # one of the two is there
            gone = self._fields.after(available, give.lasts)
        return [*statements, assign("until", gone)], (available, name("until"))

    def _refuse(self, rule: Rule, index: int, give: Give, reason: RefusalReason, amount: ast.expr) -> ast.stmt:
        """Append to the rewards that `amount` of a give was refused."""
        posting: Posting = refusal_posting(rule, give, self._version, reason)
        arguments = (self._fields.constant(posting), amount, name("event"), name("occurrence"), constant(index))
        return run(call(attribute(name("rewards"), "append"), call(name("refusal"), *arguments)))


def _maxima(rule: Rule, give: Give) -> list[MaxLimit]:
    return [limit for limit in rule.limits if isinstance(limit, MaxLimit) and limit.scope.unit == give.unit]


def _used_up(rule: Rule, uses: dict[LimitScope, str]) -> ast.expr | None:
    """Return the expression that says whether a `times` is used up; None where the rule has no such limit."""
    times = [limit for limit in rule.limits if isinstance(limit, TimesLimit)]
    reached = [compare(attribute(name(uses[t.scope]), "times"), ">=", constant(t.times)) for t in times]
    return either(reached) if reached else None


def _is_in_range(amount: RatedAmount | MultipliedAmount) -> bool:
    """Whether an award is certainly within 64 bits: a field of the event is, a sum of lines may not be."""
    return (
        isinstance(amount, RatedAmount)
        and isinstance(amount.basis.source, Attribute)
        and amount.numerator <= amount.denominator
    )


def _rated(basis: ast.expr, numerator: int, denominator: int, rounding: Rounding) -> ast.expr:
    """Return `basis * numerator / denominator` rounded, with one division; `awards.rounded` is the reference."""
    added = 0
    if rounding is Rounding.CEIL:
        added = denominator - 1
    elif rounding is Rounding.HALF_UP:
        numerator, added, denominator = 2 * numerator, denominator, 2 * denominator

    # leave out what changes nothing
    product = basis if numerator == 1 else arithmetic(basis, "*", constant(numerator))
    total = product if added == 0 else arithmetic(product, "+", constant(added))
    return total if denominator == 1 else arithmetic(total, "//", constant(denominator))


def _fit(limit: MaxLimit, use: str, taken: ast.expr | None = None) -> list[ast.stmt]:
    """Lower `allowed` to the rest of the limit, or to 0 where it refuses awards that do not fit.

    `taken` is what is counted as used beyond the use itself.
    """
    left, allowed = name("left"), name("allowed")
    fitting: ast.expr = constant(0)
    if limit.over is Over.TRIM:
        fitting = choose(compare(left, ">", constant(0)), left, constant(0))
    remaining = arithmetic(constant(limit.amount), "-", attribute(name(use), "amount"))
    if taken is not None:
        remaining = arithmetic(remaining, "-", taken)
    return [assign("left", remaining), when(compare(allowed, ">", left), [assign("allowed", fitting)])]
