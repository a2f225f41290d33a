"""Hold the two source events that Guerdon itself writes of referrals: who referred whom, and what a referee did."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from schemas.events import (
    Activity,
    Decision,
    MemberEvent,
    Purchase,
    Refund,
    Signup,
)


class Attribution(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Say who referred a member, or why nobody did; it stands in the referee's shard, directly before the signup.

    `flags` are the fraud checks that hold what the referral earns; `reason` is why it was rejected.
    """

    status: Literal["attributed", "rejected"]
    referrer_id: str | None = None
    code: str | None = None
    channel: str | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()


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
    `referee` what the signup said of channel, referral_code, referrer_id and visitor.
    """

    referee_id: str
    event: Carried
    number: int = 0
    spend: int = 0
    signup_ms: int | None = None
    channel: str | None = None
    flagged: bool = False
    purchase: Purchase | None = None
    referee: tuple[str | None, str | None, str | None, str | None] = (None, None, None, None)


class Referral(Struct, array_like=True):
    """Hold, in the referee's state, who referred them."""

    referrer_id: str
    flagged: bool = False
    voided: bool = False


class Referred(Struct, array_like=True):
    """Hold, in the referrer's ledger, what became of one referee."""

    qualified: bool = False
    voided: bool = False
