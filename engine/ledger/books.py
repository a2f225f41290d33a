"""Define what a fold fetches beyond a member's state: parts of the ledger, purchases, versions, budgets, stock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct

from engine.programme.rules.occurrence import UseBooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.parts import Parts
    from engine.member.referral import Referred
    from engine.programme.rules.judge import Judge
    from schemas.events import Purchase


class Placed(Struct):
    """Hold a recorded purchase and the version of the programme that judged it."""

    purchase: Purchase
    version: int


class Redeemed(NamedTuple):
    """Hold the recorded outcome of a redemption that was judged in a live generation.

    The member has had the gift or the money since, so no other generation decides it again.
    """

    amount: int
    """How much was reserved; 0 where it was refused."""
    refused: str | None
    """Why it was refused, or None."""
    version: int
    """The version that judged it."""


class Books(UseBooks, Protocol):
    """Fetch what a fold needs beyond the member's state, when it needs it."""

    def parts(self) -> Parts:
        """Return the member's parts, the same object each time; changes to it are kept."""
        ...

    def purchase(self, order_id: str) -> Placed | None:
        """Return the purchase of an order of the member's that was recorded before this event, or None."""
        ...

    def judge(self, version: int) -> Judge:
        """Return the judge of an activated version."""
        ...

    def activations(self, version: int) -> Sequence[Activation]:
        """Return the activations after that of a version, up to the event under way, the earliest first."""
        ...

    def stock_used(self, reward: str) -> int:
        """Return how many of a catalogue reward all members have redeemed so far."""
        ...

    def use_stock(self, reward: str, change: int) -> None:
        """Count redemptions of a reward; a negative change counts rewards given back."""
        ...

    def redeemed(self, seq: int, event_id: str) -> Redeemed | None:
        """Return the recorded outcome of the redemption judged at `seq`, or None where it is decided now."""
        ...

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard; nothing counts for it then."""
        ...

    def referred(self, referee_id: str) -> Referred:
        """Return the state of one of the member's referrals, the same object each time; changes to it are kept."""
        ...


class Activation(NamedTuple):
    """Name the place in a shard from which on a version judges."""

    from_seq: int
    """The version judges the source events after this one."""
    version: int
    at_ms: int
    """The latest instant that the shard had seen by then; the version before performs what is due up to it."""
