"""Carry out what comes of referrals: who referred whom, what referees do, and what operators decide about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from engine.ledger import challenges, flagged, ranks
from engine.ledger.forget import at_hand, note_order
from engine.ledger.movements import posting_of
from engine.ledger.parts import OrderFacts, ReferralFacts, Refunded
from engine.ledger.refunds import (
    ReferralRefunding,
    Refunding,
    kept_facts,
    referral_event,
    refund_of_referee,
    take,
)
from engine.programme.facts import Facts
from engine.programme.returned import return_to_limits
from engine.referral.facts import Attribution, Forwarded, Referral
from engine.windows import LATE_MS
from schemas.canonical import completion_key
from schemas.events import Decision, Purchase, Refund, Signup
from schemas.rewards import RewardEvent, order_key, referee_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.ledger.lots import Lot
    from engine.ledger.turn import Turn
    from schemas.events import MemberEvent, Profile

NAMES = {Signup: "signup", Purchase: "purchase", Refund: "refund"}


def attribute(turn: Turn, event: Attribution) -> None:
    """Take note of who referred the member, or that nobody did after all."""
    if event.status == "rejected":
        _tell(turn, "referral.rejected", event.referrer_id or event.code, event.occurred_at, event.reason)
        return
    assert event.referrer_id is not None  # noqa: S101  an attribution names them
    turn.state.referral = Referral(event.referrer_id, bool(event.flags))
    _tell(turn, "referral.attributed", event.referrer_id, event.occurred_at, "+".join(event.flags) or None)


def follow(turn: Turn, event: Forwarded) -> None:
    """Judge, in the referrer's account, what a referee has done."""
    did = event.event
    if isinstance(did, Decision):
        _moderate(turn, event.referee_id, did)
    elif isinstance(did, Refund):
        _refund(turn, event, did)
    else:
        _judge(turn, event, did)


def order_of(event: Forwarded) -> str | None:
    """Return the name that a referee's purchase has in the referrer's ledger; None for anything else they did."""
    did = event.event
    return order_key(did.order_id, event.referee_id) if isinstance(did, Purchase) else None


def tell_of_erased(turn: Turn, event: MemberEvent | Profile) -> None:
    """Record that a referral of a member who was erased is void: nothing else can be told of them, or taken."""
    if isinstance(event, Forwarded) and isinstance(event.event, Decision) and event.event.action == "referral_void":
        _tell(turn, "referral.voided", event.referee_id, event.occurred_at, _why_voided(event.event))


def _why_voided(decision: Decision) -> str | None:
    """Return the reason of a void that admission wrote; an operator's is text, and stays in the source log."""
    return decision.reason if decision.source == "guerdon" else None


def _judge(turn: Turn, event: Forwarded, did: MemberEvent) -> None:
    key = order_of(event) or order_key(None, event.referee_id)
    known = ReferralFacts(event.number, event.spend, event.signup_ms, event.channel, event.referee)
    head = (did.event_id, did.source, turn.member_id, event.occurred_at)
    amount = did.amount if isinstance(did, Purchase) else None
    judged = referral_event(known, head, (_name_of(did), key), amount, event.spend)
    first = len(turn.rewards)
    given = turn.judge.judge(judged, turn.state, turn.occurrence)
    is_earning = any(flagged.is_grant(reward) for reward in given)
    if event.flagged and is_earning:
        given = flagged.held_back(given)
    turn.movements.open(given)
    flagged.forget_held(turn, given)
    if isinstance(did, Purchase) and (is_earning or key in turn.state.orders):
        turn.state.orders.setdefault(key, OrderFacts()).referral = known
    if isinstance(did, Purchase) and (is_earning or event.occurred_at < turn.state.clock_ms - LATE_MS):
        note_order(turn.state, turn.judge.programme, key, event.occurred_at)
    if turn.judge.is_followed:
        challenges.follow(turn, judged, first)
    if is_earning:
        _qualify(turn, event.referee_id, event.occurred_at)


def _name_of(did: MemberEvent) -> str:
    return next((name for kind, name in NAMES.items() if isinstance(did, kind)), "activity")


def _qualify(turn: Turn, referee_id: str, at_ms: int) -> None:
    """Record, once for ever, that a referral has earned something."""
    referred = turn.books.referred(referee_id)
    if not referred.qualified:
        referred.qualified = True
        _tell(turn, "referral.qualified", referee_id, at_ms, None)


def _refund(turn: Turn, event: Forwarded, did: Refund) -> None:
    """Take back what a referee's order has earned, and judge the rules on refunds."""
    key = order_key(did.order_id, event.referee_id)
    if event.purchase is not None:
        purchase = structs.replace(event.purchase, order_id=key)
        refund_of_referee(turn, structs.replace(did, order_id=key), purchase)
    _judge(turn, event, did)


