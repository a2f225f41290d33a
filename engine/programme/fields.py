"""Know the fields that conditions and gives may name: those judged now, and those of the language that come later."""

from __future__ import annotations

from engine.programme.model import Field, Kind
from schemas.events import Event, Purchase, Share, Signup

TRIGGERS: dict[str, type[Event]] = {"purchase": Purchase, "signup": Signup, "share": Share}
"""What rules may be `on`, by the name written in a programme."""

LATER_TRIGGERS = ("activity", "referral", "tier", "challenge", "contest", "birthday", "anniversary")

ATTRIBUTES_PREFIX = "event.attributes."

_ANY_EVENT = {"event_id": False, "member_id": False, "source": False}
_TEXTS: dict[str, dict[str, bool]] = {
    "purchase": {"order_id": False, "currency": False, "channel": True, "store": True, "brand": True},
    "signup": {"referral_code": True, "referrer_id": True, "visitor": True, "channel": True},
    "share": {"object": False, "channel": False, "campaign": True},
}
"""Text fields by event type; True: may be missing."""
_AMOUNTS: dict[str, dict[str, bool]] = {
    "purchase": {"amount": False, "gross": True, "shipping": True, "tax": True},
}


def _catalogue() -> dict[str, dict[str, Field]]:
    catalogue: dict[str, dict[str, Field]] = {}
    for trigger in TRIGGERS:
        texts = {**_ANY_EVENT, **_TEXTS[trigger]}
        fields = [Field(f"{trigger}.{n}", Kind.TEXT, n, optional=maybe) for n, maybe in texts.items()]
        fields += [
            Field(f"{trigger}.{n}", Kind.MONEY, n, optional=maybe) for n, maybe in _AMOUNTS.get(trigger, {}).items()
        ]
        if trigger == "share":
            fields.append(Field("share.verified", Kind.BOOLEAN, "verified"))
        catalogue[trigger] = {field.path: field for field in fields}
    return catalogue


FIELDS = _catalogue()
"""Every field that this release judges, by trigger and path."""

_LATER_PATHS = frozenset(
    (
        "purchase.categories", "purchase.brands", "purchase.skus", "purchase.units", "purchase.coupons",
        "purchase.occurred_at", "signup.birthday", "signup.occurred_at", "share.occurred_at",
        "refund.order_id", "refund.refund_id", "refund.amount",
        "activity.kind", "activity.object", "activity.quantity", "activity.score", "activity.campaign",
        "member.tier", "member.tier_rank", "member.age", "member.birthday", "member.referrer", "member.segment",
        "member.balance", "time.weekday", "time.clock", "time.date", "time.day", "time.month",
        "referral.event", "referral.number", "referral.amount", "referral.age", "referral.spend", "referral.channel",
        "tier.to", "tier.from", "contest.id", "contest.rank", "challenge.rule",
    )
)  # fmt: skip
_LATER_PREFIXES = (
    "purchase.tender.", "member.attributes.", "member.held.", "derived.", "history.", "referral.referee.",
)  # fmt: skip


def field_of(trigger: str, path: str) -> Field | None:
    """Return the field that `path` names in a rule on `trigger`, or None where this release has none."""
    if path.startswith(ATTRIBUTES_PREFIX) and len(path) > len(ATTRIBUTES_PREFIX):
        return Field(path, Kind.TEXT, "attributes", key=path.removeprefix(ATTRIBUTES_PREFIX))
    return FIELDS.get(trigger, {}).get(path)


def other_trigger_of(path: str) -> str | None:
    """Return the trigger whose field `path` is, or None where this release has none."""
    return next((trigger for trigger, fields in FIELDS.items() if path in fields), None)


def is_later(path: str) -> bool:
    """Whether `path` is a field of the language that this release does not judge yet."""
    return path in _LATER_PATHS or any(
        path.startswith(prefix) and len(path) > len(prefix) for prefix in _LATER_PREFIXES
    )


def paths_near(trigger: str) -> list[str]:
    """Return the paths among which a misspelt one is looked for: those of the trigger first."""
    own = list(FIELDS.get(trigger, {}))
    others = [path for fields in FIELDS.values() for path in fields]
    return [*own, *sorted(_LATER_PATHS), *others]
