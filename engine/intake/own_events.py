"""Hold the two source events that Guerdon itself writes of referrals: who referred whom, and what a referee did."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

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
    """Return the event_id of what Guerdon writes because of an upstream event: `kind`, its source and its event_id.

    Where that is longer than an id may be, `kind` and a SHA-256 in hex: views find these events by their beginning. So,
    too, where the source has a colon: `a:b` and `c` would read as `a` and `b:c`, and two events are never one.
    """
    name = f"{kind}:{source}:{event_id}"
    if len(name) <= ID_CHARACTERS_MAX and ":" not in source:
        return name
    origin = f"{source}\0{event_id}"
    return f"{kind}:{sha256(origin.encode()).hexdigest()}"


class Attribution(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Say who referred a member, or why nobody did; it stands in the referee's shard, directly before the signup.

    `flags` are the fraud checks that hold what the referral earns; `reason` is why it was rejected. `origin_source` and
    `origin_event_id` name the signup; what earlier releases wrote does not, and its event_id may be longer than an id.
    """

    event_id: str
    status: Literal["attributed", "rejected"]
    referrer_id: str | None = None
    code: str | None = None
    channel: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()
    origin_source: str | None = None
    origin_event_id: str | None = None


class ForwardedSignup(Signup, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="signup"):
    """Carry a referee's signup without what is personal."""


class ForwardedPurchase(Purchase, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="purchase"):
    """Carry a referee's purchase."""


class ForwardedRefund(Refund, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="refund"):
    """Carry a referee's refund."""


class ForwardedActivity(Activity, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="activity"):
    """Carry a referee's activity."""


class ForwardedDecision(Decision, frozen=True, omit_defaults=True, kw_only=True, gc=False, tag="decision"):
    """Carry an operator's decision on the referral."""


Carried = ForwardedSignup | ForwardedPurchase | ForwardedRefund | ForwardedActivity | ForwardedDecision
"""What is forwarded: the referee's event, with a tag that tells its type when it is read back."""


class Forwarded(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Carry a referee's event to the referrer, whose `member_id` it has; it occurred when the referee's event did.

    `number` counts the referee's orders that were not wholly refunded before this one, plus one; `spend` is what the
    referee has spent so far in minor units, this event included. `signup_ms` and `channel` are the referral's,
    `flagged` says that what it earns is held. `purchase` is the order that a refund returns,
    `referee` what the signup said of channel, referral_code, referrer_id and visitor. Its `event_id` may be longer than
    an id where an earlier release wrote it.
    """

    event_id: str
    referee_id: str
    event: Carried
    number: int = 0
    spend: int = 0
    signup_ms: int | None = None
    channel: str | None = None
    flagged: bool = False
    purchase: Purchase | None = None
    referee: tuple[str | None, str | None, str | None, str | None] = (None, None, None, None)
