"""Describe the programme file as a JSON Schema, for editors that complete names and flag mistakes.

It is built from the tables that the loader uses. It knows names and shapes; only `programme check` knows what tests
mean together, and which field belongs to which event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.programme.conditions import Every, Kind, Measure
from engine.programme.fields import FIELDS, LATER_PATHS, LINE, MEMBER_FIELDS, TIME_FIELDS, TRIGGERS
from engine.programme.file.cases import ANY, BALANCE_COLUMNS, REFERRAL_COLUMNS, TIER_COLUMNS
from engine.programme.file.contests import CONTEST_PERIODS
from engine.programme.file.give import ITEM_FORMS, ItemForm
from engine.programme.file.literals import Weekday
from engine.programme.file.load import EXAMPLES, REQUIRED_SECTIONS, SCHEMA
from engine.programme.file.metric import Repeat
from engine.programme.file.when import TESTS
from engine.programme.model import CohortMetric, Over, Phase, Pick, Rounding
from engine.programme.terms import (
    Block,
    ContestMetric,
    Downgrade,
    Flag,
    Negative,
    RewardKind,
    RoundExpiry,
    Touches,
)
from schemas.events import EVENT_TYPES
from schemas.rejection import Reason
from schemas.rewards import REWARD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.conditions import Field

Schema = dict[str, Any]

_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_NUMBER: Schema = {"type": ["number", "string"], "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_DURATION: Schema = {"type": "string", "pattern": r"^[0-9]{1,6}(m|h|d|w|mo|y)$"}
_SHARE: Schema = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?%|[0-9]+/[0-9]+)$"}
_CLOCK: Schema = {"type": "string", "pattern": r"^([01][0-9]|2[0-4]):[0-5][0-9]$"}
_COLUMN: Schema = {"type": ["string", "number", "null"]}
_TRUTH: Schema = {"enum": [True, False, "true", "false"]}
_VALUES: dict[Kind, Schema] = {
    **dict.fromkeys((Kind.TEXT, Kind.TEXTS, Kind.DATE, Kind.INSTANT), _SCALAR),
    **dict.fromkeys((Kind.MONEY, Kind.INTEGER, Kind.DECIMAL), _NUMBER),
    **dict.fromkeys((Kind.AGE, Kind.RECURRING), _DURATION),
    Kind.BOOLEAN: _TRUTH,
    Kind.WEEKDAY: {"enum": [day.value for day in Weekday]},
    Kind.CLOCK: _CLOCK,
}
_PREFIXES = {
    "event.attributes": Kind.TEXT, "purchase.tender": Kind.MONEY, "member.held": Kind.BOOLEAN,
    "member.attributes": Kind.TEXT, "signup.identity": Kind.TEXT,
    **{f"{trigger}.attributes": Kind.TEXT for trigger in TRIGGERS},
}  # fmt: skip


def json_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a programme file."""
    # the sections, besides those of the terms
    sections: dict[str, Schema] = {
        "schema": {"const": SCHEMA},
        "programme": _SCALAR,
        "timezone": {"type": "string"},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "derived": _mapping_of(_SCALAR),
        "metrics": _mapping_of(_metric()),
        "segments": _mapping_of(_ref("condition")),
        "rules": _list_of(_ref("rule")),
        EXAMPLES: _list_of(_ref("case")),
    }
    document = _object(sections | _terms(), REQUIRED_SECTIONS)

    # what sections refer to, some of it to itself
    definitions = {"condition": _condition(), "line": _line(), "rule": _rule(), "give": _give(), "limit": _limit()}
    definitions |= {"case": _case()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Guerdon programme",
        **document,
        "$defs": definitions,
    }


