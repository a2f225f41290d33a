"""List the fields that conditions and gives may name, by the type of event."""

from __future__ import annotations

from engine.programme.conditions import (
    ALWAYS,
    Attribute,
    Comparison,
    Field,
    FieldTest,
    Kind,
    Lines,
    LocalPart,
    LocalTime,
    MemberPart,
    MemberValue,
    Tender,
)
from engine.programme.occasions import Anniversary, Birthday, ChallengeCompletion, ContestWon, ReferralEvent, TierChange
from schemas.events import PERSONAL_FIELDS, Activity, Event, Purchase, Share, Signup

EVENT_TRIGGERS: dict[str, type[Event]] = {
    "purchase": Purchase, "signup": Signup, "share": Share, "activity": Activity,
}  # fmt: skip
"""The events that rules of this release may be `on`, and metrics about, by the name written in a programme."""

OCCASION_TRIGGERS: dict[str, type[Event]] = {
    "tier": TierChange, "birthday": Birthday, "anniversary": Anniversary, "contest": ContestWon,
    "challenge": ChallengeCompletion, "referral": ReferralEvent,
}  # fmt: skip
"""The occasions that rules may be `on`: time and the ledger bring them about."""

TRIGGERS = EVENT_TRIGGERS | OCCASION_TRIGGERS
"""Everything that rules of this release may be `on`."""

TRIGGER_NAMES = {kind: name for name, kind in TRIGGERS.items()}

LINE = "line"
"""Used like a trigger for the fields of one line of a purchase."""

SEGMENT = "segment"
"""Used like a trigger where only the member, the past and the time can be read."""

ATTRIBUTES_PREFIX = "event.attributes."
TENDER_PREFIX = "purchase.tender."
IDENTITY_PREFIX = "signup.identity."

