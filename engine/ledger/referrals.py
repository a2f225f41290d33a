"""Carry out referrals in the ledger: attributions, the deeds of referees, and the decisions of operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from engine.intake.own_events import Attribution, Forwarded
from engine.ledger import challenges, flagged
from engine.ledger.forget import note_order, remembered
from engine.ledger.movements import NO_ACCOUNTS, Source, is_grant, posting_of
from engine.ledger.refunds.claims import Cause, not_of_levels
from engine.ledger.refunds.judged import ReferralHead, judged_by_name, referral_event
from engine.ledger.refunds.refund import refund_of_referee
from engine.ledger.refunds.undoing import Undoing
from engine.member.pages import OrderFacts, ReferralFacts
from engine.member.referral import Referral
from engine.member.windows import LATE_MS
from engine.programme.interpret.facts import Facts
from engine.programme.localtime import calendar_of
from engine.programme.rules.counting import name_of
from engine.programme.rules.expiry import Expiry
from schemas.canonical import completion_key
from schemas.events import Decision, MemberEvent, Purchase, Refund, Signup
from schemas.rewards import RewardEvent, order_key, referee_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from schemas.events import Profile


NAMES = {Signup: "signup", Purchase: "purchase", Refund: "refund"}
"""The names of a referee's events in rules on referrals; any other event is an activity."""


def attribute(turn: Turn, event: Attribution) -> None:
    """Note who referred the member, or record that their claim was rejected."""
    if event.status == "rejected":
        _record(turn, "referral.rejected", event.referrer_id or event.code, event.occurred_at, event.reason)
        return
    assert event.referrer_id is not None  # an attribution names them
    turn.state.referral = Referral(event.referrer_id, bool(event.flags))
    _record(turn, "referral.attributed", event.referrer_id, event.occurred_at, "+".join(event.flags) or None)


def follow(turn: Turn, event: Forwarded) -> None:
    """Judge in the referrer's account what a referee has done."""
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


def void_of_erased(turn: Turn, event: MemberEvent | Profile) -> None:
    """Record that a referral of an erased member is void; they have nothing left to take back."""
    if isinstance(event, Forwarded) and isinstance(event.event, Decision) and event.event.action == "referral_void":
        _record(turn, "referral.voided", event.referee_id, event.occurred_at, _reason_of_void(event.event))


def _reason_of_void(decision: Decision) -> str | None:
    """Return the reason of a void that admission wrote; an operator's is free text and stays in the source log."""
    return decision.reason if decision.source == "guerdon" else None


def _judge(turn: Turn, event: Forwarded, did: MemberEvent) -> None:
    """Run the rules on referrals on a referee's event, and keep the facts that a refund must know."""
    # the referee's event as rules on referrals see it
    key = order_of(event) or order_key(None, event.referee_id)
    kind = next((name for kind, name in NAMES.items() if isinstance(did, kind)), "activity")
    amount = did.amount if isinstance(did, Purchase) else None
    facts = ReferralFacts(
        event.number, event.spend, event.signup_ms, event.channel, event.referee, event=kind, amount=amount,
        head=(did.event_id, did.source), flagged=event.flagged,
    )  # fmt: skip
    head = ReferralHead(did.event_id, did.source, turn.member_id, event.occurred_at)
    judged = referral_event(facts, head, key, amount, event.spend)

    # open what they give; while the referral is flagged, it is held back
    first = len(turn.rewards)
    given = turn.judge.rewards_for(judged, turn.state, turn.occurrence)
    is_earning = any(is_grant(reward.posting) for reward in given)
    if event.flagged and is_earning:
        given = flagged.held_back(given)
    turn.open(given)
    flagged.forget_possessions(turn, given)

    # a refund must find the facts again where the order has earned or counted something
    name = name_of(judged) or key
    if name in turn.state.orders or (isinstance(did, Purchase) and is_earning):
        turn.state.orders.setdefault(name, OrderFacts()).referral = facts
    if isinstance(did, Purchase) and (is_earning or event.occurred_at < turn.state.clock_ms - LATE_MS):
        note_order(turn.state, turn.judge.programme, key, event.occurred_at)

    if turn.judge.is_followed:
        challenges.follow(turn, judged, first)
    if is_earning:
        _qualify(turn, event.referee_id, event.occurred_at)


def _qualify(turn: Turn, referee_id: str, at_ms: int) -> None:
    """Record that a referral has earned something, once for each referral."""
    referred = turn.books.referred(referee_id)
    if not referred.qualified:
        referred.qualified = True
        _record(turn, "referral.qualified", referee_id, at_ms, None)


def _refund(turn: Turn, event: Forwarded, did: Refund) -> None:
    """Take back what a referee's order has earned, and run the rules on refunds by referees."""
    key = order_key(did.order_id, event.referee_id)
    if event.purchase is not None:
        purchase = structs.replace(event.purchase, order_id=key)
        refund_of_referee(turn, structs.replace(did, order_id=key), purchase)
    _judge(turn, event, did)


