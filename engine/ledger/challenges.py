"""Judge the rules on challenges: each runs when a member has completed the challenge of another rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.frozen import keep_reaction
from engine.programme.occasions import ChallengeCompletion

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from schemas.events import MemberEvent, Profile


def follow(turn: Turn, event: MemberEvent | Profile, first: int) -> None:
    """Judge the rules on the challenges that the reward events from `first` on say are completed."""
    order_id: str | None = getattr(event, "order_id", None)
    completed = [reward for reward in turn.rewards[first:] if reward.posting.type == "challenge.completed"]
    for reward in completed:
        rule_id, begun = reward.posting.rule_id or "", len(turn.rewards)
        completion = ChallengeCompletion(
            event_id=reward.reward_key.hex(), member_id=turn.member_id, occurred_at=event.occurred_at, rule=rule_id,
            order_id=order_id,
        )  # fmt: skip
        turn.run_rules(completion, reward.reward_key)
        for given in turn.rewards[begun:]:
            if given.posting.rule_id is not None:
                keep_reaction(turn.state, order_id, given.posting.rule_id, rule_id)
