"""Fetch what a fold needs beyond a member's state: parts of the ledger, purchases, versions, budgets, stock."""

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
    """Say what became of a redemption where it was live: `amount` was reserved, or why it was refused.

    Members have had the gift or the money since, so no other generation decides it again. `version` judged it then.
    """

    amount: int
    refused: str | None
    version: int


class Books(UseBooks, Protocol):
    """Fetch what a fold needs beyond the member's state, when it needs it."""

    def parts(self) -> Parts:
        """Return the member's parts, the same object each time; what is changed in it is kept."""
        ...

    def purchase(self, order_id: str) -> Placed | None:
        """Return the purchase of the member's order as it was recorded before this event, or None."""
        ...

    def judge(self, version: int) -> Judge:
        """Return the judge of an activated version."""
        ...

    def activations(self, version: int) -> Sequence[Activation]:
        """Return what was activated after a version, up to the place of what is under way, the earliest first."""
        ...

    def stock_used(self, reward: str) -> int:
        """Return how many of a catalogue's reward were taken so far, by anybody."""
        ...

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back."""
        ...

    def redeemed(self, seq: int, event_id: str) -> Redeemed | None:
        """Return what became of a redemption where it was live, judged at `seq`; None where it is decided now."""
        ...

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard: nothing counts for it."""
        ...

    def referred(self, referee_id: str) -> Referred:
        """Return what became of a referee of the member's, the same object each time; what is changed in it is kept."""
        ...


class Activation(NamedTuple):
    """Say that a version judges the source events of a shard after `from_seq`.

    `at_ms` is the latest instant that the shard had seen by then: what is due up to it is the version before's.
    """

    from_seq: int
    version: int
    at_ms: int