def _terms() -> dict[str, Schema]:
    """Return the sections that `file.terms` reads."""
    # tiers and the catalogue
    validity: Schema = {"anyOf": [_DURATION, {"const": "none"}]}
    level = _object({"id": _SCALAR, "from": _NUMBER, "benefits": _list_of(_SCALAR)}, ("id", "from"))
    reward: dict[str, Schema] = {
        "id": _SCALAR, "points": _NUMBER, "kind": _choice(RewardKind), "stock": _NUMBER, "min_order": _NUMBER,
        "points_per": _mapping_of(_NUMBER), "min_points": _NUMBER, "max_share": _SHARE,
    }  # fmt: skip
    window: Schema = {
        "type": "string",
        "pattern": "^(lifetime|calendar_year|anniversary|rolling [0-9]{1,6}(m|h|d|w|mo|y))$",
    }
    tiers: dict[str, Schema] = {
        "metric": {"type": "string"}, "window": window, "downgrade": _choice(Downgrade), "grace": validity,
        "levels": _list_of(level) | {"minItems": 1},
    }  # fmt: skip

    # points, referrals and contests
    points: dict[str, Schema] = {
        "validity": validity, "round_expiry": _choice(RoundExpiry), "liability_per_point": _NUMBER, "price": _NUMBER,
    }  # fmt: skip
    most = _object({"times": _NUMBER, "every": {"anyOf": [_choice(Every), _DURATION]}}, ("times",))
    referral: dict[str, Schema] = {
        "attribution": _choice(Touches), "touch_window": _DURATION, "claim_window": _DURATION,
        "max_per_referrer": most, "block": _list_of(_choice(Block)), "flag": _list_of(_choice(Flag)),
    }  # fmt: skip
    span = _object({"from": _SCALAR, "until": _SCALAR}, ("from", "until"))
    contest: dict[str, Schema] = {
        "id": _SCALAR, "metric": _choice(ContestMetric), "winners": _NUMBER,
        "period": {"anyOf": [_choice(CONTEST_PERIODS), span]},
    }  # fmt: skip

    return {
        "points": _object(points),
        "refunds": _object({"window": _DURATION, "negative": _choice(Negative)}),
        "tiers": _object(tiers, ("metric", "window", "levels")),
        "catalogue": _list_of(_object(reward, ("id", "kind"))),
        "reserve_for": _DURATION,
        "referral": _object(referral),
        "contests": _list_of(_object(contest, contest)),
        "costs": _object(dict.fromkeys(("gift", "coupon"), _mapping_of(_NUMBER))),
        "margin": _SHARE,
    }


def _object(properties: dict[str, Schema], required: Iterable[str] = ()) -> Schema:
    return {
        "type": "object", "properties": properties, "required": list(required), "additionalProperties": False,
    }  # fmt: skip


