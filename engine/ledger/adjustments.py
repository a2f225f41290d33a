"""Define the adjustment: the source event that gives members at a promotion what another generation gives them."""

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

    An adjustment counts in the generation that was live when it was written, and in those that repeat it; in no other.
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
    """Whether an event counts; an adjustment does only where `counted` has the generation that it is towards."""
    return type(event) is not Adjustment or event.towards in counted
