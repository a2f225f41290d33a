"""Hold a member's standing: their level, the number that earned it, and what is counted towards the next."""

from __future__ import annotations

from msgspec import Struct, field

from engine.member.windows import Window  # noqa: TC001  msgspec reads the annotation


class Reached(Struct, array_like=True):
    """Hold a change to a level that rules may have rewarded: the `nth` of the member's, from `before`, at an instant.

    `version` judged the rules on it, `order_id` is the order that brought it about, if one did, `status` what the rules
    gave of it.
    """

    level: str
    before: str
    nth: int
    version: int
    at_ms: int
    order_id: str | None = None
    status: int = 0


class TierState(Struct, array_like=True):
    """Hold a member's place among the tiers; stored as MessagePack, so fields are added at the end.

    `terms` and `basis` name the tiers by which it was kept. `level` is held since `since_ms` (None: from the
    beginning). `number` earned it, in the period or, of a rolling window, up to the instant `earned`; where `earned` is
    `tiers.UNEARNED` it is what there was at the change, and earned nothing. `sums` counts by
    period, `window` by instant where it rolls. `review_ms` is the next review, `in_grace` says that it ends a grace,
    `ended` the period at whose end the grace began. `changes` counts the changes of level, `reached` holds those whose
    rewards go when a refund takes the level back.
    """

    terms: str
    basis: str
    level: str
    since_ms: int | None = None
    number: int = 0
    earned: int = 0
    sums: dict[int, int] = field(default_factory=dict)
    window: Window | None = None
    review_ms: int | None = None
    in_grace: bool = False
    ended: int = 0
    changes: int = 0
    anchor_ms: int | None = None
    reached: list[Reached] = field(default_factory=list)