def _mapping_of(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def _list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _choice(words: Iterable[str]) -> Schema:
    return {"enum": [str(word) for word in words]}


def _tests(kind: Kind) -> Schema:
    """Return how a field of `kind` is tested: by a value, by a list of them, or by named tests."""
    value = _VALUES[kind]
    if kind is Kind.CLOCK:
        return _object({"from": value, "to": value})

    named: dict[str, Schema] = {}
    for test in TESTS[kind]:
        listing = test.value in ("in", "not_in", "contains_any", "contains_all", "between")
        named[test.value] = _TRUTH if test.value == "exists" else _list_of(value) if listing else value

    shapes = [_object(named)]
    if "eq" in named:
        shapes.append(value)
    if "in" in named:
        shapes.append(_list_of(value))
    return {"anyOf": shapes}


def _fields(fields: Iterable[Field]) -> dict[str, Schema]:
    return {field.path: _tests(field.kind) for field in fields}


def _condition() -> Schema:
    # fields of all events, as the schema does not know what the rule is on
    every = [field for trigger, fields in FIELDS.items() if trigger != LINE for field in fields.values()]
    properties = _fields([*every, *TIME_FIELDS.values(), *MEMBER_FIELDS.values()])
    properties |= {path: {} for path in sorted(LATER_PATHS)}
    properties |= {
        "member.segment": _tests(Kind.TEXTS),
        "member.tier": _tests(Kind.TEXT),
        "member.tier_rank": _tests(Kind.INTEGER),
        "all": _list_of(_ref("condition")),
        "any": _list_of(_ref("condition")),
        "not": _ref("condition"),
        "items": _items(),
    }

    # paths that end with a name of the author's
    patterns = {f"^{prefix.replace('.', '[.]')}[.].": _tests(kind) for prefix, kind in _PREFIXES.items()}
    patterns |= {"^(derived|history)[.].": {}, "^referral[.]referee[.].": {}}
    return _object(properties) | {"patternProperties": patterns}


def _line() -> Schema:
    nested: dict[str, Schema] = {"all": _list_of(_ref("line")), "any": _list_of(_ref("line")), "not": _ref("line")}
    return _object(_fields(FIELDS[LINE].values()) | nested)


def _items() -> Schema:
    numbers: dict[str, Schema] = dict.fromkeys(("eq", "ne", "gt", "gte", "lt", "lte"), _NUMBER)
    numbers |= dict.fromkeys(("between", "in", "not_in"), _list_of(_NUMBER))
    summed = _object({"sum": _choice(("amount", "quantity")), "where": _ref("line"), **numbers}, ("sum",))
    return {"anyOf": [*(_object({name: _ref("line")}, (name,)) for name in ("some", "all", "none")), summed]}


def _metric() -> Schema:
    measures: dict[str, Schema] = {measure.value: {"type": "string"} for measure in Measure}
    return _object(
        measures | {"where": _ref("condition"), "over": _DURATION, "unit": _choice(("day", "week", "month"))}
    )


def _rule() -> Schema:
    challenge: dict[str, Schema] = {
        "count": _NUMBER, "sum": {"type": "string"}, "gte": _NUMBER, "within": _DURATION, "where": _ref("condition"),
        "repeat": _choice(Repeat),
    }  # fmt: skip
    cohort: dict[str, Schema] = {
        "salt": _SCALAR, "treat": _SHARE, "planned": _NUMBER, "metric": _choice(CohortMetric),
    }  # fmt: skip
    draw: dict[str, Schema] = {"chance": _SHARE, "seed": _SCALAR, "commit": {"type": "string"}}

    return _object(
        {
            "id": _SCALAR,
            "on": _choice(TRIGGERS),
            "campaign": _SCALAR,
            "phase": _choice(Phase),
            "active": _object({"from": {"type": "string"}, "until": {"type": "string"}}),
            "when": _ref("condition"),
            "cohort": _object(cohort, ("salt", "treat")),
            "challenge": _object(challenge),
            "draw": _object(draw, ("chance",)),
            "give": _list_of(_ref("give")),
            "group": _object({"id": _SCALAR, "pick": _choice(Pick)}, ("id", "pick")),
            "priority": _NUMBER,
            "limits": _list_of(_ref("limit")),
            "hold": _DURATION,
        },
        ("id", "on", "give"),
    )


def _give() -> Schema:
    validity: Schema = {"anyOf": [_DURATION, {"const": "none"}]}
    rated: dict[str, Schema] = {
        "amount": _NUMBER, "rate": _NUMBER, "per": _NUMBER, "of": {"type": "string"}, "round": _choice(Rounding),
        "validity": validity, "only_items": _ref("line"), "except_items": _ref("line"),
    }  # fmt: skip
    points: Schema = {"anyOf": [_NUMBER, _object(rated)]}
    factor: Schema = {"anyOf": [_NUMBER, _mapping_of(_NUMBER)]}
    cash: dict[str, Schema] = {
        "amount": _NUMBER, "rate": _SHARE, "of": {"type": "string"}, "max": _NUMBER, "max_share": _SHARE,
        "round": _choice(Rounding),
    }  # fmt: skip
    multiply = {"phase": _choice(Phase), "by": factor, "key": {"type": "string"}, "round": _choice(Rounding)}

    def item(form: ItemForm) -> Schema:
        entries: dict[str, Schema] = {form.key: _SCALAR}
        if form.lasts is not None:
            entries[form.lasts] = _DURATION
        if form.has_quantity:
            entries["quantity"] = _NUMBER
        return {"anyOf": [_SCALAR, _object(entries, (form.key,))]}

    return _object(
        {
            "points": points,
            "status": points,
            "multiply": _object(multiply, ("phase", "by")),
            "cash": _object(cash),
            **{unit: item(form) for unit, form in ITEM_FORMS.items()},
            "hold": _DURATION,
        }
    )


def _limit() -> Schema:
    per: Schema = {"anyOf": [_choice(("member", "campaign")), _list_of({"type": "string"})]}
    every: Schema = {"anyOf": [_choice(Every), _DURATION]}
    return _object(
        {"max": _NUMBER, "times": _NUMBER, "per": per, "every": every, "over": _choice(Over), "unit": _SCALAR}, ("per",)
    )


def _case() -> Schema:
    """Describe a golden example; only the checker knows which fields its events have."""

    def rows(columns: Iterable[str]) -> Schema:
        return _mapping_of(_object(dict.fromkeys(columns, _COLUMN)))

    event = {
        "type": "object",
        "properties": {"type": _choice((*EVENT_TYPES, "activation", "tick"))},
        "required": ["type"],
    }
    pair = {"type": "array", "items": _SCALAR, "minItems": 2, "maxItems": 2}
    expect: dict[str, Schema] = {
        "balances": _mapping_of(rows(BALANCE_COLUMNS)),
        "tiers": rows(TIER_COLUMNS),
        "referrals": rows(REFERRAL_COLUMNS),
        "rewards": _mapping_of(_list_of(_SCALAR)),
        "counts": _object(dict.fromkeys(REWARD_TYPES, _NUMBER)),
        "quarantined": _mapping_of({"enum": [None, "null", ANY, *(reason.value for reason in Reason)]}),
        "refused": _mapping_of(_list_of(pair)),
    }
    case: dict[str, Schema] = {
        "id": _SCALAR, "source": _SCALAR, "programme": {"type": ["object", "string"]},
        "others": {"type": "object", "additionalProperties": {"type": ["object", "string"]}}, "events": _list_of(event),
        "until": {"type": "string"}, "expect": _object(expect),
    }  # fmt: skip
    return _object(case, ("id", "events", "expect"))
