"""Hold the events that upstream systems send, with types; docs/events.md describes their fields.

The order of fields is part of the format: `canonical.content_digest` hashes it, so new fields go to the end of a type.
Times are integer milliseconds since 1970 UTC (`occurred_at`), money is integer minor units of the programme's currency.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

INT64_MAX = 2**63 - 1
OCCURRED_AT_MS_END = 32_503_680_000_000  # 3000-01-01T00:00:00Z, the first instant out of range
ID_CHARACTERS_MAX = 200

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX)]
Amount = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Instant = Annotated[int, Meta(ge=0, lt=OCCURRED_AT_MS_END)]
RedemptionAction = Literal["reserve", "capture", "void", "spend", "restore"]
DecisionAction = Literal["adjust", "referral_release", "referral_void", "opening"]


class Item(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Hold one line of a purchase; `quantity` is a canonical decimal, `amount` the line total in minor units."""

    line_id: Id
    sku: Id
    quantity: str
    amount: Amount
    category: str | None = None
    brand: str | None = None


class RefundItem(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Hold one returned line; without `quantity` only the amount is returned."""

    line_id: Id
    amount: Amount
    quantity: str | None = None


class Tender(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Hold one means of payment of a purchase, in minor units."""

    kind: Id
    amount: Amount


class Event(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Carry what every event has; its identity is `source` and `event_id` together."""

    event_id: Id
    occurred_at: Instant
    source: Id = "default"
    attributes: dict[str, str] | None = None


class MemberEvent(Event, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Carry what every event of a member has."""

    member_id: Id


class Purchase(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record an order that was paid; `amount` is after discounts, before tenders, without shipping.

    `order_id` is bounded only at admission: a referrer's ledger stores a referee's order by `rewards.order_key`, which
    is longer than an id and must be readable again.
    """

    order_id: str
    currency: str
    amount: Amount
    gross: Amount | None = None
    shipping: Amount | None = None
    tax: Amount | None = None
    channel: str | None = None
    store: str | None = None
    brand: str | None = None
    coupons: tuple[str, ...] | None = None
    tenders: tuple[Tender, ...] | None = None
    items: tuple[Item, ...] | None = None


class Refund(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record goods returned: by items, by amount, or (with neither) the whole rest of the order.

    Its `order_id` is bounded as that of a purchase.
    """

    order_id: str
    refund_id: Id
    amount: Amount | None = None
    items: tuple[RefundItem, ...] | None = None


class Signup(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record that a member joined; `birthday`, `identity` and `attributes` are personal and sealed at rest."""

    referral_code: str | None = None
    referrer_id: str | None = None
    visitor: str | None = None
    channel: str | None = None
    birthday: str | None = None
    identity: dict[str, str] | None = None


class Profile(Event, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Change a member's personal fields; an attribute that is None is removed, the others are merged."""

    member_id: Id
    attributes: dict[str, str | None] | None = None  # type: ignore[assignment]  # None removes, here alone
    birthday: str | None = None
    identity: dict[str, str] | None = None


class Erasure(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Ask to make everything personal about the member unreadable for good."""


class Share(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record that a member shared an object over a channel."""

    object: Id
    channel: Id
    campaign: str | None = None
    verified: bool | None = None


class Touch(Event, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record that a visitor, who is no member yet, followed a referral link."""

    referral_code: Id
    visitor: Id
    channel: str | None = None
    identity: dict[str, str] | None = None


class Activity(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record anything else a member did: a review, a survey, a check-in."""

    kind: Id
    object: str | None = None
    quantity: Annotated[int, Meta(ge=0, le=INT64_MAX)] = 1
    score: Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)] | None = None
    campaign: str | None = None


class Redemption(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Ask to reserve, capture, void, spend or restore points or cash."""

    action: RedemptionAction
    redemption_id: Id
    reward: str | None = None
    amount: Amount | None = None
    unit: str | None = None
    order_id: str | None = None
    order_amount: Amount | None = None


class Decision(MemberEvent, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Record what an operator decided; written by commands, never by upstream."""

    action: DecisionAction
    amount: Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)] | None = None
    unit: str | None = None
    reason: str | None = None
    expires_at: Instant | None = None
    tier: str | None = None
    referral_code: str | None = None


EVENT_TYPES: dict[str, type[Event]] = {
    "purchase": Purchase,
    "refund": Refund,
    "signup": Signup,
    "profile": Profile,
    "erasure": Erasure,
    "share": Share,
    "touch": Touch,
    "activity": Activity,
    "redemption": Redemption,
    "decision": Decision,
}
"""Every event type by the name that JSON lines and the logs give it."""

TYPE_NAMES: dict[type[Event], str] = {kind: name for name, kind in EVENT_TYPES.items()}

TOPIC_TYPES: dict[str, tuple[str, ...]] = {
    "purchases": ("purchase", "refund"),
    "signups": ("signup", "profile", "erasure"),
    "shares": ("share", "touch"),
    "activities": ("activity",),
    "redemptions": ("redemption",),
}
"""The input topics without their prefix, and the types each one carries."""

PERSONAL_FIELDS = ("birthday", "identity", "attributes")
"""The fields of `signup` and `profile` that are sealed under the member's key."""


def key_of(event: Event) -> str:
    """Return the Kafka key of `event`: its member_id, or the referral code of a touch, which has no member."""
    return event.referral_code if isinstance(event, Touch) else event.member_id  # type: ignore[attr-defined]
