"""Move a member's clock: perform what is due up to an instant, by time, and in a fixed order at one instant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import ranks, redemptions
from engine.ledger.movements import ENDED
from engine.ledger.schedule import celebrations, versions
from schemas.rewards import ITEM_UNITS

if TYPE_CHECKING:
    from engine.ledger.turn import Turn


def perform_due(turn: Turn, until_ms: int) -> None:
    """Perform everything due at or before an instant, each by the version in force at its time.

    Afterwards the state says when something is due next.
    """
    # begin with the version that the member follows
    state, judge = turn.state, turn.judge
    activations = versions.pending(turn)
    if activations:
        turn.judge_by(turn.books.judge(state.version))

    # every round passes an activation or moves on to a later due instant
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
        assert state.due_ms is None or state.due_ms > at_ms  # else time would stand still

    # an activation that moves schedules is itself due, right after its instant
    if activations and (moves_ms := versions.moves_at(turn, activations)) is not None:
        state.note_due(moves_ms + 1)
    turn.judge_by(judge)


def next_due(turn: Turn) -> int | None:
    """Return the next instant at which something happens by itself, or None."""
    state = turn.state
    review_ms = None if state.tier_state is None else state.tier_state.review_ms
    candidates = (
        turn.agenda().next_ms(), redemptions.lapses_ms(turn), review_ms, state.birthday_ms, state.anniversary_ms,
    )  # fmt: skip
    return min((each for each in candidates if each is not None), default=None)


def _release(turn: Turn, at_ms: int) -> None:
    """Release lots whose hold ends; the released amount settles a debt."""
    for lot in turn.agenda().due(at_ms):
        if lot.pending and lot.item is None:
            turn.move(lot, "released", lot.pending, at_ms)
        elif lot.pending:
            turn.release_item(lot, at_ms)


def _expire(turn: Turn, at_ms: int) -> None:
    """Let unspent lots and unused coupons expire."""
    for lot in turn.agenda().due(at_ms):
        if lot.active and lot.item is None:
            turn.move(lot, "expired", lot.active, at_ms)
        elif lot.active and lot.unit == "coupon":
            turn.end_item(lot, ENDED["coupon"], lot.active, at_ms)


def _end_items(turn: Turn, at_ms: int) -> None:
    """End the items that last no longer."""
    for lot in turn.agenda().due(at_ms):
        if lot.active and lot.unit in ITEM_UNITS:
            turn.end_item(lot, ENDED[lot.unit], lot.active, at_ms)


def _review(turn: Turn, at_ms: int) -> None:
    tier_state = turn.state.tier_state
    if tier_state is not None and tier_state.review_ms is not None and tier_state.review_ms <= at_ms:
        ranks.review(turn, at_ms)


STEPS = (_release, _expire, _end_items, redemptions.lapse, _review, celebrations.celebrate)
"""The steps at one instant, in this order: a release settles debt before anything expires."""
