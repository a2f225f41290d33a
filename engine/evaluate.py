"""Evaluate: fold one event into its member's state, a pure function of the recorded order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.profile import profile_after
from schemas.events import INT64_MAX, Erasure, Profile, Signup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.judge import Judges
    from engine.state import MemberState, Occurrence
    from schemas.events import Event
    from schemas.rewards import RewardEvent


def fold(state: MemberState, event: Event, occurrence: Occurrence, judge: Judges) -> Sequence[RewardEvent]:
    """Move the member's clock to the event, never back, and return what the event gives; changes `state` in place."""
    state.clock_ms = max(state.clock_ms, event.occurred_at)
    kind = type(event)
    if kind is Erasure:
        state.erased = True
        state.profile = None
    rewards = judge.judge(event, state, occurrence)
    if rewards and state.available > INT64_MAX:
        state.available = INT64_MAX
    if kind is Signup or kind is Profile:
        _enter(state, event)  # type: ignore[arg-type]  # afterwards: rules read the member as they were before the event
    return rewards


def _enter(state: MemberState, event: Signup | Profile) -> None:
    """Take in what a signup or a profile tells of the member."""
    if type(event) is Signup and state.signup_ms is None:
        state.signup_ms = event.occurred_at
    state.profile = profile_after(state.profile, event)
