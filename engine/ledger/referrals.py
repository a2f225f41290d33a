"""Carry out what comes of referrals: who referred whom, what referees do, and what operators decide about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from engine.intake.own_events import Attribution, Forwarded
from engine.ledger import challenges, flagged
from engine.ledger.forget import at_hand, note_order
from engine.ledger.movements import posting_of
from engine.ledger.refunds.claims import not_of_levels
from engine.ledger.refunds.judged import judged_by_name, referral_event
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
    amount = did.amount if isinstance(did, Purchase) else None
    known = ReferralFacts(
        event.number, event.spend, event.signup_ms, event.channel, event.referee, _name_of(did), amount,
        (did.event_id, did.source), event.flagged,
    )  # fmt: skip
    head = (did.event_id, did.source, turn.member_id, event.occurred_at)
    judged = referral_event(known, head, (known.event, key), amount, event.spend)
    first = len(turn.rewards)
    given = turn.judge.rewards_for(judged, turn.state, turn.occurrence)
    is_earning = any(flagged.is_grant(reward) for reward in given)
    if event.flagged and is_earning:
        given = flagged.held_back(given)
    turn.movements.open(given)
    flagged.forget_held(turn.state, turn.movements, given)
    name = name_of(judged) or key
    if name in turn.state.orders or (isinstance(did, Purchase) and is_earning):
        turn.state.orders.setdefault(name, OrderFacts()).referral = known
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
        _claim_all(turn, _own_side(turn), at_ms).finish()
    elif referral.flagged:
        referral.flagged = False
        release(turn, _own_side(turn), at_ms)
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


def _claim_all(turn: Turn, lots: Iterable[Lot], at_ms: int) -> Undoing:
    """Claim all that some lots have given, less what was claimed before; what came with a level goes with the level."""
    undoing = Undoing(turn, at_ms, "referral_void")
    by_order: dict[tuple[str | None, int], list[Lot]] = {}
    for lot in lots:
        by_order.setdefault((lot.order_id, lot.version or 0), []).append(lot)
    for (order_id, version), own in by_order.items():
        claimed = not_of_levels(own, turn.books.judge(version).programme)
        undoing.claim(claimed, _at_grant(turn, order_id, own[0]))
    return undoing


def _at_grant(turn: Turn, order_id: str | None, lot: Lot) -> Facts:
    """Return the facts that a rule gave a lot by, as far as its limits may ask for them."""
    judged = None if order_id is None else judged_by_name(turn, order_id, lot.version or 0, lot.granted_ms)
    if judged is not None:
        return judged.bought
    event = MemberEvent(event_id="", member_id=turn.member_id, occurred_at=lot.granted_ms)
    return Facts.before(event, turn.state, turn.calendar)


def _tell(turn: Turn, kind: str, item: str | None, at_ms: int, reason: str | None) -> None:
    posting = posting_of(kind, "referral", (None, None), (None, turn.judge.version, None), item, reason)
    key = completion_key(turn.occurrence.identity, kind, turn.member_id)
    turn.rewards.append(RewardEvent(posting, 1, key, at_ms))


def release(turn: Turn, lots: Iterable[Lot], at_ms: int) -> None:
    """Let lots that were held back become available at the later of their hold's end and an instant."""
    for lot in lots:
        if not lot.pending or lot.available_ms != flagged.UNTIL_RELEASED_MS:
            continue
        programme = turn.books.judge(lot.version or 0).programme
        calendar = calendar_of(programme.timezone)
        give = next(rule.gives[lot.give] for rule in programme.rules if rule.id == lot.rule_id)
        hold_ms = lot.granted_ms if give.hold is None else calendar.after(lot.granted_ms, give.hold)
        lot.available_ms = max(hold_ms, at_ms)
        if give.lasts is not None:
            lot.expires_ms = calendar.after(lot.available_ms, give.lasts)
        elif give.validity is not None:
            lot.expires_ms = Expiry(calendar, give.validity, programme.terms.points.round_expiry)(lot.available_ms)
        turn.movements.reschedule(lot)
