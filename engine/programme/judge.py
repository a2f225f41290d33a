"""Say what a judged programme version can do, whether it is compiled or interpreted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.state import MemberState, Occurrence
    from schemas.events import Event
    from schemas.rewards import RewardEvent


class Judges(Protocol):
    """Judge events by one programme version."""

    def judge(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member, and count it in `state`."""
        ...
