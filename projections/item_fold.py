"""Fold reward events into what members hold in memory, as `projections.items` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from schemas.rewards import ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.rewards import RewardEvent

_STATUS = {"released": "active", "used": "used", "revoked": "revoked", "expired": "expired"}


class HeldItem(Struct, frozen=True):
    """Hold a row of the view `reward.member_reward`; times in ms since 1970."""

    member_id: str
    unit: str
    item: str
    amount: int
    status: str
    granted_at_ms: int
    expires_at_ms: int | None


def fold_items(rows: Iterable[tuple[str, RewardEvent]]) -> dict[bytes, HeldItem]:
    """Return what became of each coupon, gift, badge and benefit after all of `rows` (member_id, event), by its lot."""
    held: dict[bytes, HeldItem] = {}
    for member_id, reward in rows:
        posting = reward.posting
        if posting.unit not in ITEM_UNITS or posting.item is None or posting.type == "reward.refused":
            continue
        lot = reward.lot or reward.reward_key
        status = _status_after(reward)
        if lot in held:
            held[lot] = structs.replace(held[lot], status=status)
        else:
            when = (reward.occurred_at_ms, reward.expires_at_ms)
            held[lot] = HeldItem(member_id, posting.unit, posting.item, reward.amount, status, *when)
    return held


def _status_after(reward: RewardEvent) -> str:
    verb = reward.posting.type.partition(".")[2]
    if verb == "ended":  # a benefit that is taken before its time, or that had none, was not waited for
        lapsed = reward.expires_at_ms is not None and reward.occurred_at_ms >= reward.expires_at_ms
        return "expired" if lapsed else "revoked"
    waits = reward.available_at_ms is not None and reward.available_at_ms > reward.occurred_at_ms
    return _STATUS.get(verb, "pending" if waits else "active")
