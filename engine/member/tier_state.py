"""Define a member's standing: their level, the number that earned it, and what counts towards the next."""

from __future__ import annotations

from msgspec import Struct, field

from engine.member.windows import Window  # noqa: TC001  msgspec reads the annotation


class Reached(Struct, array_like=True):
    """Hold an upgrade that rules may have rewarded; a refund that takes the level back takes the rewards, too."""

    level: str
    before: str
    """The level before."""
    nth: int
    """The number of this change among all the member's changes of level."""
    version: int
    """The version that judged the rules on it."""
    at_ms: int
    order_id: str | None = None
    """The order that reached the level, if one did."""
    status: int = 0
    """How much status the rules gave."""


class TierState(Struct, array_like=True):
    """Hold a member's standing among the tiers; stored as MessagePack, so fields are added at the end."""

    terms: str
    """A digest of the tiers that the standing follows; other terms mean a review."""
    basis: str
    """A digest of the number that these tiers count, and of its window; another basis means a count from 0."""
    level: str
    since_ms: int | None = None
    """Since when the member has the level; None: from the beginning."""
    number: int = 0
    """The number that earned the level, or, where `earned` is `tiers.UNEARNED`, the number at the change."""
    earned: int = 0
    """The period in which `number` earned the level; of a rolling window, its last instant."""
    sums: dict[int, int] = field(default_factory=dict)
    """The numbers counted so far, by period, where the window does not roll."""
    window: Window | None = None
    """The numbers counted so far, by instant, where the window rolls."""
    review_ms: int | None = None
    """The next review; None: none is due."""
    in_grace: bool = False
    """Whether the next review ends a grace."""
    ended: int = 0
    """The period at whose end the grace began."""
    changes: int = 0
    """How often the level has changed."""
    anchor_ms: int | None = None
    """From when anniversary windows run: the signup, or else the first event."""
    reached: list[Reached] = field(default_factory=list)
    """The upgrades that a refund may still take back."""
