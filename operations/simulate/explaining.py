"""Explain what a simulation judges, event by event, where it was asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.explain.event import Explainer
from engine.explain.tier import explain_tier
from engine.intake.own_events import Attribution, Forwarded
from engine.ledger.adjustments import Adjustment
from engine.ledger.flagged import is_grant
from engine.ledger.ranks import report_of
from operations.simulate.outcome import Explained
from schemas.events import TYPE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.member.state import MemberState
    from schemas.rewards import RewardEvent

BY_ITSELF = ("tick", "contest", "attribution")
"""What is told of only where it brought something."""

_OWN_NAMES = {Attribution: "attribution", Forwarded: "forwarded", Adjustment: "adjustment"}


class Heading(NamedTuple):
    """Name what is explained: an event, or what time or a contest brings a member by itself."""

    event_id: str
    source: str
    kind: str
    member_id: str | None
    occurred_ms: int


def heading_of(event: Any) -> Heading:
    """Return the heading of an event."""
    kind = next((name for each, name in _OWN_NAMES.items() if isinstance(event, each)), None)
    kind = kind or TYPE_NAMES[type(event)]
    return Heading(event.event_id, event.source, kind, getattr(event, "member_id", None), event.occurred_at)


class Explaining:
    """Put together what is told of each event; where the judge does not explain, nothing is.

    Args:
        told: gets what is told, in the order of judging.
    """

    def __init__(self, told: list[Explained]) -> None:
        self._told = told
        self._came: dict[bytes, str] = {}
        self._explainers: list[Explainer] = []

    def begin(self, judges: Iterable[Any]) -> None:
        """Begin with an event, or with a member whose clock moves: one of the judges, or on the way others, may act."""
        self._explainers = [judge for judge in judges if isinstance(judge, Explainer)]
        for explainer in self._explainers:
            explainer.begin()

    def tell(self, judge: Any, heading: Heading, state: MemberState, rewards: Sequence[RewardEvent]) -> None:
        """Tell of what was begun, now that it is judged; of what comes by itself only where it brought something."""
        if not isinstance(judge, Explainer) or not (rewards or heading.kind not in BY_ITSELF):
            return
        judge.explained = [told for explainer in self._explainers for told in explainer.explained]
        tier = explain_tier(judge.programme, report_of(judge, state))
        account = judge.account(rewards, self._came)
        self._told.append(Explained(*heading, judge.version, judge.explained, account, tier))
        note_lots(self._came, heading.event_id, rewards)


def note_lots(came: dict[bytes, str], event_id: str, rewards: Iterable[RewardEvent]) -> None:
    """Take note which lots an event has brought."""
    for reward in rewards:
        if reward.lot is None and is_grant(reward):
            came[reward.reward_key] = event_id
