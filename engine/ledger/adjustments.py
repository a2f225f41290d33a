"""Define the adjustment: the source event by which `promote --as adjust` brings a balance to another generation's.

`guerdon adjust` writes no adjustment but a `schemas.events.Decision`, whose action is `adjust`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from schemas.events import MemberEvent

if TYPE_CHECKING:
    from schemas.events import Event

KIND = "adjustment"
"""The kind of an adjustment in the source log."""

SOURCE = "guerdon"
_NAME_DIGITS = 32


class Adjustment(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Add `amount` to a member's balance of a unit (below 0: subtract), so that it is what generation `towards` gives.

    It is written into the one source log, which every generation reads, but it makes up for a difference that only one
    has: the generation that was live at that promotion. So it counts there, and in generations that repeat that one,
    and in no other. `counts` decides by the set of generations towards which members were adjusted in the generation
    that is judged. Where events are judged live there is no such set: whatever is written then counts.
    """

    towards: int
    unit: str
    amount: int

    @property
    def reason(self) -> str:
        """Return the reason that its reward events give."""
        return f"generation_{self.towards}"


def adjustment(towards: int, member_id: str, unit: str, amount: int, at_ms: int) -> Adjustment:
    """Return a generation's adjustment of a member's unit; the same adjustment always has the same event_id.

    The event_id names the member by a digest: the member_id alone may have as many characters as an id may have.
    """
    name = sha256(member_id.encode()).hexdigest()[:_NAME_DIGITS]
    return Adjustment(
        event_id=f"{KIND}-{towards}-{unit}-{name}", source=SOURCE, member_id=member_id, occurred_at=at_ms,
        towards=towards, unit=unit, amount=amount,
    )  # fmt: skip


def counts(event: Event | None, counted: frozenset[int]) -> bool:
    """Whether an event counts in a generation that is judged again.

    All do but adjustments that were written while another one was live. `counted` has the generations towards which
    members were adjusted while this one was live, or the one that it repeats
    (`engine.store.generations.adjustments.counted_in`).
    """
    return type(event) is not Adjustment or event.towards in counted
