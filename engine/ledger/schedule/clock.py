"""Move a member's clock: perform what is due up to an instant, in order of time and, at one instant, in a fixed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import ranks, redemptions
from engine.ledger.movements import ENDED
from engine.ledger.schedule import celebrations, versions
from engine.member.lots import ITEM_UNITS

if TYPE_CHECKING:
    from engine.ledger.turn import Turn


def perform_due(turn: Turn, until_ms: int) -> None:
    """Perform everything due at or before an instant, each by the version in force then.

    Afterwards the state says when something is due next.
    """
    state, judge = turn.state, turn.judge
    activations = versions.pending(turn)
    if activations:
        turn.judge_by(turn.books.judge(state.version))
    while True:
        next_ms = until_ms if state.due_ms is None else min(until_ms, state.due_ms)
        if activations and activations[0].at_ms < next_ms:
            activation = activations.pop(0)
            versions.follow(turn, activation, max(state.clock_ms, activation.at_ms))
            continue
        at_ms = state.due_ms
        if at_ms is None or at_ms > until_ms:
            break
        for step in STEPS:
            step(turn, at_ms)
        state.due_ms = next_due(turn)
        assert state.due_ms is None or state.due_ms > at_ms  # noqa: S101  or time would stand still
    if activations and (moves_ms := versions.moves_at(turn, activations)) is not None:
        state.note_due(moves_ms + 1)
    turn.judge_by(judge)


def next_due(turn: Turn) -> int | None:
    """Return the next instant at which something happens by itself, or None."""
    state = turn.state
    found = [turn.movements.agenda().next_ms(), redemptions.lapses_ms(turn)]
    found += [None if state.tier_state is None else state.tier_state.review_ms, state.birthday_ms, state.anniversary_ms]
    return min((each for each in found if each is not None), default=None)


def _release(turn: Turn, at_ms: int) -> None:
    """Release what is pending to the end of its hold; what is released settles a debt."""
    for lot in turn.movements.agenda().due(at_ms):
        if lot.pending and lot.item is None:
            turn.movements.move(lot, "released", lot.pending, at_ms)
        elif lot.pending:
            turn.movements.release_item(lot, at_ms)


def _expire(turn: Turn, at_ms: int) -> None:
    """Let lots lapse that nobody has spent in time; coupons, too."""
    for lot in turn.movements.agenda().due(at_ms):
        if lot.active and lot.item is None:
            turn.movements.move(lot, "expired", lot.active, at_ms)
        elif lot.active and lot.unit == "coupon":
            turn.movements.end_item(lot, ENDED["coupon"], lot.active, at_ms)


def _end_items(turn: Turn, at_ms: int) -> None:
    for lot in turn.movements.agenda().due(at_ms):
        if lot.active and lot.unit in ITEM_UNITS:
            turn.movements.end_item(lot, ENDED[lot.unit], lot.active, at_ms)


def _review(turn: Turn, at_ms: int) -> None:
    tier_state = turn.state.tier_state
    if tier_state is not None and tier_state.review_ms is not None and tier_state.review_ms <= at_ms:
        ranks.review(turn, at_ms)


STEPS = (_release, _expire, _end_items, redemptions.lapse, _review, celebrations.celebrate)
"""What happens at one instant, in this order; a release settles debt before anything expires."""
