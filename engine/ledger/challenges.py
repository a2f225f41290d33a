"""Run the rules on challenges: each runs when a member has completed the challenge of another rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.grants import run_rules
from engine.programme.occasions import ChallengeCompletion
from engine.programme.rules.awards import order_of

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.programme.rules.judge import Judge
    from schemas.events import MemberEvent, Profile
    from schemas.rewards import RewardEvent


def follow(turn: Turn, event: MemberEvent | Profile, first: int) -> None:
    """Run the rules on challenges for each completion among the turn's reward events from index `first` on."""
    order_id = order_of(event)  # type: ignore[arg-type]  # a profile has none
    completions = [reward for reward in turn.rewards[first:] if reward.posting.type == "challenge.completed"]
    for reward in completions:
        follow_one(turn, turn.judge, reward, event.occurred_at, order_id)


def follow_one(turn: Turn, judge: Judge, completed: RewardEvent, at_ms: int, order_id: str | None) -> None:
    """Run one version's rules on challenges for the completion that a reward event records."""
    event = ChallengeCompletion(
        event_id=completed.reward_key.hex(), member_id=turn.member_id, occurred_at=at_ms,
        rule=completed.posting.rule_id or "", order_id=order_id,
    )  # fmt: skip
    run_rules(turn, event, completed.reward_key, judge)
