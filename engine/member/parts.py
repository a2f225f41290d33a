"""Collect the parts of one member's ledger that lie outside the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.member.holdings import Holdings
    from engine.member.lots import Lot
    from engine.member.pages import LedgerRedemption, Page, Refunded
    from engine.member.referral import Referred
    from schemas.events import Refund


class Parts(Struct):
    """Hold the parts of one member's ledger."""

    pages: dict[int, Page] = field(default_factory=dict)
    """The pages by their numbers, from 1."""
    refunded: dict[str, Refunded] = field(default_factory=dict)
    """Orders with refunds, by order_id; a referee's order by `order_key`."""
    redemptions: dict[str, LedgerRedemption] = field(default_factory=dict)
    """Redemptions by redemption_id."""
    waiting: dict[str, list[Refund]] = field(default_factory=dict)
    """Refunds whose purchase has not come, by order_id."""
    referred: dict[str, Referred] = field(default_factory=dict)
    """The state of the member's referrals, by the referee's member_id."""
    holdings: Holdings | None = None
    """The member's lots with indexes; never stored, None until they are collected."""
    reserved: dict[str, LedgerRedemption] | None = None
    """The redemptions that may be open; never stored, None until they are collected."""

    def lots(self) -> Iterator[Lot]:
        """Yield the lots of all pages, the oldest page first."""
        for number in sorted(self.pages):
            yield from self.pages[number].lots
