"""Keep the facts that an order was judged by, so that a refund can judge its rest by the same facts.

Facts that are not in the order itself (history, balance, tier, badges and so on) are kept in the order of
`frozen_items`; time and the order's own fields are read from the order again. States are not encrypted, so the value of
a personal field is never kept: only whether each test of it passed, and which factor a multiplier chose by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.member.pages import OrderFacts
from engine.programme.conditions import (
    AllOf,
    AnyOf,
    Difference,
    Field,
    FieldTest,
    History,
    Lines,
    MemberValue,
    Not,
    TierValue,
)
from engine.programme.fields import is_personal
from engine.programme.interpret.facts import Facts
from engine.programme.model import MultipliedAmount, RatedAmount
from engine.programme.occasions import ReferralEvent
from engine.programme.rules.counting import has_challenge, name_of
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.member.state import MemberState
    from engine.programme.conditions import Condition, Metric
    from engine.programme.model import Amount, Programme, Rule
    from schemas.events import Event, MemberEvent

Frozen = Field | FieldTest | MultipliedAmount
"""A fact that is kept: the value of a field, whether a test passed, or a multiplier's factor."""

FROZEN = (History, MemberValue, TierValue)
"""The sources of facts that are not in the order itself."""


@dataclass(frozen=True, slots=True)
class FrozenFacts(Facts):
    """Read the facts of an order's rest: its own fields from the rest, all others as they were at the award."""

    kept: dict[Frozen, Any] = field(default_factory=dict)

    def value_of(self, field: Field) -> Any:
        """Return the value of a field, as it was at the award if it is not the order's own."""
        if isinstance(field.source, FROZEN):
            return self.kept.get(field)
        return Facts.value_of(self, field)  # its own class by name: super() does not work with slots

    def extra_of(self, amount: MultipliedAmount) -> tuple[int, int] | None:
        """Return a multiplier's factor less 1, as its key chose it at the award."""
        if amount in self.kept:
            extra = self.kept[amount]
            return None if extra is None else (extra[0], extra[1])
        return Facts.extra_of(self, amount)

    def _passes(self, test: FieldTest) -> bool:
        if test in self.kept:
            return bool(self.kept[test])
        return Facts._passes(self, test)  # noqa: SLF001  as above


ORDERS = (Purchase, ReferralEvent)
"""The events that bring an order: the member's own purchase, or a referee's."""


@lru_cache(maxsize=64)
def frozen_items(programme: Programme, kind: type[Event]) -> tuple[Frozen, ...]:
    """Return the facts to keep of a kind of order: those that rules on it and metrics on purchases read, each once."""
    items: dict[Frozen, None] = {}
    for rule in programme.rules:
        if rule.on is kind:
            items |= dict.fromkeys(_of_rule(rule))
    return tuple(items | dict.fromkeys(_of_metrics(programme) if kind is Purchase else ()))


def are_always_kept(programme: Programme, kind: type[Event]) -> bool:
    """Whether facts are kept even of orders that earned nothing, since a metric or a challenge counts them."""
    return has_challenge(programme, kind) or (kind is Purchase and any(True for _ in _of_metrics(programme)))


def frozen_value(item: Frozen, facts: Facts) -> Any:
    """Return the value that is kept of a fact."""
    if isinstance(item, Field):
        return facts.value_of(item)
    return facts.holds(item) if isinstance(item, FieldTest) else facts.extra_of(item)


def keep_facts(state: MemberState, event: MemberEvent, facts: tuple[Any, ...]) -> None:
    """Keep the facts of an order in the member's state, beside the order's newest lots."""
    name = name_of(event) or ""
    order = state.orders.get(name)
    if order is None:
        order = state.orders[name] = OrderFacts()
    order.facts = facts


def reads_only_its_event(metric: Metric) -> bool:
    """Whether a metric reads nothing but the event itself, so that no rule's decision can change it."""
    others = [*_of_condition(metric.where), *(() if metric.of is None else _not_own(metric.of))]
    return not others


def _of_metrics(programme: Programme) -> Iterator[Frozen]:
    for metric in programme.metrics:
        if metric.on == "purchase":
            yield from _of_condition(metric.where)
            if metric.of is not None:
                yield from _not_own(metric.of)


def _of_rule(rule: Rule) -> Iterator[Frozen]:
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


def _of_amount(amount: Amount) -> Iterator[Frozen]:
    if isinstance(amount, RatedAmount):
        yield from _not_own(amount.basis)
    elif isinstance(amount, MultipliedAmount) and amount.key is not None:
        yield from (amount,) if is_personal(amount.key, None) else _not_own(amount.key)


def _of_condition(condition: Condition) -> Iterator[Frozen]:
    if isinstance(condition, (AllOf, AnyOf)):
        for part in condition.parts:
            yield from _of_condition(part)
    elif isinstance(condition, Not):
        yield from _of_condition(condition.part)
    else:
        assert isinstance(condition, FieldTest)  # the union has no other member
        yield from (condition,) if is_personal(condition.of, None) else _not_own(condition.of)


def _not_own(of: Field) -> Iterator[Frozen]:
    if isinstance(of.source, FROZEN):
        yield of
    elif isinstance(of.source, Difference):
        for _, term in of.source.terms:
            yield from _not_own(term)
    elif isinstance(of.source, Lines):
        yield from _of_condition(of.source.where)
