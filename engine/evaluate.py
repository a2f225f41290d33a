"""Evaluate: fold one event into its member's state, a pure function of the recorded order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.events import INT64_MAX, Erasure, Signup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.judge import Judges
    from engine.state import MemberState, Occurrence
    from schemas.events import Event
    from schemas.rewards import RewardEvent


def fold(state: MemberState, event: Event, occurrence: Occurrence, judge: Judges) -> Sequence[RewardEvent]:
    """Move the member's clock to the event, never back, and return what the event gives; changes `state` in place."""
    if event.occurred_at > state.clock_ms:  # noqa: PLR1730  max() takes a third of the time of a fold without rules
        state.clock_ms = event.occurred_at
    kind = type(event)
    if kind is Erasure:
        state.erased = True
    rewards = judge.judge(event, state, occurrence)
    if rewards and state.available > INT64_MAX:
        state.available = INT64_MAX
    if kind is Signup and state.signup_ms is None:
        state.signup_ms = event.occurred_at  # afterwards: rules read the member as they were before the event
    return rewards
