"""Read again, as it was when it was judged, what earned something or counted for a challenge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
    """Hold what was judged by a version: `bought` are the facts then, `left` those of what is left (None: nothing)."""

    programme: Programme
    bought: Facts
    left: Facts | None


def own_order(turn: Turn, order: Refunded) -> Judged:
    """Return an order of the member's own, of which something may have been returned."""
    programme = turn.books.judge(order.version).programme
    kept = dict(zip(frozen_items(programme, Purchase), kept_facts(turn, order.purchase.order_id).facts, strict=False))

    def facts(event: Purchase | Rest) -> FrozenFacts:
        return FrozenFacts(event, event.occurred_at, calendar_of(programme.timezone), turn.state, 0, {}, kept)

    rest = rest_of(order)
    return Judged(programme, facts(order.purchase), None if rest is None else facts(rest))


def order_of_referee(turn: Turn, order: Refunded) -> Judged:
    """Return a referee's order as rules on referrals see it, with what the referee has spent less what was returned."""
    bought, rest = order.purchase, rest_of(order)
    known = kept_facts(turn, bought.order_id).referral or ReferralFacts(0, 0)
    head = (bought.event_id, bought.source, bought.member_id, bought.occurred_at)

    def facts(amount: int) -> FrozenFacts:
        spend = known.spend - bought.amount + amount
        event = referral_event(known, head, ("purchase", bought.order_id), amount, spend)
        return _of_referral(turn, event, order.version)

    programme = turn.books.judge(order.version).programme
    return Judged(programme, facts(bought.amount), None if rest is None else facts(rest.amount))


def judged_by_name(turn: Turn, name: str, version: int, at_ms: int) -> Judged | None:
    """Return what has a name among the facts that are kept, as a version judged it at an instant; None: it is gone."""
    order = turn.books.parts().refunded.get(name)
    programme = turn.books.judge(version).programme
    if is_occasion(name):
        event = occasion_of(name, turn.member_id, at_ms, kept_facts(turn, name).facts)
        facts = Facts.before(event, turn.state, calendar_of(programme.timezone))
        return Judged(programme, facts, facts)
    if referee_of(name) is None:
        placed = turn.books.purchase(name)
        order = order or (None if placed is None else Refunded(placed.purchase, placed.version))
        return None if order is None else own_order(turn, order)
    if order is not None:
        return order_of_referee(turn, order)
    known = kept_facts(turn, name).referral or ReferralFacts(0, 0)
    key = name if known.event == "purchase" else order_key(None, referee_of(name) or "")
    did = referral_event(known, (*known.head, turn.member_id, at_ms), (known.event, key), known.amount, known.spend)
    seen = _of_referral(turn, did, version, name)
    return Judged(programme, seen, seen)


def dated(facts: Facts, at_ms: int) -> Facts:
    """Return facts as they are, of an event that gives at another instant."""
    event = facts.event
    moved = replace(event, occurred_at=at_ms) if isinstance(event, Rest) else structs.replace(event, occurred_at=at_ms)
    return replace(facts, event=moved)


def is_held_back(turn: Turn, name: str) -> bool:
    """Whether what a name brings is held, as its referral was flagged and nobody has released it."""
    referee_id, known = referee_of(name), kept_facts(turn, name).referral
    return known is not None and known.flagged and not turn.books.referred(referee_id or "").released


def _of_referral(turn: Turn, event: ReferralEvent, version: int, name: str | None = None) -> FrozenFacts:
    programme = turn.books.judge(version).programme
    facts = kept_facts(turn, name or event.order_id).facts
    kept = dict(zip(frozen_items(programme, ReferralEvent), facts, strict=False))
    return FrozenFacts(event, event.occurred_at, calendar_of(programme.timezone), turn.state, 0, {}, kept)


def referral_event(
    known: ReferralFacts, head: tuple[str, str, str, int], did: tuple[str, str], amount: int | None, spend: int
) -> ReferralEvent:
    """Return what a referee has done as rules on referrals see it.

    Args:
        known: of the referee by then.
        head: event_id and source of the referee's event, the referrer, and when it occurred.
        did: the type of the event, and the name that the order has in the referrer's ledger.
        amount: of the order, or of what is left of it.
        spend: what the referee has spent by then.
    """
    event_id, source, member_id, occurred_ms = head
    event, order_id = did
    channel, code, referrer, visitor = known.referee
    return ReferralEvent(
        event_id=event_id, source=source, member_id=member_id, occurred_at=occurred_ms, event=event,
        referee_id=referee_of(order_id) or "", order_id=order_id, number=known.number, amount=amount, spend=spend,
        signup_ms=known.signup_ms, channel=known.channel, referee_channel=channel, referee_code=code,
        referee_referrer=referrer, referee_visitor=visitor,
    )  # fmt: skip


def kept_facts(turn: Turn, name: str) -> OrderFacts:
    """Return the facts that were kept of an order's award."""
    found = turn.state.orders.get(name)
    if found is not None:
        return found
    pages = turn.books.parts().pages.values()
    return next((page.orders[name] for page in pages if name in page.orders), OrderFacts())
