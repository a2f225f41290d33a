"""Hold all parts of one member's ledger beyond the state, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.member.holdings import Holdings
    from engine.member.lots import Lot
    from engine.member.pages import Page, Redemption, Refunded
    from engine.member.referral import Referred
    from schemas.events import Refund


class Parts(Struct):
    """Hold all parts of one member's ledger; `waiting` are refunds whose purchase has not come, by order.

    `referred` are the member's referees of whom something is known. `holdings` and `reserved`, the redemptions that may
    be open, are found from the others and are never stored; None: nobody has looked for them yet.
    """

    pages: dict[int, Page] = field(default_factory=dict)
    refunded: dict[str, Refunded] = field(default_factory=dict)
    redemptions: dict[str, Redemption] = field(default_factory=dict)
    waiting: dict[str, list[Refund]] = field(default_factory=dict)
    referred: dict[str, Referred] = field(default_factory=dict)
    holdings: Holdings | None = None
    reserved: dict[str, Redemption] | None = None

    def lots(self) -> Iterator[Lot]:
        """Yield the lots of all pages, the oldest page first."""
        for number in sorted(self.pages):
            yield from self.pages[number].lots
