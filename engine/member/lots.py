"""Hold lots: what each grant gave, and in which account each part of it lies now.

A balance is a sum over lots; nothing else holds points. Coupons, gifts, badges and benefits are lots, too, of which
`active` counts the units that are neither used, revoked nor ended; they have no accounts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

ITEM_UNITS = ("coupon", "gift", "badge", "benefit")
"""The units that are handed out one by one and have no accounts."""

_NEVER = 1 << 62
"""Sorts a lot that never expires behind all others."""


class Lot(Struct, array_like=True, gc=False):
    """Hold one grant; stored as MessagePack, so fields are added at the end.

    `amount` is what was granted; `pending`, `active`, `reserved`, `spent` and `expired` say where it lies now, and what
    is in none of them was reversed or settled a debt. Times are milliseconds since 1970 UTC: `granted_ms` when the
    grant counts, `available_ms` the end of its hold, `expires_ms` the instant at which it is gone (None: never).
    `rule_id`, `version`, `campaign` and `give` (the index among the rule's gives) name what gave it, `order_id` the
    order that it follows. `moves` counts its movements by verb: reward keys are made from it. `judged_ms` is the
    member's clock when it was granted, where that was past `granted_ms` (None: it was granted in time). `claimed` is
    what was asked back of it so far, `taken` what of that was had, from it or from others.
    """

    key: bytes
    unit: str
    amount: int
    active: int
    pending: int
    granted_ms: int
    available_ms: int
    expires_ms: int | None
    rule_id: str | None
    version: int | None
    give: int = 0
    order_id: str | None = None
    item: str | None = None
    campaign: str | None = None
    reserved: int = 0
    spent: int = 0
    expired: int = 0
    moves: dict[str, int] | None = None
    judged_ms: int | None = None
    claimed: int = 0
    taken: int = 0

    @property
    def is_open(self) -> bool:
        """Whether anything of it can still move by itself or be spent."""
        return self.pending > 0 or self.active > 0 or self.reserved > 0

    @property
    def due_ms(self) -> int | None:
        """Return when something happens to it by itself: the end of its hold, then its expiry; None: nothing will."""
        if self.pending:
            return self.available_ms
        return self.expires_ms if self.active else None

    def is_lapsed(self, at_ms: int) -> bool:
        """Whether it is past its expiry, whether a tick has come or not."""
        return self.expires_ms is not None and self.expires_ms <= at_ms


def spending_order(lot: Lot) -> tuple[int, int, bytes]:
    """Sort the soonest-expiring lot first, never-expiring last, then the older grant, then the key."""
    return (_NEVER if lot.expires_ms is None else lot.expires_ms, lot.granted_ms, lot.key)


def spendable(lots: Iterable[Lot], unit: str, at_ms: int) -> list[Lot]:
    """Return the lots of `unit` from which can be spent at an instant, in the order in which they are."""
    return sorted(
        (lot for lot in lots if lot.unit == unit and lot.active and not lot.is_lapsed(at_ms)), key=spending_order
    )
