"""Explain the decisions of a simulation, event by event, where that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.explain.event import Explainer
from engine.explain.tier import explain_tier
from engine.intake.own_events import Attribution, Forwarded
from engine.ledger.adjustments import Adjustment
from engine.ledger.movements import is_grant
from engine.ledger.ranks import report_of
from operations.simulate.outcome import Explained
from schemas.events import TYPE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.member.state import MemberState
    from schemas.rewards import RewardEvent

BY_ITSELF = ("tick", "contest", "attribution")
"""Kinds of steps that are explained only where they brought something."""

_OWN_NAMES = {Attribution: "attribution", Forwarded: "forwarded", Adjustment: "adjustment"}


class Heading(NamedTuple):
    """Name an explanation: by the event, or by the tick or contest that brought a member something."""

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
    """Put the explanation of each step together; where the judge does not explain, there is none.

    Args:
        explained: gets the explanations, in the order of judging.
    """

    def __init__(self, explained: list[Explained]) -> None:
        self._explained = explained
        self._came: dict[bytes, str] = {}
        self._explainers: list[Explainer] = []

    def begin(self, judges: Iterable[Any]) -> None:
        """Begin a step: one of the judges will judge it, and others may judge what is due on the way."""
        self._explainers = [judge for judge in judges if isinstance(judge, Explainer)]
        for explainer in self._explainers:
            explainer.begin()

    def tell(self, judge: Any, heading: Heading, state: MemberState, rewards: Sequence[RewardEvent]) -> None:
        """Explain the step, now that it is judged; a tick or a contest only where it brought something."""
        if not isinstance(judge, Explainer) or not (rewards or heading.kind not in BY_ITSELF):
            return
        judge.explained = [rule for explainer in self._explainers for rule in explainer.explained]
        tier = explain_tier(judge.programme, report_of(judge, state))
        account = judge.account(rewards, self._came)
        self._explained.append(Explained(*heading, judge.version, judge.explained, account, tier))
        note_lots(self._came, heading.event_id, rewards)


def note_lots(came: dict[bytes, str], event_id: str, rewards: Iterable[RewardEvent]) -> None:
    """Note the lots that an event has brought."""
    for reward in rewards:
        if reward.lot is None and is_grant(reward.posting):
            came[reward.reward_key] = event_id
