"""Watch the ledger decide: what `explain_ledger` is told at each point where it weighs something."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.member.lots import Lot
    from engine.member.pages import Redemption, Refunded
    from engine.programme.model import Programme
    from engine.programme.terms import CatalogueReward
    from schemas.events import Decision, Event, Refund
    from schemas.events import Redemption as RedemptionEvent
    from schemas.rewards import RewardEvent


class Priced(NamedTuple):
    """Say what a redemption takes.

    `available` is what is active less `debt`, in the unit that it takes; `amount` what is reserved, 0 where the
    redemption is `refused`.
    """

    unit: str
    reward: CatalogueReward | None
    available: int
    debt: int
    amount: int
    refused: str | None


class Watch:
    """Hear what the ledger decides; this one listens to nothing.

    What is handed over changes afterwards: take from it what is needed at once.
    """

    def redemption(self, event: RedemptionEvent, known: Redemption | None) -> None:
        """Hear what a redemption asks for, and what is known of its id."""

    def priced(self, event: RedemptionEvent, priced: Priced) -> None:
        """Hear what a redemption would take of what is available."""

    def refund(self, event: Refund, order: Refunded | None, programme: Programme | None) -> None:
        """Hear what a refund returns, of which order as it was before, by whose terms; None: the order has not come."""

    def rest(self, left: Event | None) -> None:
        """Hear what is left of the order after its refund, read like its purchase; None: nothing."""

    def weighed(self, lot: Lot, earned: int, earlier: int) -> None:
        """Hear how much of a lot the rest of its order still earns, and what was claimed of it before."""

    def claimed(self, lot: Lot, claim: int, taken: int) -> None:
        """Hear how much of a lot is claimed back, and how much of that was taken or is owed now."""

    def decision(self, event: Decision) -> None:
        """Hear what an operator has decided."""

    def refused(self, reward: RewardEvent) -> None:
        """Hear that something asked for does not happen."""


NOBODY = Watch()
"""Listens to nothing: the watch of every judge that does not explain."""