_TEXT, _MONEY, _INTEGER = Kind.TEXT, Kind.MONEY, Kind.INTEGER
# Field of the event: its kind, and whether it may be missing.
_ANY_EVENT: dict[str, tuple[Kind, bool]] = {
    "event_id": (_TEXT, False), "member_id": (_TEXT, False), "source": (_TEXT, False),
    "occurred_at": (Kind.INSTANT, False),
}  # fmt: skip
_OWN: dict[str, dict[str, tuple[Kind, bool]]] = {
    "purchase": {
        "order_id": (_TEXT, False), "currency": (_TEXT, False), "amount": (_MONEY, False), "gross": (_MONEY, True),
        "shipping": (_MONEY, True), "tax": (_MONEY, True), "channel": (_TEXT, True), "store": (_TEXT, True),
        "brand": (_TEXT, True), "coupons": (Kind.TEXTS, True),
    },
    "signup": {
        "referral_code": (_TEXT, True), "referrer_id": (_TEXT, True), "visitor": (_TEXT, True),
        "channel": (_TEXT, True), "birthday": (Kind.RECURRING, True),
    },
    "share": {
        "object": (_TEXT, False), "channel": (_TEXT, False), "campaign": (_TEXT, True),
        "verified": (Kind.BOOLEAN, True),
    },
    "activity": {
        "kind": (_TEXT, False), "object": (_TEXT, True), "quantity": (_INTEGER, False), "score": (_INTEGER, True),
        "campaign": (_TEXT, True),
    },
}  # fmt: skip
_REFERRAL: tuple[tuple[str, Kind, Attribute, bool], ...] = (
    ("referral.event", _TEXT, Attribute("event"), False), ("referral.number", _INTEGER, Attribute("number"), False),
    ("referral.amount", _MONEY, Attribute("amount"), True), ("referral.age", Kind.AGE, Attribute("signup_ms"), True),
    ("referral.spend", _MONEY, Attribute("spend"), False), ("referral.channel", _TEXT, Attribute("channel"), True),
    ("referral.referee.channel", _TEXT, Attribute("referee_channel"), True),
    ("referral.referee.referral_code", _TEXT, Attribute("referee_code"), True),
    ("referral.referee.referrer_id", _TEXT, Attribute("referee_referrer"), True),
    ("referral.referee.visitor", _TEXT, Attribute("referee_visitor"), True),
)  # fmt: skip
_OCCASIONS: dict[str, dict[str, Field]] = {
    "tier": {
        "tier.to": Field("tier.to", Kind.TEXT, Attribute("to"), optional=False),
        "tier.from": Field("tier.from", Kind.TEXT, Attribute("before"), optional=False),
    },
    "birthday": {},
    "contest": {
        "contest.id": Field("contest.id", Kind.TEXT, Attribute("contest_id"), optional=False),
        "contest.rank": Field("contest.rank", Kind.INTEGER, Attribute("rank"), optional=False),
    },
    "referral": {path: Field(path, kind, source, optional=maybe) for path, kind, source, maybe in _REFERRAL},
    "challenge": {"challenge.rule": Field("challenge.rule", Kind.TEXT, Attribute("rule"), optional=False)},
    "anniversary": {"anniversary.years": Field("anniversary.years", Kind.INTEGER, Attribute("years"), optional=False)},
}
_LINE: dict[str, tuple[Kind, bool]] = {
    "line_id": (_TEXT, False), "sku": (_TEXT, False), "category": (_TEXT, True), "brand": (_TEXT, True),
    "quantity": (Kind.DECIMAL, False), "amount": (_MONEY, False),
}  # fmt: skip
LINE_TEXTS = {"purchase.categories": "category", "purchase.brands": "brand", "purchase.skus": "sku"}
"""The sets of a purchase, which are tested line by line."""
_TIME = {
    LocalPart.WEEKDAY: Kind.WEEKDAY, LocalPart.CLOCK: Kind.CLOCK, LocalPart.DATE: Kind.DATE,
    LocalPart.DAY: _INTEGER, LocalPart.MONTH: _INTEGER,
}  # fmt: skip
HELD_PREFIX = "member.held."
PROFILE_PREFIX = "member.attributes."
_OPEN_PREFIXES = (ATTRIBUTES_PREFIX, TENDER_PREFIX, IDENTITY_PREFIX, HELD_PREFIX, PROFILE_PREFIX)
"""Prefixes after which any name may stand."""
TIER_PATHS = ("member.tier", "member.tier_rank")
"""Fields that only a programme with tiers has."""
MEMBER_FIELDS = {
    "member.age": Field("member.age", Kind.AGE, MemberValue(MemberPart.AGE)),
    "member.birthday": Field("member.birthday", Kind.RECURRING, MemberValue(MemberPart.BIRTHDAY)),
    "member.referrer": Field("member.referrer", Kind.TEXT, MemberValue(MemberPart.REFERRER)),
    "member.balance": Field("member.balance", _INTEGER, MemberValue(MemberPart.BALANCE), optional=False),
}
TIME_FIELDS = {
    f"time.{part}": Field(f"time.{part}", kind, LocalTime(part), optional=False) for part, kind in _TIME.items()
}


def _catalogue() -> dict[str, dict[str, Field]]:
    """Return every field by trigger and path, made of the tables above."""
    catalogue: dict[str, dict[str, Field]] = dict(_OCCASIONS)

    # events from upstream: the fields of every event and their own; a purchase has its lines, too
    for trigger, own in _OWN.items():
        fields = [
            Field(f"{trigger}.{name}", kind, Attribute(name), optional=maybe)
            for name, (kind, maybe) in (_ANY_EVENT | own).items()
        ]
        if trigger == "purchase":
            fields.append(Field("purchase.units", Kind.DECIMAL, Lines(ALWAYS, "quantity")))
            fields += [Field(path, Kind.TEXTS, Attribute("items")) for path in LINE_TEXTS]
        catalogue[trigger] = {field.path: field for field in fields}

    catalogue[LINE] = {
        name: Field(name, kind, Attribute(name), optional=maybe) for name, (kind, maybe) in _LINE.items()
    }
    return catalogue


FIELDS = _catalogue()
"""Every field of an event, by trigger and path."""

LATER_PATHS = frozenset(("refund.order_id", "refund.refund_id", "refund.amount"))


