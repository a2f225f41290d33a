"""Fold reward events into referrals in memory, as `projections.referrals` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.intake.own_events import Attribution
    from schemas.rewards import RewardEvent

    Place = tuple[int, int]

RELEASED = "released"
"""The reason of the second `referral.attributed` of a referral that an operator has released."""


class ReferralRow(Struct):
    """Hold a row of the view `reward.referral`; times in ms since 1970."""

    referee_id: str
    referrer_id: str | None
    code: str | None
    channel: str | None
    status: str
    reason: str | None
    attributed_at_ms: int | None = None
    qualified_at_ms: int | None = None


class _Entry(NamedTuple):
    """Hold a reward event about a referral; `place` is the shard and seq of its source event."""

    place: Place
    member_id: str
    reward: RewardEvent


def fold_referrals(
    rows: Iterable[tuple[Place, str, RewardEvent]], attributions: Mapping[Place, Attribution]
) -> list[ReferralRow]:
    """Return every signup that asked for a referral with its status after all `rows`, ordered by referee.

    Shards have no order among them, so the referrer's events may come before the referee's.

    Args:
        rows: (shard and seq, member_id, event).
        attributions: the decisions, by shard and seq of the source event.
    """
    # the referee's events: rejected, attributed, released by an operator
    entries = [_Entry(*row) for row in rows if row[2].posting.type.startswith("referral.")]
    rejected = [_row(each, attributions) for each in entries if each.reward.posting.type == "referral.rejected"]
    attributed: dict[str, ReferralRow] = {}
    for each in entries:
        if each.reward.posting.type == "referral.attributed":
            if each.reward.posting.reason == RELEASED:
                row = attributed[each.member_id]
                row.status, row.reason = "attributed", None
            else:
                attributed[each.member_id] = _row(each, attributions)

    # the referrer's events: qualified, voided
    for each in entries:
        referee = attributed.get(each.reward.posting.item or "")
        if referee is not None and each.reward.posting.type == "referral.qualified":
            referee.qualified_at_ms = each.reward.occurred_at_ms
            referee.status = "qualified" if referee.status == "attributed" else referee.status
        elif referee is not None and each.reward.posting.type == "referral.voided":
            referee.status, referee.reason = "voided", each.reward.posting.reason or referee.reason

    return sorted((*rejected, *attributed.values()), key=lambda row: row.referee_id)


def _row(entry: _Entry, attributions: Mapping[Place, Attribution]) -> ReferralRow:
    """Return the row of a rejected or attributed referral; only the decision knows the code and the channel."""
    posting = entry.reward.posting
    decision = attributions.get(entry.place)
    is_rejected = posting.type == "referral.rejected"
    return ReferralRow(
        referee_id=entry.member_id,
        referrer_id=posting.item if decision is None else decision.referrer_id,
        code=None if decision is None else decision.code,
        channel=None if decision is None else decision.channel,
        status="rejected" if is_rejected else "attributed" if posting.reason is None else "flagged",
        reason=posting.reason,
        attributed_at_ms=None if is_rejected else entry.reward.occurred_at_ms,
    )
