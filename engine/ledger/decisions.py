"""Carry out corrections, an operator's or a promotion's, and what a member brings from another system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import ranks, referrals
from engine.ledger.movements import kind_of_unit, posting_of
from engine.ledger.refunds.undoing import Undoing
from engine.member.lots import Lot
from schemas.canonical import grant_key
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from engine.ledger.adjustments import Adjustment
    from engine.ledger.turn import Turn
    from schemas.events import Decision, MemberEvent


def decide(turn: Turn, event: Decision) -> None:
    """Carry a decision out, or refuse it and say why."""
    turn.watch.decision(event)
    if event.action == "adjust":
        _adjust(turn, event, "adjusted", event.expires_at)
    elif event.action == "opening" and turn.state.first_ms is None:
        _open(turn, event)
    elif event.action in ("referral_release", "referral_void"):
        referrals.moderate_own(turn, event)
    elif event.action == "opening":
        turn.refuse("not_first", event.occurred_at, abs(event.amount or 0), event.unit or "points")


def adjust(turn: Turn, event: Adjustment) -> None:
    """Let a member have what another generation gives them, whatever brought that about there."""
    _adjust(turn, event, event.reason)


def _adjust(turn: Turn, event: Decision | Adjustment, reason: str, expires_ms: int | None = None) -> None:
    """Add a lot that lasts as long as any, or take from what is active; what no lot covers becomes debt."""
    amount, unit = event.amount or 0, event.unit or "points"
    if not _is_unit(turn, unit):
        turn.refuse("unknown_unit", event.occurred_at, abs(amount), unit)
    elif not amount:
        turn.refuse("missing_amount", event.occurred_at, 0, unit)
    elif amount > 0:
        if expires_ms is None and unit == "points":
            expires_ms = turn.expiry_ms(event.occurred_at)
        _add(turn, event, (unit, amount, reason), expires_ms)
    else:
        at_ms = event.occurred_at
        left = turn.movements.reverse_active(unit, -amount, at_ms, reason)
        turn.owe(_lot_of_nothing(turn, unit, at_ms), left, at_ms, reason)
        if unit == "status":
            undoing = Undoing(turn, at_ms, reason)
            undoing.lose(-amount, at_ms)
            undoing.finish()


def _open(turn: Turn, event: Decision) -> None:
    """Bring a member over: points with their expiry, and the tier until its next review."""
    unit = event.unit or "points"
    if event.amount:
        if not _is_unit(turn, unit):
            turn.refuse("unknown_unit", event.occurred_at, abs(event.amount), unit)
            return
        if event.amount < 0:
            turn.refuse("out_of_range", event.occurred_at, -event.amount, unit)
            return
        _add(turn, event, (unit, event.amount, "opening"), event.expires_at)
    if event.tier is not None:
        ranks.bring(turn, event.tier, event.occurred_at)


def _add(turn: Turn, event: MemberEvent, what: tuple[str, int, str], expires_ms: int | None) -> None:
    """Open a lot; `what` is the unit, the amount and the reason."""
    (unit, amount, reason), at_ms = what, event.occurred_at
    if expires_ms is not None and expires_ms <= at_ms:
        turn.refuse("expired", at_ms, amount, unit)
        return
    rule = (None, turn.judge.version, None)
    posting = posting_of(f"{kind_of_unit(unit)}.adjusted", unit, ("issued", "active"), rule, None, reason)
    key = grant_key(turn.occurrence.identity, "", turn.member_id, 0)
    turn.movements.open([RewardEvent(posting, amount, key, at_ms, None, None, at_ms, expires_ms)])


def _is_unit(turn: Turn, unit: str) -> bool:
    return unit in ("points", "status", turn.judge.programme.currency)


def _lot_of_nothing(turn: Turn, unit: str, at_ms: int) -> Lot:
    """Return what a debt is written under that no grant brought about: it is named by the decision."""
    key = grant_key(turn.occurrence.identity, "", turn.member_id, 0)
    return Lot(key, unit, 0, 0, 0, at_ms, at_ms, None, None, turn.judge.version)
