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
"""The units that are counted in pieces and do not move between accounts."""

HONOURED = "honoured"
"""The reason of a lot that covers an accepted redemption which this generation's balance cannot pay."""

_OF_REFEREE = "\x1f"
"""Separates an order from its referee in a key; no id contains it."""


def order_key(order_id: str | None, referee_id: str) -> str:
    """Return the name of a referee's order in the referrer's ledger, where an own order may have the same id."""
    return f"{order_id or ''}{_OF_REFEREE}{referee_id}"


def shown_order(key: str | None) -> str | None:
    """Return the order_id that the log shows for a name in a ledger."""
    if key is None or _OF_REFEREE not in key:
        return key
    return key.partition(_OF_REFEREE)[0] or None


def referee_of(key: str | None) -> str | None:
    """Return the referee of a name in the referrer's ledger; None: it is the referrer's own."""
    return None if key is None or _OF_REFEREE not in key else key.partition(_OF_REFEREE)[2]


class Posting(Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Hold all of a reward event but its amount, member and time; there is one object per rule and movement."""

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
    """Say that `amount` of the posting's unit moved (or was refused).

    `lot` is None where the event opens a lot, whose key is then its own. `give` is the index among the rule's gives,
    which the log does not keep. `order_id` is the ledger's name of the order; the log shows `shown_order` of it.
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
