"""Define the two source events that Guerdon itself writes about referrals: an attribution, and a forwarded event."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, NamedTuple

from schemas.events import (
    ID_CHARACTERS_MAX,
    Activity,
    Decision,
    MemberEvent,
    Purchase,
    Refund,
    Signup,
)


def own_id(kind: str, source: str, event_id: str) -> str:
    """Return the event_id of an event that Guerdon writes because of another: `kind:source:event_id`.

    Where that is too long for an id, it is `kind` and a SHA-256 in hex; views find these events by their beginning.
    Where the source contains a colon, too: otherwise source `a:b` with event_id `c` would get the id of `a` with `b:c`.
    """
    name = f"{kind}:{source}:{event_id}"
    if len(name) <= ID_CHARACTERS_MAX and ":" not in source:
        return name
    origin = f"{source}\0{event_id}"
    return f"{kind}:{sha256(origin.encode()).hexdigest()}"


class Referee(NamedTuple):
    """Hold what a referee's first signup said of where they came from; stored as an array."""

    channel: str | None = None
    referral_code: str | None = None
    referrer_id: str | None = None
    visitor: str | None = None


class Attribution(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Say who referred a member, or why nobody did; it stands in the referee's shard, directly before the signup."""

    event_id: str
    """May be longer than other ids where an earlier release wrote it."""
    status: Literal["attributed", "rejected"]
    referrer_id: str | None = None
    code: str | None = None
    channel: str | None = None
    reason: str | None = None
    """Why it was rejected."""
    flags: tuple[str, ...] = ()
    """The fraud checks that hold back the referral's rewards."""
    origin_source: str | None = None
    """The signup's source; None where an earlier release wrote the event."""
    origin_event_id: str | None = None
    """The signup's event_id; None where an earlier release wrote the event."""


class ForwardedSignup(Signup, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="signup"):
    """Carry a referee's signup without personal fields."""


class ForwardedPurchase(Purchase, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="purchase"):
    """Carry a referee's purchase."""


class ForwardedRefund(Refund, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="refund"):
    """Carry a referee's refund."""


class ForwardedActivity(Activity, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="activity"):
    """Carry a referee's activity."""


class ForwardedDecision(Decision, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="decision"):
    """Carry an operator's decision on the referral."""


Carried = ForwardedSignup | ForwardedPurchase | ForwardedRefund | ForwardedActivity | ForwardedDecision
"""The referee's event within a forwarded one; a tag names its type when it is read back."""


class Forwarded(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Carry a referee's event to the referrer: `member_id` is the referrer's, the time is that of the event."""

    event_id: str
    """May be longer than other ids where an earlier release wrote it."""
    referee_id: str
    event: Carried
    number: int = 0
    """Of an order: how many orders before it were not wholly refunded, plus one."""
    spend: int = 0
    """The referee's spend so far, this event included, in minor units."""
    signup_ms: int | None = None
    """The referee's first signup."""
    channel: str | None = None
    """The channel of the referral."""
    flagged: bool = False
    """Whether a fraud check holds back its rewards."""
    purchase: Purchase | None = None
    """The order that a refund returns."""
    referee: Referee = Referee()
