"""Make events of every type whose fields lie at their edges and just beyond: what a person or a defect may send."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from hypothesis import strategies as st

from schemas.bounds import (
    AMOUNT,
    BIRTHDAY,
    COUNT,
    FIELDS,
    PARTS,
    QUANTITY,
    SCORE,
    SIGNED,
    Bound,
    Instant,
    Records,
    Text,
    TextMap,
    Texts,
)
from schemas.events import INT64_MAX, OCCURRED_AT_MS_END
from schemas.scalars import iso_from_instant
from tests.system.load import START_MS

DAY_MS = 86_400_000
MEMBERS = ("ann", "bob", "eve", "=cmd|' /C calc'!A0", "\u202egnip", "\u200b", "café", "cafe\u0301", "\U0001f9d1" * 200)
"""Few, so that what they do meets: signups of one another, refunds of orders, redemptions of points."""

_LENGTHS = (1, 63, 64, 65, 199, 200, 201, 999, 1_000, 1_001)


def _noise(length: int, first: int, last: int) -> str:
    """Return characters that no index can compress, the same for the same length."""
    chance = random.Random(length)  # noqa: S311  a test must repeat
    return "".join(chr(chance.randint(first, last)) for _ in range(length))


LONG = tuple(_noise(length, 0x61, 0x7A) for length in _LENGTHS)
ASTRAL = tuple(_noise(length, 0x1F300, 0x1F5FF) for length in _LENGTHS)
NASTY = (
    "\0", "AB\0", "\n", "\x1b]0;PWNED\x07", "\x7f", "\x85", "\ud800", "\udc00\ud800", "\u202e", "\u200b",
    "\ufeff", "\u2028", "", " ", "%s", "%(x)s", "{}", "\\", "'", '"', "null", "NaN", "-", ":", "a:b",
    "forwarded:default:e", "attribution:",
)  # fmt: skip
texts = st.sampled_from(("a", "north", "link", "web", *NASTY, *LONG, *ASTRAL)) | st.text(max_size=5)
plain_texts = st.sampled_from(("a", "north", "link", "web", "email"))
integers = st.sampled_from((0, 1, 99, 1_000, 2_500, 2**31, 2**62, INT64_MAX - 1, INT64_MAX)) | st.integers(0, 9_999)
odd_integers = st.sampled_from((-1, -INT64_MAX - 1, 2**63, 2**64, 10**30))
quantities = st.sampled_from(("1", "0", "0.5", "999999999999", "999999999999.999999", 1, 2.5))
odd_quantities = st.sampled_from(("1000000000000", "-1", "1e3", "", 10**30))
birthdays = st.sampled_from(("1980-02-29", "--02-29", "0001-01-01", "9999-12-31"))
odd_birthdays = st.sampled_from(("2001-02-29", "", "\0", "1980-1-1"))


def instants(days: int) -> st.SearchStrategy[str]:
    """Return times within some days of the start, and a few of all others that can be written."""
    edges = (0, 63_071_999_999, 63_072_000_000, START_MS + 4_000 * DAY_MS, OCCURRED_AT_MS_END - 1)
    return _mostly(st.integers(START_MS, START_MS + days * DAY_MS), st.sampled_from(edges)).map(iso_from_instant)


def _mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return one odd value among forty: an event has a dozen fields, and half of the events should be taken."""
    return st.integers(0, 39).flatmap(lambda chance: odd if chance == 39 else usual)


def of_bound(bound: Bound) -> st.SearchStrategy[Any]:  # noqa: PLR0911  one answer for each kind of bound
    """Return values for a field, mostly valid ones."""
    if isinstance(bound, Text):
        within = tuple(text for text in (*LONG, *ASTRAL) if bound.least <= len(text) <= bound.most)
        return _mostly(plain_texts | st.sampled_from(within), texts)
    if isinstance(bound, Texts):
        many: Any = ["a"] * (bound.entries_max + 1)
        return _mostly(st.lists(of_bound(bound.each), max_size=3), st.just(many))
    if isinstance(bound, TextMap):
        many = {str(number): "" for number in range(bound.entries_max + 1)}
        return _mostly(st.dictionaries(of_bound(bound.key), of_bound(bound.value), max_size=3), st.just(many))

    if isinstance(bound, Instant):
        return instants(40)
    if isinstance(bound, Records):
        return st.lists(records(PARTS[bound.kind]), max_size=3)

    numbers = {AMOUNT: integers, COUNT: integers, SIGNED: integers | integers.map(lambda n: -n), SCORE: integers}
    if bound in numbers:
        return _mostly(numbers[bound], odd_integers)
    if bound == QUANTITY:
        return _mostly(quantities, odd_quantities)
    return _mostly(birthdays, odd_birthdays) if bound == BIRTHDAY else st.booleans()


