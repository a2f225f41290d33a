"""Keep what an award stood on besides its order, so that a refund can judge the rest of the order as it was judged.

The facts that are not the order's own (history, balance, tier, held rewards and so on) are kept as values, in the
order of `frozen_fields`; time and the order's own fields are read from the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.ledger.parts import OrderFacts
from engine.programme.conditions import AllOf, AnyOf, Difference, FieldTest, History, Lines, MemberValue, Not, TierValue
from engine.programme.facts import Facts
from engine.programme.model import MultipliedAmount, RatedAmount
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.conditions import Condition, Field, Metric, Source
    from engine.programme.model import Amount, Programme, Rule
    from engine.state import MemberState


FROZEN = (History, MemberValue, TierValue)
"""The sources that say what is not the order's own."""


@dataclass(frozen=True, slots=True)
class FrozenFacts(Facts):
    """Read the facts of what is left of an order: its own fields from it, all others as they were at the award."""

    kept: dict[Source, Any] = field(default_factory=dict)

    def _read(self, source: Source) -> Any:
        if isinstance(source, FROZEN):
            return self.kept.get(source)
        return Facts._read(self, source)  # noqa: SLF001  its own class; super() does not work with slots


@lru_cache(maxsize=64)
def frozen_fields(programme: Programme) -> tuple[Field, ...]:
    """Return the fields that are not the order's own and that rules on purchases read, each once."""
    found: dict[Field, None] = {}
    for rule in programme.rules:
        if rule.on is Purchase:
            found |= dict.fromkeys(_of_rule(rule))
    for metric in programme.metrics:
        if metric.on == "purchase":
            found |= dict.fromkeys(of_metric(metric))
    return tuple(found)


def of_metric(metric: Metric) -> list[Field]:
    """Return the fields that a metric reads and that are not the event's own."""
    fields = list(_of_condition(metric.where))
    return fields if metric.of is None else fields + list(_not_own(metric.of))


def keep_facts(state: MemberState, order_id: str, facts: tuple[Any, ...]) -> None:
    """Keep the facts of an order beside its newest lots."""
    known = state.orders.get(order_id)
    if known is None:
        state.orders[order_id] = OrderFacts(facts)
    else:
        known.facts = facts


def keep_first(state: MemberState, order_id: str | None, rule_id: str, before: int, goal: int) -> None:
    """Keep how far a challenge, or a tier's number, stood before the order that reached its goal."""
    if order_id is not None:
        facts = state.orders.setdefault(order_id, OrderFacts())
        facts.first = (facts.first or {}) | {rule_id: (before, goal)}


def _of_rule(rule: Rule) -> Iterator[Field]:
    yield from _of_condition(rule.when)
    if rule.challenge is not None:
        yield from _of_condition(rule.challenge.where)
        if rule.challenge.of is not None:
            yield from _not_own(rule.challenge.of)
    for give in rule.gives:
        yield from _of_amount(give.amount)
    for limit in rule.limits:
        if limit.scope.by is not None:
            yield from _not_own(limit.scope.by)


def _of_amount(amount: Amount) -> Iterator[Field]:
    if isinstance(amount, RatedAmount):
        yield from _not_own(amount.basis)
    elif isinstance(amount, MultipliedAmount) and amount.key is not None:
        yield from _not_own(amount.key)


def _of_condition(condition: Condition) -> Iterator[Field]:
    if isinstance(condition, (AllOf, AnyOf)):
        for part in condition.parts:
            yield from _of_condition(part)
    elif isinstance(condition, Not):
        yield from _of_condition(condition.part)
    else:
        assert isinstance(condition, FieldTest)  # noqa: S101  the union has no other member
        yield from _not_own(condition.of)


def _not_own(of: Field) -> Iterator[Field]:
    if isinstance(of.source, FROZEN):
        yield of
    elif isinstance(of.source, Difference):
        for _, term in of.source.terms:
            yield from _not_own(term)
    elif isinstance(of.source, Lines):
        yield from _of_condition(of.source.where)
