"""Compile the rules on one type of event: which of them stand, which one a group picks, what metrics count.

Of a rule with a time, a condition and a draw ::

    - {id: lucky, on: purchase, active: {from: 2026-03-01}, when: {purchase.channel: app}, draw: {chance: 1/10}, ...}

the function holds ::

    # rule lucky, line 6
    if at_ms >= 1772341200000 and field_0 == 'app':
        if wins(value_41, 'lucky', event.source, event.event_id):
            ... what `give` compiles of its gives

A group first sets `picked_0` to the number of the rule that it picks, and each of its rules gives `if picked_0 == N`.
Rules are compiled in the order in which `interpret` judges them.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from engine.programme.compile.give import GiveCompiler
from engine.programme.compile.guard import bucketed, runs_of
from engine.programme.compile.syntax import (
    assign,
    attribute,
    both,
    call,
    choose,
    compare,
    constant,
    name,
    note,
    run,
    when,
)
from engine.programme.compile.when import condition_expression
from engine.programme.conditions import Field, FieldTest
from engine.programme.fields import TRIGGERS
from engine.programme.model import Arm, MultipliedAmount, Pick, decides
from engine.programme.rules.awards import completion_posting
from engine.programme.rules.cohorts import cohort_key, entry_posting
from engine.programme.rules.counting import counting_of
from engine.programme.rules.kept_facts import ORDERS, Frozen, are_always_kept, frozen_items

if TYPE_CHECKING:
    from engine.programme.compile.fields import FieldReader
    from engine.programme.model import Challenge, Cohort, Programme, Rule
    from schemas.events import Event


class RulesCompiler:
    """Compile the rules on one type of event, given in the order of evaluation."""

    def __init__(
        self, programme: Programme, version: int, kind: type[Event], rules: list[Rule], fields: FieldReader
    ) -> None:
        self._programme = programme
        self._version = version
        self._kind = kind
        self._rules = rules
        self._numbers = {rule.id: number for number, rule in enumerate(rules)}
        self._metrics = [metric for metric in programme.metrics if TRIGGERS[metric.on] is kind]
        self._fields = fields

        # phases that a multiplier reads: their points are added up in `given_PHASE`
        self._multiplied = frozenset(
            give.amount.phase for rule in rules for give in rule.gives if isinstance(give.amount, MultipliedAmount)
        )
        self._gives = GiveCompiler(programme, version, fields, self._multiplied)

        self._picked: dict[str, str] = {}
        """The variable that says which rule a group picked, by group."""

    def statements(self) -> list[ast.stmt]:
        """Return the body of the function: read the event's fields, judge all rules, let metrics take the event in."""
        judging: list[ast.stmt] = []
        for guard, rules in runs_of(self._rules):
            if guard is None:
                judging += [statement for rule in rules for statement in self._rule(rule)]
            else:
                judging += bucketed(guard, rules, self._fields, self._rule)

        tiers = self._programme.terms.tiers
        tier_metric = None if tiers is None else tiers.metric
        for metric in self._metrics:
            is_tiers = tier_metric is not None and tier_metric.key == metric.key
            judging += [note(f"metric {metric.key}"), *self._fields.entering(metric, is_tiers=is_tiers)]
        judging += self._keeping_facts()

        # compiled last, as only now it is known which fields are read; run first
        return [*self._preamble(), *self._fields.statements(), *judging]

    def _keeping_facts(self) -> list[ast.stmt]:
        """Keep for refunds the facts that an order was judged by and that are not in the order itself."""
        items = frozen_items(self._programme, self._kind) if self._kind in ORDERS else ()
        if not items:
            return []
        facts = ast.Tuple([self._frozen(item) for item in items], ast.Load())
        keeping: list[ast.stmt] = [run(call(name("keep_facts"), name("state"), name("event"), facts))]
        if not are_always_kept(self._programme, self._kind):
            keeping = [when(name("rewards"), keeping)]
        return [note("what refunds of the order must know"), *keeping]

    def _frozen(self, item: Frozen) -> ast.expr:
        """Return the expression of the kept form of a fact, as `kept_facts.frozen_value` computes it."""
        if isinstance(item, Field):
            return self._fields.local(item)
        if isinstance(item, FieldTest):
            passed = condition_expression(item, self._fields.local, self._fields.constant)
            return constant(value=True) if passed is None else passed
        assert item.key is not None  # without a key there is nothing to keep
        table = self._fields.constant(dict(item.extras))
        return call(attribute(table, "get"), self._fields.local(item.key))

    def _preamble(self) -> list[ast.stmt]:
        """Set the variables that nearly every rule reads: `at_ms`, `member`, `identity`, `order` and so on."""
        event, occurrence = name("event"), name("occurrence")
        order = attribute(event, "order_id") if "order_id" in self._kind.__struct_fields__ else constant(None)
        statements = [
            assign("at_ms", attribute(event, "occurred_at")),
            assign("member", call(attribute(attribute(event, "member_id"), "encode"))),
            assign("identity", attribute(occurrence, "identity")),
            assign("order", order),
        ]
        if self._gives.needs_limits:
            statements.append(assign("limits", attribute(name("state"), "limits")))
            statements.append(assign("is_late", compare(name("at_ms"), "<", attribute(name("state"), "clock_ms"))))
        return statements + [assign(f"given_{phase}", constant(0)) for phase in sorted(self._multiplied)]

    def _rule(self, rule: Rule) -> list[ast.stmt]:
        """Judge one rule; before the first rule of a group, let the group pick."""
        heading = note(f"rule {rule.id}, line {rule.place.line}")
        if not decides(rule.group):
            return [heading, *self._standing(rule, self._gives.compile_gives(rule))]

        assert rule.group is not None  # decides() says so
        picking: list[ast.stmt] = []
        if rule.group.id not in self._picked:
            local = self._picked[rule.group.id] = f"picked_{len(self._picked)}"
            picking = self._picking(rule, local)
        is_picked = compare(name(self._picked[rule.group.id]), "==", constant(self._numbers[rule.id]))
        return [*picking, heading, when(is_picked, self._gives.compile_gives(rule))]

    def _picking(self, first: Rule, local: str) -> list[ast.stmt]:
        """Set the variable `local` to the number of the rule that the group of `first` picks, -1 for none."""
        assert first.group is not None  # the caller has asked
        statements: list[ast.stmt] = [
            note(f"group {first.group.id} picks the {first.group.pick}"),
            assign(local, constant(-1)),
            assign("best", constant(-1)),
        ]
        for number, rule in enumerate(self._rules):
            if rule.group != first.group:
                continue

            # the first that stands, or the first of those worth most
            pick: list[ast.stmt] = [assign(local, constant(number))]
            if first.group.pick is Pick.FIRST:
                body = [when(compare(name(local), "<", constant(0)), pick)]
            else:
                better = [*pick, assign("best", name("worth"))]
                body = [*self._gives.worth(rule), when(compare(name("worth"), ">", name("best")), better)]
            statements += [note(f"does rule {rule.id} stand?"), *self._standing(rule, body)]
        return statements

    def _challenged(self, rule: Rule, challenge: Challenge, body: list[ast.stmt]) -> list[ast.stmt]:
        """Run `body` where the event counts for the challenge and completes it; record the completion."""
        posting = self._fields.constant(completion_posting(rule, self._version))
        completed = call(name("completion"), posting, name("event"), name("occurrence"))
        recorded = run(call(attribute(name("rewards"), "append"), completed))

        # how much the event counts, since when, and whether that reaches the goal
        by = constant(1) if challenge.of is None else self._fields.local(challenge.of)
        since = constant(None) if challenge.within is None else self._fields.window_start(challenge.within)
        counting = self._fields.constant(counting_of(rule, self._programme, self._version))
        is_complete = call(name("counts"), name("state"), counting, by, since, name("event"), name("identity"))

        where = condition_expression(challenge.where, self._fields.local, self._fields.constant)
        counting_it = [when(is_complete, [recorded, *body])]
        return counting_it if where is None else [when(where, counting_it)]

    def _divided(self, rule: Rule, cohort: Cohort, body: list[ast.stmt]) -> list[ast.stmt]:
        """Run `body` where the cohort treats the member; record the member's first event there."""
        member_id = attribute(name("event"), "member_id")
        treated: ast.expr = call(name("is_treated"), self._fields.constant(cohort), member_id)
        entering: list[ast.stmt] = []
        if self._programme.enters_cohorts:
            deciding, treated = assign("treated", treated), name("treated")
            is_new = call(name("begins"), name("state"), constant(cohort_key(cohort.salt)))
            entering = [deciding, when(is_new, [self._entry(rule, cohort)])]
        return [*entering, when(treated, body, self._gives.control(rule))]

    def _entry(self, rule: Rule, cohort: Cohort) -> ast.stmt:
        """Append to the rewards that the member entered the cohort, in the arm that `treated` says."""
        arms = [self._fields.constant(entry_posting(rule, self._version, arm)) for arm in (Arm.TREATED, Arm.CONTROL)]
        posting = choose(name("treated"), *arms)
        entered = call(name("entry"), posting, constant(cohort.salt), name("event"), name("occurrence"))
        return run(call(attribute(name("rewards"), "append"), entered))

    def _standing(self, rule: Rule, body: list[ast.stmt]) -> list[ast.stmt]:
        """Run `body` where the rule's time, condition, cohort, challenge and draw let it.

        They are asked in this order, so they are built from the inside out.
        """
        if rule.draw is not None:
            ids = [attribute(name("event"), each) for each in ("source", "event_id")]
            won = call(name("wins"), self._fields.constant(rule.draw), constant(rule.id), *ids)
            body = [when(won, body)]
        if rule.challenge is not None:
            body = self._challenged(rule, rule.challenge, body)
        if rule.cohort is not None:
            body = self._divided(rule, rule.cohort, body)

        # time and condition make one expression
        tests: list[ast.expr] = []
        if rule.active.from_ms is not None:
            tests.append(compare(name("at_ms"), ">=", constant(rule.active.from_ms)))
        if rule.active.until_ms is not None:
            tests.append(compare(name("at_ms"), "<", constant(rule.active.until_ms)))
        condition = condition_expression(rule.when, self._fields.local, self._fields.constant)
        if condition is not None:
            tests.append(condition)
        return [when(both(tests), body)] if tests else body