def records(bounds: dict[str, Bound]) -> st.SearchStrategy[dict[str, Any]]:
    """Return records of a list, each with all of its fields."""
    return st.fixed_dictionaries({name: of_bound(bound) for name, bound in bounds.items()})


def _actions(kind: str) -> tuple[str, ...]:
    if kind == "decision":
        return ("adjust", "opening", "referral_release", "referral_void")
    return ("reserve", "capture", "void", "spend", "restore")


_OWN: dict[str, st.SearchStrategy[Any]] = {
    "member_id": st.sampled_from(MEMBERS),
    "event_id": _mostly(st.uuids().map(str) | st.uuids().map(lambda each: str(each) + "x" * 164), texts),
    "source": st.sampled_from(("default", "s" * 200, "till-7", "a:b")),
    "currency": _mostly(st.just("USD"), texts),
    "order_id": _mostly(st.sampled_from(("o1", "o2", "o3", "o4")) | st.uuids().map(str), texts),
    "refund_id": _mostly(st.sampled_from(("r1", "r2", "r3")), texts),
    "redemption_id": _mostly(st.sampled_from(("x1", "x2", "x3")), texts),
    "referral_code": _mostly(st.sampled_from(("GOLD", "SILVER", LONG[2])), texts),
    "referrer_id": _mostly(st.sampled_from(MEMBERS), texts),
    "visitor": _mostly(st.sampled_from(("v1", "v2", "v" * 200)), texts),
    "reward": _mostly(st.sampled_from(("mug", "off", "pay")), texts),
    "unit": _mostly(st.sampled_from(("points", "USD", "status")), texts),
    "tier": _mostly(st.sampled_from(("a", "c", "unknown")), texts),
    "line_id": st.sampled_from(("1", "2")),
    "verified": st.booleans(),
}


@cache
def objects(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return events of a type, as JSON has them; optional fields are left out half of the time."""
    bounds = FIELDS[kind]
    made: dict[str, st.SearchStrategy[Any]] = {}
    for name, bound in bounds.items():
        if name == "action":
            made[name] = st.sampled_from(_actions(kind))
        elif name == "items" and kind == "purchase":
            made[name] = st.none()
        else:
            made[name] = _OWN[name] if name in _OWN else of_bound(bound)
        if name not in _REQUIRED:
            made[name] = st.none() | made[name]
    return st.fixed_dictionaries(made).map(lambda found: _spelt(kind, found))


_REQUIRED = frozenset(
    ("event_id", "member_id", "occurred_at", "order_id", "currency", "refund_id", "redemption_id", "action", "object",
     "channel", "kind")
)  # fmt: skip


def _spelt(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return an event without what is left out, and a purchase whose lines, if any, are its amount."""
    event = {"type": kind} | {name: value for name, value in found.items() if value is not None}
    if kind == "purchase":
        event.setdefault("amount", 4_200)
        if event["amount"] % 3 == 0:
            first = event["amount"] // 3
            lines = [(first, "0.5"), (event["amount"] - first, "999999999999.999999")]
            event["items"] = [
                {"line_id": f"{at}", "sku": "s", "quantity": quantity, "amount": amount, "category": "north"}
                for at, (amount, quantity) in enumerate(lines, 1)
            ]
    if kind == "touch":
        event.setdefault("referral_code", "AB")
        event.setdefault("visitor", "v1")
    return event


def histories(events: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return lists of events of all types."""
    weights = (*FIELDS, "purchase", "purchase", "purchase", "signup", "signup", "refund", "redemption", "share")
    usual = [kind for kind in weights if kind != "erasure"] * 6 + ["erasure"]
    return st.lists(st.sampled_from(usual).flatmap(objects), min_size=events, max_size=events)
