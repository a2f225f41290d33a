"""Hold what the engine writes to the reward log: movements between accounts, and refusals."""

from __future__ import annotations

from msgspec import Struct

ACCOUNTS = ("issued", "pending", "active", "reserved", "spent", "expired", "reversed", "debt")
"""The accounts of a member and unit; they sum to zero, and all but `issued` and `debt` are never negative."""

_VERBS = (
    "granted", "released", "reserved", "captured", "voided", "restored", "expired", "reversed", "settled", "adjusted",
)  # fmt: skip

REWARD_TYPES = (
    *(f"{unit}.{verb}" for unit in ("points", "status", "cash") for verb in _VERBS),
    "coupon.issued", "coupon.released", "coupon.used", "coupon.revoked", "coupon.expired",
    "gift.awarded", "gift.released", "gift.revoked", "badge.awarded", "badge.released", "badge.revoked",
    "benefit.granted", "benefit.released", "benefit.ended",
    "tier.changed", "referral.attributed", "referral.qualified", "referral.rejected", "referral.voided",
    "challenge.completed", "contest.won", "reward.refused",
)  # fmt: skip
"""Every type of the reward-event log."""

MOVES = {
    "granted": (("issued", "pending"), ("issued", "active")),
    "adjusted": (("issued", "pending"), ("issued", "active")),
    "released": (("pending", "active"),),
    "reserved": (("active", "reserved"),),
    "captured": (("reserved", "spent"),),
    "voided": (("reserved", "active"),),
    "restored": (("spent", "active"),),
    "expired": (("active", "expired"),),
    "reversed": (("pending", "reversed"), ("active", "reversed"), ("expired", "reversed"), ("debt", "reversed")),
    "settled": (("active", "debt"),),
}
"""From which account to which each verb moves points, status or cash (docs: the ledger's table of movements)."""

ITEM_UNITS = ("coupon", "gift", "badge", "benefit")
"""The units of what is held in pieces and moves between no accounts."""


HONOURED = "honoured"
"""The reason of the lot for what a redemption took and this history does not give, and of its equal reversal."""

_OF_REFEREE = "\x1f"
"""Stands between an order and the referee whose it is; no id holds it."""


def order_key(order_id: str | None, referee_id: str) -> str:
    """Return the name of a referee's order in the referrer's ledger: the referrer's own order may be called alike."""
    return f"{order_id or ''}{_OF_REFEREE}{referee_id}"


def shown_order(key: str | None) -> str | None:
    """Return the order_id that the log shows for an order in a ledger."""
    if key is None or _OF_REFEREE not in key:
        return key
    return key.partition(_OF_REFEREE)[0] or None


def referee_of(key: str | None) -> str | None:
    """Return the referee whose order, or other event, a name in the referrer's ledger stands for; None: its own."""
    return None if key is None or _OF_REFEREE not in key else key.partition(_OF_REFEREE)[2]


class Posting(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Name what a reward event says apart from its amount, member and time; one object per rule and movement."""

    type: str
    unit: str
    debit: str | None = None
    credit: str | None = None
    rule_id: str | None = None
    rule_version: int | None = None
    campaign: str | None = None
    item: str | None = None
    reason: str | None = None


class RewardEvent(Struct, frozen=True, gc=False):
    """Say that `amount` of the posting's unit moved (or was refused); `lot` is None where it is the event's own key.

    `give` is the index among the rule's gives; the log does not keep it. `order_id` names the order as the ledger does,
    and the log has what `shown_order` says of it.
    """

    posting: Posting
    amount: int
    reward_key: bytes
    occurred_at_ms: int
    order_id: str | None = None
    lot: bytes | None = None
    available_at_ms: int | None = None
    expires_at_ms: int | None = None
    give: int = 0
