"""Fold reward events into the changes of tiers in memory, as `projections.tiers` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.rewards import RewardEvent


class TierChange(NamedTuple):
    """Hold a row of the view `reward.tier_history`; times in ms since 1970."""

    member_id: str
    tier: str
    previous: str | None
    reason: str | None
    occurred_at_ms: int
    recorded_at_ms: int


def fold_tier_changes(rows: Iterable[tuple[str, RewardEvent, int, str | None]]) -> list[TierChange]:
    """Return every change of a tier with the tier before it, in the order of `rows`.

    Args:
        rows: member_id, the event, when it was recorded (ms), and the lowest level of the programme version that judged
            it, where every member begins without an event.
    """
    tiers: dict[str, str] = {}
    changes: list[TierChange] = []
    for member_id, reward, recorded_at_ms, lowest in rows:
        posting = reward.posting
        if posting.type != "tier.changed" or posting.item is None:
            continue

        previous = tiers.get(member_id, lowest)
        tiers[member_id] = posting.item
        changes.append(
            TierChange(
                member_id=member_id,
                tier=posting.item,
                previous=previous,
                reason=posting.reason,
                occurred_at_ms=reward.occurred_at_ms,
                recorded_at_ms=recorded_at_ms,
            )
        )
    return changes
