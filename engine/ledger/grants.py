"""Run the rules on an event, and open the lots that they grant; rewards of a flagged referral are held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import flagged
from engine.programme.rules.occurrence import Occurrence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger.turn import Turn
    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge
    from schemas.events import Event
    from schemas.rewards import RewardEvent


def run_rules(turn: Turn, event: Event, identity: bytes, judge: Judge | None = None) -> None:
    """Judge an event under an identity, and open what it gives.

    Args:
        turn: the turn of the source event under way.
        event: the source event itself, or an occasion that the log does not hold, such as a birthday.
        identity: the keys of the rewards are made from it.
        judge: the version that judges; None: the version in force.
    """
    judge, here = judge or turn.judge, turn.occurrence
    given = judge.rewards_for(event, turn.state, Occurrence(identity, here.seq, here.recorded_at_ms, here.books))
    if given:
        open_granted(turn, given, judge.programme)


def open_granted(turn: Turn, given: Sequence[RewardEvent], programme: Programme, *, is_held: bool = False) -> None:
    """Open what a version gave.

    While the member's own referral is flagged, the rules that test the referrer give nothing that can be spent yet.
    With `is_held` everything is held back.
    """
    referral = turn.state.referral
    if is_held:
        given = flagged.held_back(given)
    elif referral is not None and referral.flagged and not referral.voided:
        given = flagged.held_back(given, flagged.rules_on_referrer(programme))
    turn.open(given)
    if is_held or (referral is not None and referral.flagged):
        # judging has noted held-back badges as the member's already
        flagged.forget_possessions(turn, given)
