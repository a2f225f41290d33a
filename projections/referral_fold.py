"""Fold reward events into who referred whom in memory, as `projections.referrals` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.intake.own_events import Attribution
    from schemas.rewards import RewardEvent

    Place = tuple[int, int]

RELEASED = "released"
"""The reason of the second `referral.attributed` of a referral, which an operator has released."""


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


class _Told(NamedTuple):
    place: tuple[int, int]
    member_id: str
    reward: RewardEvent


def fold_referrals(
    rows: Iterable[tuple[Place, str, RewardEvent]], attributions: Mapping[Place, Attribution]
) -> list[ReferralRow]:
    """Return what became of every signup that asked for a referral, after all of `rows`, by referee.

    What the referrer's account tells may come before what the referee's does: the shards have no order among them.

    Args:
        rows: (shard and seq, member_id, event).
        attributions: what was decided, by the place of the source event.
    """
    told = [_Told(*row) for row in rows if row[2].posting.type.startswith("referral.")]
    rejected = [_row(each, attributions) for each in told if each.reward.posting.type == "referral.rejected"]
    attributed: dict[str, ReferralRow] = {}
    for each in told:
        if each.reward.posting.type == "referral.attributed":
            if each.reward.posting.reason == RELEASED:
                row = attributed[each.member_id]
                row.status, row.reason = "attributed", None
            else:
                attributed[each.member_id] = _row(each, attributions)
    for each in told:
        referee = attributed.get(each.reward.posting.item or "")
        if referee is not None and each.reward.posting.type == "referral.qualified":
            referee.qualified_at_ms = each.reward.occurred_at_ms
            referee.status = "qualified" if referee.status == "attributed" else referee.status
        elif referee is not None and each.reward.posting.type == "referral.voided":
            referee.status, referee.reason = "voided", each.reward.posting.reason or referee.reason
    return sorted((*rejected, *attributed.values()), key=lambda row: row.referee_id)


def _row(told: _Told, attributions: Mapping[Place, Attribution]) -> ReferralRow:
    posting = told.reward.posting
    decided = attributions.get(told.place)
    is_rejected = posting.type == "referral.rejected"
    status = "rejected" if is_rejected else "attributed" if posting.reason is None else "flagged"
    attributed_ms = None if is_rejected else told.reward.occurred_at_ms
    if decided is None:
        return ReferralRow(told.member_id, posting.item, None, None, status, posting.reason, attributed_ms)
    known = (decided.referrer_id, decided.code, decided.channel)
    return ReferralRow(told.member_id, *known, status, posting.reason, attributed_ms)
