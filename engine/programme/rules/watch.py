"""Let others follow the ledger: it tells a watch of each point at which it decides something."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.member.lots import Lot
    from engine.member.pages import LedgerRedemption, Refunded
    from engine.programme.model import Programme
    from engine.programme.terms import CatalogueReward
    from schemas.events import Decision, Event, Redemption, Refund
    from schemas.rewards import RewardEvent


class Priced(NamedTuple):
    """Say how much a redemption takes."""

    unit: str
    reward: CatalogueReward | None

    available: int
    """The member's active amount of the unit, less `debt`."""

    debt: int

    amount: int
    """How much is reserved; 0 where the redemption is refused."""

    refused: str | None
    """The reason of a refusal, None where there is none."""


class Watch:
    """Hear what the ledger decides; this class ignores all of it.

    The arguments change afterwards, so a watch must read at once what it needs of them.
    """

    def redemption(self, event: Redemption, before: LedgerRedemption | None) -> None:
        """Hear a redemption's request, and the earlier record under its id."""

    def priced(self, event: Redemption, priced: Priced) -> None:
        """Hear how much a redemption would take, and how much is available."""

    def refund(self, event: Refund, order: Refunded | None, programme: Programme | None) -> None:
        """Hear of a refund: its order as it was before, and the programme whose terms hold; None: no such order yet."""

    def rest(self, left: Event | None) -> None:
        """Hear which purchase remains of the order after its refund; None: nothing remains."""

    def weighed(self, lot: Lot, earned: int, earlier: int) -> None:
        """Hear how much of a lot the remaining order still earns, and how much was claimed back before."""

    def claimed(self, lot: Lot, claim: int, taken: int) -> None:
        """Hear how much of a lot is claimed back, and how much of that was taken or becomes a debt."""

    def decision(self, event: Decision) -> None:
        """Hear of an operator's decision."""

    def refused(self, reward: RewardEvent) -> None:
        """Hear that a request is refused."""


NOBODY = Watch()
"""The watch of every judge that does not explain: it ignores all it hears."""
