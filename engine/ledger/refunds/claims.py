"""Claim back what was awarded, and give it back to the limits that counted it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.member.lots import ITEM_UNITS
from engine.programme.occasions import TierChange
from engine.programme.rules.returned import Reversed, return_to_limits
from engine.programme.terms import Negative

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Programme


def claim_back(
    turn: Turn, lots: Iterable[Lot], earned: Mapping[bytes, int], bought: Facts, how: tuple[int, str]
) -> list[tuple[int, int]]:
    """Claim what lots have that is not earned any more, and return the status that was taken, and when it counted.

    Args:
        turn: of the event that claims.
        lots: of one version of the programme, in the order of granting.
        earned: what of each lot is still earned, by key; 0 where it is missing.
        bought: the facts by which they were awarded.
        how: when, and the reason that the log gives.
    """
    status: list[tuple[int, int]] = []
    for own in _judgings(lots):
        programme = turn.books.judge(own[0].version or 0).programme
        amounts: dict[str, int] = {}
        for lot in own:
            turn.watch.weighed(lot, earned.get(lot.key, 0), lot.claimed)
            claim = lot.amount - earned.get(lot.key, 0) - lot.claimed
            if claim > 0:
                taken = _take(turn, lot, claim, how, programme.terms.refunds.negative)
                turn.watch.claimed(lot, claim, taken)
                lot.claimed, lot.taken = lot.claimed + claim, lot.taken + taken
                amounts[lot.unit] = amounts.get(lot.unit, 0) + taken
                if lot.unit == "status" and taken:
                    status.append((taken, lot.granted_ms))
        _return_to_limits(turn, programme, own, bought, amounts)
    return status


def not_of_levels(lots: Iterable[Lot], programme: Programme) -> list[Lot]:
    """Return the lots of a version but those that came with a level: they go with the level."""
    with_levels = {rule.id for rule in programme.rules if rule.on is TierChange}
    return [lot for lot in lots if lot.rule_id not in with_levels]


def _judgings(lots: Iterable[Lot]) -> Iterator[list[Lot]]:
    """Yield the lots that a rule gave at once: its gives come in order."""
    groups: list[list[Lot]] = []
    latest: dict[str | None, list[Lot]] = {}
    for lot in lots:
        group = latest.get(lot.rule_id)
        if group is None or lot.give <= group[-1].give:
            group = latest[lot.rule_id] = []
            groups.append(group)
        group.append(lot)
    yield from groups


def _return_to_limits(turn: Turn, programme: Programme, own: list[Lot], bought: Facts, amounts: dict[str, int]) -> None:
    """Give back to a rule's limits what was taken now, in the period in which it was given."""
    rule = next((rule for rule in programme.rules if rule.id == own[0].rule_id), None)
    if rule is not None and rule.limits and any(amounts.values()):
        is_gone = all(lot.taken == lot.amount for lot in own)
        given = replace(bought, at_ms=own[0].granted_ms)
        undone = Reversed(rule, given, amounts, times=int(is_gone), window=turn.terms.refunds.window)
        return_to_limits(turn.state, turn.books, undone)


def _take(turn: Turn, lot: Lot, claim: int, how: tuple[int, str], negative: Negative) -> int:
    """Take a claim on a lot as far as the programme lets it, and return how much was taken.

    Args:
        turn: of the event that claims.
        lot: what was awarded.
        claim: how much of it is asked back, in the lot's unit.
        how: when, and the reason that the log gives.
        negative: how far the programme lets a balance fall.
    """
    at_ms, reason = how
    if lot.unit in ITEM_UNITS:
        held = min(claim, lot.active + lot.pending)
        if held:
            turn.take_back(lot, held, at_ms, reason)
        return held
    accounts = ("pending",) if negative is Negative.ONLY_PENDING else ("pending", "active", "expired")
    if lot.unit == "status":
        accounts = ("pending", "active", "expired")
    left = turn.movements.reverse(lot, claim, at_ms, accounts, reason)
    if negative is not Negative.ONLY_PENDING or lot.unit == "status":
        left = turn.movements.reverse_active(lot.unit, left, at_ms, reason)
    if left and (negative is Negative.UNLIMITED or lot.unit == "status"):
        left -= turn.owe(lot, left, at_ms, reason)
    elif left:
        turn.refuse("forgiven", at_ms, left, lot.unit, None, lot.order_id)
    return claim - left
