"""Define the lot: the amount of one grant, and the account in which each part of it lies now.

A balance is a sum over lots; nothing else holds points. Coupons, gifts, badges and benefits are lots, too. They have no
accounts: `active` counts their units that are neither used, revoked nor ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

_NEVER = 1 << 62
"""The sort key of a lot that never expires: behind all others."""


class Lot(Struct, array_like=True, gc=False):
    """Hold one grant; stored as MessagePack, so fields are added at the end.

    `pending`, `active`, `reserved`, `spent` and `expired` add up to `amount`, less what was reversed or settled a debt.
    Times are milliseconds since 1970 UTC.
    """

    key: bytes
    """The reward key of the grant."""
    unit: str
    amount: int
    """The amount of the grant."""
    active: int
    pending: int
    granted_ms: int
    """When the grant counts."""
    available_ms: int
    """The end of its hold."""
    expires_ms: int | None
    """The instant at which it expires; None: never."""
    rule_id: str | None
    """The rule that gave it, None for a correction; `version`, `give` and `campaign` are the rule's."""
    version: int | None
    give: int = 0
    """The index among the rule's gives."""
    order_id: str | None = None
    """The order that earned it."""
    item: str | None = None
    """The name of a coupon, gift, badge or benefit."""
    campaign: str | None = None
    reserved: int = 0
    spent: int = 0
    expired: int = 0
    moves: dict[str, int] | None = None
    """How often it has moved, by verb; the keys of its movements are made from that."""
    judged_ms: int | None = None
    """The member's clock at the grant, where it was past `granted_ms`; None: the grant came in time."""
    claimed: int = 0
    """How much of it was claimed back so far."""
    taken: int = 0
    """How much of the claims was taken, from this lot or from others."""

    @property
    def is_open(self) -> bool:
        """Whether any part of the lot can still move by itself or be spent."""
        return self.pending > 0 or self.active > 0 or self.reserved > 0

    @property
    def due_ms(self) -> int | None:
        """Return when the lot moves by itself: at the end of its hold, then at its expiry; None: never again."""
        if self.pending:
            return self.available_ms
        return self.expires_ms if self.active else None

    def is_lapsed(self, at_ms: int) -> bool:
        """Whether the lot is past its expiry at an instant, even if no tick has expired it yet."""
        return self.expires_ms is not None and self.expires_ms <= at_ms


def spending_order(lot: Lot) -> tuple[int, int, bytes]:
    """Sort the soonest-expiring lot first, never-expiring last, then the older grant, then the key."""
    return (_NEVER if lot.expires_ms is None else lot.expires_ms, lot.granted_ms, lot.key)


def spendable(lots: Iterable[Lot], unit: str, at_ms: int) -> list[Lot]:
    """Return the lots of `unit` that can be spent at an instant, in the order of spending."""
    return sorted(
        (lot for lot in lots if lot.unit == unit and lot.active and not lot.is_lapsed(at_ms)), key=spending_order
    )
