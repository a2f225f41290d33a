"""Claim awards back, and give the limits back what they had counted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.ranks import Decrease
from engine.programme.occasions import TierChange
from engine.programme.rules.returned import Reversed, return_to_limits
from engine.programme.terms import Negative
from schemas.rewards import ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Programme


class Cause(NamedTuple):
    """Say when something is taken back, and the reason that the log gives."""

    at_ms: int
    reason: str


def claim_back(
    turn: Turn, lots: Iterable[Lot], earned: Mapping[bytes, int], bought: Facts, cause: Cause
) -> list[Decrease]:
    """Claim back the part of lots that is not earned any more, and return the decreases of the member's status.

    Args:
        turn: the turn of the event that claims.
        lots: lots of one version of the programme, in the order of granting.
        earned: how much of each lot is still earned, by key; 0 where it is missing.
        bought: the facts that they were awarded on.
        cause: when and why.
    """
    status: list[Decrease] = []
    for group in _by_judging(lots):
        programme = turn.books.judge(group[0].version or 0).programme
        amounts: dict[str, int] = {}

        # claim each lot down to what is earned
        for lot in group:
            turn.watch.weighed(lot, earned.get(lot.key, 0), lot.claimed)
            claim = lot.amount - earned.get(lot.key, 0) - lot.claimed
            if claim > 0:
                taken = _take(turn, lot, claim, cause, programme.terms.refunds.negative)
                turn.watch.claimed(lot, claim, taken)
                lot.claimed, lot.taken = lot.claimed + claim, lot.taken + taken
                amounts[lot.unit] = amounts.get(lot.unit, 0) + taken
                if lot.unit == "status" and taken:
                    status.append(Decrease(taken, lot.granted_ms))

        _return_to_limits(turn, programme, group, bought, amounts)
    return status


def not_of_levels(lots: Iterable[Lot], programme: Programme) -> list[Lot]:
    """Return the lots of a version, except the rewards of a level: they go only with the level."""
    with_levels = {rule.id for rule in programme.rules if rule.on is TierChange}
    return [lot for lot in lots if lot.rule_id not in with_levels]


def _by_judging(lots: Iterable[Lot]) -> Iterator[list[Lot]]:
    """Yield groups of the lots that one rule gave at once: within a group the indexes of its gives rise."""
    groups: list[list[Lot]] = []
    latest: dict[str | None, list[Lot]] = {}
    for lot in lots:
        group = latest.get(lot.rule_id)
        if group is None or lot.give <= group[-1].give:
            group = latest[lot.rule_id] = []
            groups.append(group)
        group.append(lot)
    yield from groups


def _return_to_limits(
    turn: Turn, programme: Programme, group: list[Lot], bought: Facts, amounts: dict[str, int]
) -> None:
    """Give the claimed amounts back to a rule's limits, in the period of the grant."""
    rule = next((rule for rule in programme.rules if rule.id == group[0].rule_id), None)
    if rule is not None and rule.limits and any(amounts.values()):
        is_gone = all(lot.taken == lot.amount for lot in group)
        given = replace(bought, at_ms=group[0].granted_ms)
        undone = Reversed(rule, given, amounts, times=int(is_gone), window=turn.terms.refunds.window)
        return_to_limits(turn.state, turn.books, undone)


def _take(turn: Turn, lot: Lot, claim: int, cause: Cause, negative: Negative) -> int:
    """Take a claim on a lot as far as the programme allows, and return how much was taken.

    Args:
        turn: the turn of the event that claims.
        lot: the award.
        claim: how much of it is claimed back, in the lot's unit.
        cause: when and why.
        negative: how far the programme lets a balance fall; status is always taken whole.
    """
    at_ms, reason = cause
    if lot.unit in ITEM_UNITS:
        unused = min(claim, lot.active + lot.pending)
        if unused:
            turn.take_back(lot, unused, at_ms, reason)
        return unused

    # from the lot itself, then from other lots of its unit, then into debt
    is_status = lot.unit == "status"
    is_only_pending = negative is Negative.ONLY_PENDING and not is_status
    accounts = ("pending",) if is_only_pending else ("pending", "active", "expired")
    left = turn.reverse(lot, claim, at_ms, accounts, reason)
    if not is_only_pending:
        left = turn.reverse_active(lot.unit, left, at_ms, reason)
    if left and (negative is Negative.UNLIMITED or is_status):
        left -= turn.owe(lot, left, at_ms, reason)
    elif left:
        turn.refuse("forgiven", at_ms, left, lot.unit, order_id=lot.order_id)
    return claim - left