def field_of(trigger: str, path: str) -> Field | None:
    """Return the field that `path` names in a rule on `trigger`, or None where there is none."""
    if trigger == LINE:
        return FIELDS[LINE].get(path)

    # paths that end with a name of the author's
    if item := _entry(path, HELD_PREFIX):
        return Field(path, Kind.BOOLEAN, MemberValue(MemberPart.HELD, item), optional=False)
    if attribute := _entry(path, PROFILE_PREFIX):
        return Field(path, Kind.TEXT, MemberValue(MemberPart.ATTRIBUTE, attribute))
    if trigger not in (SEGMENT, *OCCASION_TRIGGERS) and (name := _entry(path, ATTRIBUTES_PREFIX)):
        return Field(path, Kind.TEXT, Attribute("attributes", name))

    return TIME_FIELDS.get(path) or MEMBER_FIELDS.get(path) or _event_field(trigger, path)


def _event_field(trigger: str, path: str) -> Field | None:
    """Return the field of the event itself that `path` names: one of the catalogue, or an entry of a mapping."""
    if trigger not in TRIGGERS:
        return None
    if trigger in EVENT_TRIGGERS and (name := _entry(path, f"{trigger}.attributes.")):
        return Field(path, Kind.TEXT, Attribute("attributes", name))
    if trigger == "purchase" and (tender := _entry(path, TENDER_PREFIX)):
        return Field(path, Kind.MONEY, Tender(tender), optional=False)
    if trigger == "signup" and (identity := _entry(path, IDENTITY_PREFIX)):
        return Field(path, Kind.TEXT, Attribute("identity", identity))
    return FIELDS[trigger].get(path)


def _entry(path: str, prefix: str) -> str:
    """Return the rest of `path` after `prefix`, "" where it does not begin so."""
    return path[len(prefix) :] if path.startswith(prefix) else ""


def is_personal(field: Field, trigger: str | None) -> bool:
    """Whether a field reads what is encrypted in the log: the member's profile, or personal fields of a signup."""
    if isinstance(field.source, MemberValue):
        return field.source.part in (MemberPart.BIRTHDAY, MemberPart.ATTRIBUTE)
    return trigger == "signup" and isinstance(field.source, Attribute) and field.source.name in PERSONAL_FIELDS


def line_test(name: str, comparison: Comparison, value: str | bool | tuple[str, ...]) -> FieldTest:  # noqa: FBT001  `exists` compares with a truth value
    """Return the test of a line's text."""
    return FieldTest(FIELDS[LINE][name], comparison, value)


def other_trigger_of(path: str) -> str | None:
    """Return the trigger whose field `path` is, or None where no event has it."""
    return next((trigger for trigger in TRIGGERS if _event_field(trigger, path) is not None), None)


def is_later(path: str) -> bool:
    """Whether `path` is a field of the language that this release does not judge yet."""
    return path in LATER_PATHS


def paths_here(trigger: str | None, like: str) -> list[str]:
    """Return the paths that may stand in a rule on `trigger` (None: unknown).

    Paths that end with a name of the author's end as `like` does.
    """
    if trigger == LINE:
        return list(FIELDS[LINE])

    fields = FIELDS.items() if trigger is None else [(trigger, FIELDS.get(trigger, {}))]
    own = [path for kind, paths in fields if kind != LINE for path in paths]

    # the open prefixes that this trigger has
    free = ".".join(like.split(".")[2:])
    on = trigger or "purchase"
    open_ended = [f"{prefix}{free or 'NAME'}" for prefix in _OPEN_PREFIXES if field_of(on, f"{prefix}NAME")]
    return [*own, *TIME_FIELDS, *MEMBER_FIELDS, *open_ended]


def paths_elsewhere(trigger: str | None) -> list[str]:
    """Return the paths that may stand in rules on something else."""
    others = [path for kind, fields in FIELDS.items() if kind not in (LINE, trigger) for path in fields]
    return [] if trigger == LINE else [*sorted(LATER_PATHS), *others]
