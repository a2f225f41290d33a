"""Fold reward events into the items of members in memory, as `projections.items` does in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, structs

from schemas.rewards import ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schemas.rewards import RewardEvent

_STATUS = {"released": "active", "used": "used", "revoked": "revoked", "expired": "expired"}


class ItemRow(Struct, frozen=True):
    """Hold a row of the view `reward.member_reward`; times in ms since 1970."""

    member_id: str
    unit: str
    item: str
    amount: int
    status: str
    granted_at_ms: int
    expires_at_ms: int | None


def fold_items(rows: Iterable[tuple[str, RewardEvent]]) -> dict[bytes, ItemRow]:
    """Return each coupon, gift, badge and benefit by its lot, with its status after all `rows` (member_id, event)."""
    items: dict[bytes, ItemRow] = {}
    for member_id, reward in rows:
        posting = reward.posting
        if posting.unit not in ITEM_UNITS or posting.item is None or posting.type == "reward.refused":
            continue

        # the first event of a lot makes its row, later ones change the status alone
        lot = reward.lot or reward.reward_key
        status = _status_after(reward)
        if lot in items:
            items[lot] = structs.replace(items[lot], status=status)
        else:
            items[lot] = ItemRow(
                member_id=member_id,
                unit=posting.unit,
                item=posting.item,
                amount=reward.amount,
                status=status,
                granted_at_ms=reward.occurred_at_ms,
                expires_at_ms=reward.expires_at_ms,
            )
    return items


def _status_after(reward: RewardEvent) -> str:
    """Return the status of an item after a reward event about it."""
    verb = reward.posting.type.partition(".")[2]
    if verb == "ended":  # a benefit that ends before its time, or has none, was revoked
        lapsed = reward.expires_at_ms is not None and reward.occurred_at_ms >= reward.expires_at_ms
        return "expired" if lapsed else "revoked"
    waits = reward.available_at_ms is not None and reward.available_at_ms > reward.occurred_at_ms
    return _STATUS.get(verb, "pending" if waits else "active")
