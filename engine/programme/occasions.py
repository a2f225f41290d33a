"""Hold the occasions that rules can be on besides events from upstream: tiers, days, contests, challenges, referees."""

from __future__ import annotations

from schemas.events import MemberEvent


class TierChange(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Say that a member's tier changed from `before` to `to`; `order_id` is the order that did it, if one did."""

    before: str
    to: str
    order_id: str | None = None


class Birthday(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Say that a member's birthday begins, at local midnight."""


class Anniversary(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Say that the day of a member's signup has come back after `years`, at local midnight."""

    years: int


class ContestWon(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Say that a member has won a contest whose period has ended, with the rank (from 1) and the number reached."""

    contest_id: str
    rank: int
    value: int


class ChallengeCompletion(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Say that a member has completed the challenge of a rule; `order_id` is the order that did it, if one did."""

    rule: str
    order_id: str | None = None


class ReferralEvent(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Say, in the referrer's account, what a referee did.

    `event` is the type of the referee's event; `number` and `spend` are the referee's orders and spending up to and
    including it; `signup_ms` is when the referee signed up. `order_id` is a key that no order of the referrer can have:
    `schemas.rewards.order_key` makes it.
    """

    event: str
    referee_id: str
    order_id: str
    number: int = 0
    amount: int | None = None
    spend: int = 0
    signup_ms: int | None = None
    channel: str | None = None
    referee_channel: str | None = None
    referee_code: str | None = None
    referee_referrer: str | None = None
    referee_visitor: str | None = None
