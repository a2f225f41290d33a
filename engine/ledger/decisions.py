"""Carry out corrections, by an operator or by a promotion, and opening balances from another system."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger import ranks, referrals
from engine.ledger.movements import GRANTED, Source, kind_of_unit, posting_of
from engine.ledger.refunds.claims import Cause
from engine.ledger.refunds.undoing import Undoing
from engine.member.lots import Lot
from schemas.canonical import grant_key
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from engine.ledger.adjustments import Adjustment
    from engine.ledger.turn import Turn
    from schemas.events import Decision


class _Addition(NamedTuple):
    """Name the unit and the amount that a correction adds, the reason that the log gives, when, and until when."""

    unit: str
    amount: int
    reason: str
    at_ms: int
    expires_ms: int | None


def decide(turn: Turn, event: Decision) -> None:
    """Carry out an operator's decision, or refuse it and say why."""
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
    """Add or subtract the difference between a member's balances in two generations."""
    _adjust(turn, event, event.reason)


def _adjust(turn: Turn, event: Decision | Adjustment, reason: str, expires_ms: int | None = None) -> None:
    """Add a lot, or reverse active amounts; an amount that no lot covers becomes debt.

    An added lot of points expires like any other, unless `expires_ms` says when.
    """
    amount, unit = event.amount or 0, event.unit or "points"
    if not _is_unit(turn, unit):
        turn.refuse("unknown_unit", event.occurred_at, abs(amount), unit)
    elif not amount:
        turn.refuse("missing_amount", event.occurred_at, 0, unit)
    elif amount > 0:
        if expires_ms is None and unit == "points":
            expires_ms = turn.expiry_ms(event.occurred_at)
        _add(turn, _Addition(unit, amount, reason, event.occurred_at, expires_ms))
    else:
        at_ms = event.occurred_at
        left = turn.reverse_active(unit, -amount, at_ms, reason)
        turn.owe(_empty_lot(turn, unit, at_ms), left, at_ms, reason)

        # less status may be too little for the level
        if unit == "status":
            undoing = Undoing(turn, Cause(at_ms, reason))
            undoing.lose(-amount, at_ms)
            undoing.finish()


def _open(turn: Turn, event: Decision) -> None:
    """Open a member's account with their standing in another system: a balance, and a tier until its next review."""
    unit = event.unit or "points"
    if event.amount:
        if not _is_unit(turn, unit):
            turn.refuse("unknown_unit", event.occurred_at, abs(event.amount), unit)
            return
        if event.amount < 0:
            turn.refuse("out_of_range", event.occurred_at, -event.amount, unit)
            return
        _add(turn, _Addition(unit, event.amount, "opening", event.occurred_at, event.expires_at))
    if event.tier is not None:
        ranks.bring(turn, event.tier, event.occurred_at)


def _add(turn: Turn, addition: _Addition) -> None:
    unit, amount, reason, at_ms, expires_ms = addition
    if expires_ms is not None and expires_ms <= at_ms:
        turn.refuse("expired", at_ms, amount, unit)
        return
    source = Source(version=turn.judge.version)
    posting = posting_of(f"{kind_of_unit(unit)}.adjusted", unit, GRANTED, source, reason=reason)
    key = grant_key(turn.occurrence.identity, "", turn.member_id, 0)
    turn.open([RewardEvent(posting, amount, key, at_ms, available_at_ms=at_ms, expires_at_ms=expires_ms)])


def _is_unit(turn: Turn, unit: str) -> bool:
    return unit in ("points", "status", turn.judge.programme.currency)


def _empty_lot(turn: Turn, unit: str, at_ms: int) -> Lot:
    """Return an empty lot with the decision's key, under which the log can write a debt that no grant brought about."""
    return Lot(
        grant_key(turn.occurrence.identity, "", turn.member_id, 0), unit, amount=0, active=0, pending=0,
        granted_ms=at_ms, available_ms=at_ms, expires_ms=None, rule_id=None, version=turn.judge.version,
    )  # fmt: skip