def _moderate(turn: Turn, referee_id: str, decision: Decision) -> None:
    """Carry out, in the referrer's account, what an operator decided about one of the referrals."""
    referred = turn.books.referred(referee_id)
    if referred.voided:
        return
    lots = [lot for lot in _lots(turn) if referee_of(lot.order_id) == referee_id]
    if decision.action == "referral_release":
        flagged.release(turn, lots, decision.occurred_at)
        return
    referred.voided = True
    _claim_all(turn, lots, decision.occurred_at)
    _tell(turn, "referral.voided", referee_id, decision.occurred_at, _why_voided(decision))


def moderate_own(turn: Turn, decision: Decision) -> None:
    """Carry out, in the referee's account, what an operator decided about who referred them."""
    referral, at_ms = turn.state.referral, decision.occurred_at
    if referral is None:
        turn.refuse("not_referred", at_ms, unit="referral")
    elif referral.voided:
        turn.refuse("already_voided", at_ms, unit="referral", item=referral.referrer_id)
    elif decision.action == "referral_void":
        referral.voided = True
        _claim_all(turn, _own_side(turn), at_ms)
    elif referral.flagged:
        referral.flagged = False
        flagged.release(turn, _own_side(turn), at_ms)
        _tell(turn, "referral.attributed", referral.referrer_id, at_ms, "released")
    else:
        turn.refuse("not_flagged", at_ms, unit="referral", item=referral.referrer_id)


def _own_side(turn: Turn) -> list[Lot]:
    """Return the lots of rules that test who referred the member."""
    return [
        lot
        for lot in _lots(turn)
        if lot.rule_id is not None
        and lot.rule_id in flagged.rules_on_referrer(turn.books.judge(lot.version or 0).programme)
    ]


def _lots(turn: Turn) -> list[Lot]:
    """Return the member's lots but those that a ledger may have dropped."""
    return at_hand(turn.movements.lots(), turn.books.parts(), turn.state.clock_ms, turn.books.judge)


def _claim_all(turn: Turn, lots: Iterable[Lot], at_ms: int) -> None:
    """Claim all that some lots have given, less what refunds have claimed already."""
    by_rule: dict[tuple[str | None, str | None], list[Lot]] = {}
    for lot in list(lots):
        by_rule.setdefault((lot.order_id, lot.rule_id), []).append(lot)
    for (order_id, _), own in by_rule.items():
        _claim(turn, own, _refunded(turn, order_id), at_ms)


def _refunded(turn: Turn, order_id: str | None) -> Refunded | None:
    """Return what was returned of an order; of the member's own, begun now: a later refund must know of the void."""
    refunded = turn.books.parts().refunded
    found = refunded.get(order_id or "")
    if found is None and order_id is not None and referee_of(order_id) is None:
        placed = turn.books.purchase(order_id)
        if placed is not None:
            turn.state.is_booked = True
            found = refunded[order_id] = Refunded(placed.purchase, placed.version)
    return found


def _claim(turn: Turn, lots: list[Lot], order: Refunded | None, at_ms: int) -> None:
    """Claim what one rule has given for one order, and give back to its limits what was taken."""
    programme = turn.books.judge(lots[0].version or 0).programme
    amounts: dict[str, int] = {}
    is_gone = True
    for lot in lots:
        claimed = 0 if order is None else order.claims.get(lot.key, 0)
        taken = 0 if order is None else order.reversed.get(lot.key, 0)
        if lot.amount > claimed:
            now = take(turn, lot, lot.amount - claimed, (at_ms, "referral_void"), programme.terms.refunds.negative)
            amounts[lot.unit] = amounts.get(lot.unit, 0) + now
            taken += now
            if lot.unit == "status" and now and _goes_by_status(turn):
                ranks.lower(turn, now, lot.granted_ms, at_ms)
        if order is not None:
            order.claims[lot.key], order.reversed[lot.key] = lot.amount, taken
        is_gone = is_gone and taken == lot.amount
    rule = next((rule for rule in programme.rules if rule.id == lots[0].rule_id), None)
    if rule is not None and rule.limits and any(amounts.values()):
        return_to_limits(turn, rule, _at_grant(turn, lots[0], order, at_ms), amounts, int(is_gone))


def _goes_by_status(turn: Turn) -> bool:
    tiers = turn.terms.tiers
    return tiers is not None and tiers.metric is None


def _at_grant(turn: Turn, lot: Lot, order: Refunded | None, at_ms: int) -> Facts:
    """Return the facts that a rule gave a lot by, as far as its limits may ask for them."""
    if order is not None:
        kind = Refunding if referee_of(lot.order_id) is None else ReferralRefunding
        return kind(turn, order, order, at_ms).bought
    known = kept_facts(turn, lot.order_id or "").referral or ReferralFacts(0, 0)
    head = ("", "guerdon", turn.member_id, lot.granted_ms)
    event = referral_event(known, head, ("purchase", lot.order_id or ""), None, known.spend)
    return Facts(event, lot.granted_ms, turn.calendar, turn.state, 0, {})


def _tell(turn: Turn, kind: str, item: str | None, at_ms: int, reason: str | None) -> None:
    posting = posting_of(kind, "referral", (None, None), (None, turn.judge.version, None), item, reason)
    key = completion_key(turn.occurrence.identity, kind, turn.member_id)
    turn.rewards.append(RewardEvent(posting, 1, key, at_ms))
