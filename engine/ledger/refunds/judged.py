"""Find the events that earned rewards or counted for a challenge, with the facts that they were judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from engine.ledger.refunds.rest import Rest, rest_of
from engine.member.pages import OrderFacts, ReferralFacts, Refunded
from engine.programme.interpret.facts import Facts
from engine.programme.localtime import calendar_of
from engine.programme.occasions import ReferralEvent
from engine.programme.rules.counting import is_occasion, occasion_of
from engine.programme.rules.kept_facts import FrozenFacts, frozen_items
from schemas.events import Purchase
from schemas.rewards import order_key, referee_of

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.programme.model import Programme


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold an order, or another event, with its facts."""

    programme: Programme
    """The version that judged it."""
    bought: Facts
    """The facts at the award."""
    left: Facts | None
    """The same facts for the goods that remain; None: nothing remains."""


class ReferralHead(NamedTuple):
    """Name a referee's event, the referrer who is judged for it, and when it occurred."""

    event_id: str
    source: str
    member_id: str
    occurred_ms: int


def own_order(turn: Turn, order: Refunded) -> Judged:
    """Return an order of the member's own, with the goods that remain."""
    programme = turn.books.judge(order.version).programme
    frozen = dict(zip(frozen_items(programme, Purchase), kept_facts(turn, order.purchase.order_id).facts, strict=False))

    def facts(event: Purchase | Rest) -> FrozenFacts:
        return FrozenFacts(event, event.occurred_at, calendar_of(programme.timezone), turn.state, 0, {}, frozen)

    rest = rest_of(order)
    return Judged(programme, facts(order.purchase), None if rest is None else facts(rest))


def order_of_referee(turn: Turn, order: Refunded) -> Judged:
    """Return a referee's order as rules on referrals see it: the referee's spend is less what was returned."""
    bought, rest = order.purchase, rest_of(order)
    referral = structs.replace(kept_facts(turn, bought.order_id).referral or ReferralFacts(0, 0), event="purchase")
    head = ReferralHead(bought.event_id, bought.source, bought.member_id, bought.occurred_at)

    def facts(amount: int) -> FrozenFacts:
        spend = referral.spend - bought.amount + amount
        event = referral_event(referral, head, bought.order_id, amount, spend)
        return _of_referral(turn, event, order.version)

    programme = turn.books.judge(order.version).programme
    return Judged(programme, facts(bought.amount), None if rest is None else facts(rest.amount))


def judged_by_name(turn: Turn, name: str, version: int, at_ms: int) -> Judged | None:
    """Return the order or event that the ledger keeps under a name, as a version judged it at an instant.

    None: its purchase is not recorded.
    """
    order = turn.books.parts().refunded.get(name)
    programme = turn.books.judge(version).programme

    # an occasion, such as a change of level
    if is_occasion(name):
        event = occasion_of(name, turn.member_id, at_ms, kept_facts(turn, name).facts)
        facts = Facts.before(event, turn.state, calendar_of(programme.timezone))
        return Judged(programme, facts, facts)

    # an order of the member's own
    if referee_of(name) is None:
        placed = turn.books.purchase(name)
        order = order or (None if placed is None else Refunded(placed.purchase, placed.version))
        return None if order is None else own_order(turn, order)

    # a referee's event: an order after a refund, or any event as it was
    if order is not None:
        return order_of_referee(turn, order)
    referral = kept_facts(turn, name).referral or ReferralFacts(0, 0)
    key = name if referral.event == "purchase" else order_key(None, referee_of(name) or "")
    did = referral_event(
        referral, ReferralHead(*referral.head, turn.member_id, at_ms), key, referral.amount, referral.spend
    )
    frozen = _of_referral(turn, did, version, name)
    return Judged(programme, frozen, frozen)


def dated(facts: Facts, at_ms: int) -> Facts:
    """Return the same facts with the event moved to another instant."""
    event = facts.event
    moved = replace(event, occurred_at=at_ms) if isinstance(event, Rest) else structs.replace(event, occurred_at=at_ms)
    return replace(facts, event=moved)


def is_held_back(turn: Turn, name: str) -> bool:
    """Whether rewards for a name are held back: its referral was flagged, and nobody has released it."""
    referee_id, referral = referee_of(name), kept_facts(turn, name).referral
    return referral is not None and referral.flagged and not turn.books.referred(referee_id or "").released


def _of_referral(turn: Turn, event: ReferralEvent, version: int, name: str | None = None) -> FrozenFacts:
    programme = turn.books.judge(version).programme
    facts = kept_facts(turn, name or event.order_id).facts
    frozen = dict(zip(frozen_items(programme, ReferralEvent), facts, strict=False))
    return FrozenFacts(event, event.occurred_at, calendar_of(programme.timezone), turn.state, 0, {}, frozen)


def referral_event(
    facts: ReferralFacts, head: ReferralHead, order_id: str, amount: int | None, spend: int
) -> ReferralEvent:
    """Return a referee's event as rules on referrals see it.

    Args:
        facts: the facts of the referee, as admission knew them, and the type of the event.
        head: names the referee's event and the referrer.
        order_id: the order's name in the referrer's ledger.
        amount: the amount of the order, or of the goods that remain, in minor units.
        spend: how much the referee has spent up to the event, in minor units.
    """
    referee = facts.referee
    return ReferralEvent(
        event_id=head.event_id, source=head.source, member_id=head.member_id, occurred_at=head.occurred_ms,
        event=facts.event, referee_id=referee_of(order_id) or "", order_id=order_id, number=facts.number,
        amount=amount, spend=spend, signup_ms=facts.signup_ms, channel=facts.channel,
        referee_channel=referee.channel, referee_code=referee.referral_code, referee_referrer=referee.referrer_id,
        referee_visitor=referee.visitor,
    )  # fmt: skip


def kept_facts(turn: Turn, name: str) -> OrderFacts:
    """Return the facts that the ledger keeps under a name; empty facts where there are none."""
    facts = turn.state.orders.get(name)
    if facts is not None:
        return facts
    pages = turn.books.parts().pages.values()
    return next((page.orders[name] for page in pages if name in page.orders), OrderFacts())