def _moderate(turn: Turn, referee_id: str, decision: Decision) -> None:
    """Carry out in the referrer's account what an operator decided about one of their referrals."""
    turn.watch.decision(decision)
    referred = turn.books.referred(referee_id)
    if referred.voided:
        return

    lots = [lot for lot in _lots(turn) if referee_of(lot.order_id) == referee_id]
    if decision.action == "referral_release":
        referred.released = True
        release(turn, lots, decision.occurred_at)
        return

    referred.voided = True
    undoing = _claim_all(turn, lots, decision.occurred_at)
    undoing.void(referee_id)
    undoing.finish()
    _record(turn, "referral.voided", referee_id, decision.occurred_at, _reason_of_void(decision))


def moderate_own(turn: Turn, decision: Decision) -> None:
    """Carry out in the referee's account what an operator decided about their referral."""
    referral, at_ms = turn.state.referral, decision.occurred_at
    if referral is None:
        turn.refuse("not_referred", at_ms, unit="referral")
    elif referral.voided:
        turn.refuse("already_voided", at_ms, unit="referral", item=referral.referrer_id)
    elif decision.action == "referral_void":
        referral.voided = True
        _claim_all(turn, _own_side(turn), at_ms).finish()
    elif referral.flagged:
        referral.flagged = False
        release(turn, _own_side(turn), at_ms)
        _record(turn, "referral.attributed", referral.referrer_id, at_ms, "released")
    else:
        turn.refuse("not_flagged", at_ms, unit="referral", item=referral.referrer_id)


def _own_side(turn: Turn) -> list[Lot]:
    """Return the lots that rules on the member's referrer gave: the referee's side of the referral."""
    return [
        lot
        for lot in _lots(turn)
        if lot.rule_id is not None
        and lot.rule_id in flagged.rules_on_referrer(turn.books.judge(lot.version or 0).programme)
    ]


def _lots(turn: Turn) -> list[Lot]:
    """Return the member's lots, except those that a ledger may have dropped."""
    return remembered(turn.lots(), turn.books.parts(), turn.state.clock_ms, turn.books.judge)


def _claim_all(turn: Turn, lots: Iterable[Lot], at_ms: int) -> Undoing:
    """Claim back some lots, less what was claimed before; the rewards of a level go only with the level."""
    undoing = Undoing(turn, Cause(at_ms, "referral_void"))
    by_order: dict[tuple[str | None, int], list[Lot]] = {}
    for lot in lots:
        by_order.setdefault((lot.order_id, lot.version or 0), []).append(lot)
    for (order_id, version), group in by_order.items():
        claimed = not_of_levels(group, turn.books.judge(version).programme)
        undoing.claim(claimed, _at_grant(turn, order_id, group[0]))
    return undoing


def _at_grant(turn: Turn, order_id: str | None, lot: Lot) -> Facts:
    """Return the facts that a lot was granted on, as far as the rule's limits may ask for them."""
    judged = None if order_id is None else judged_by_name(turn, order_id, lot.version or 0, lot.granted_ms)
    if judged is not None:
        return judged.bought
    event = MemberEvent(event_id="", member_id=turn.member_id, occurred_at=lot.granted_ms)
    return Facts.before(event, turn.state, turn.calendar)


def _record(turn: Turn, kind: str, item: str | None, at_ms: int, reason: str | None) -> None:
    posting = posting_of(kind, "referral", NO_ACCOUNTS, Source(version=turn.judge.version), item=item, reason=reason)
    key = completion_key(turn.occurrence.identity, kind, turn.member_id)
    turn.rewards.append(RewardEvent(posting, 1, key, at_ms))


def release(turn: Turn, lots: Iterable[Lot], at_ms: int) -> None:
    """Let held-back lots become available at an instant, or at the end of their rule's own hold if that is later."""
    for lot in lots:
        if not lot.pending or lot.available_ms != flagged.UNTIL_RELEASED_MS:
            continue

        # the hold runs from the grant, as if nothing had been held back
        programme = turn.books.judge(lot.version or 0).programme
        calendar = calendar_of(programme.timezone)
        give = next(rule.gives[lot.give] for rule in programme.rules if rule.id == lot.rule_id)
        hold_ms = lot.granted_ms if give.hold is None else calendar.after(lot.granted_ms, give.hold)
        lot.available_ms = max(hold_ms, at_ms)

        # validity runs from the release
        if give.lasts is not None:
            lot.expires_ms = calendar.after(lot.available_ms, give.lasts)
        elif give.validity is not None:
            lot.expires_ms = Expiry(calendar, give.validity, programme.terms.points.round_expiry)(lot.available_ms)
        turn.reschedule(lot)
