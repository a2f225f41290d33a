"""Hold what the engine writes to the reward log: movements between accounts, and refusals."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

ACCOUNTS = ("issued", "pending", "active", "reserved", "spent", "expired", "reversed", "debt")
"""The accounts of a member and unit; they sum to zero, and all but `issued` and `debt` are never negative."""

_VERBS = (
    "granted", "released", "reserved", "captured", "voided", "restored", "expired", "reversed", "settled", "adjusted",
)  # fmt: skip


class ItemVerbs(NamedTuple):
    """Name the verbs of the reward events about one unit of items, besides `released`."""

    grant: str
    end: str
    """An item ends without anybody taking it back: by its time, or by erasure."""
    revoke: str
    """An item is taken back."""
    use: str | None = None

    def all(self) -> tuple[str, ...]:
        """Return all verbs, each once."""
        verbs = (self.grant, "released", self.use, self.revoke, self.end)
        return tuple(dict.fromkeys(verb for verb in verbs if verb is not None))


ITEM_VERBS = {
    "coupon": ItemVerbs("issued", end="expired", revoke="revoked", use="used"),
    "gift": ItemVerbs("awarded", end="revoked", revoke="revoked"),
    "badge": ItemVerbs("awarded", end="revoked", revoke="revoked"),
    "benefit": ItemVerbs("granted", end="ended", revoke="ended"),
}
"""The units that are counted in pieces and do not move between accounts, with their verbs."""

ITEM_UNITS = tuple(ITEM_VERBS)
ITEM_GRANTS = frozenset(verbs.grant for verbs in ITEM_VERBS.values())
"""The verbs that hand an item out."""

ITEM_LOSSES = frozenset(verb for verbs in ITEM_VERBS.values() for verb in (verbs.end, verbs.revoke))
"""The verbs after which a member no longer has an item, although it was not used."""

POSSESSED_UNITS = ("badge", "benefit")
"""The units of items that a member has or lacks, as conditions can ask."""

REWARD_TYPES = (
    *(f"{unit}.{verb}" for unit in ("points", "status", "cash") for verb in _VERBS),
    *(f"{unit}.{verb}" for unit, verbs in ITEM_VERBS.items() for verb in verbs.all()),
    "tier.changed", "referral.attributed", "referral.qualified", "referral.rejected", "referral.voided",
    "challenge.completed", "cohort.entered", "contest.won", "reward.refused",
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
