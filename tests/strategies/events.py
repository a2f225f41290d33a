"""Make events of every type for property tests; each is one that the contract takes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas.events import (
    EVENT_TYPES,
    INT64_MAX,
    OCCURRED_AT_MS_END,
    Activity,
    Decision,
    Erasure,
    Event,
    Item,
    Profile,
    Purchase,
    Redemption,
    Refund,
    RefundItem,
    Share,
    Signup,
    Tender,
    Touch,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
amounts = st.integers(0, INT64_MAX) | st.integers(0, 10_000)
instants = st.integers(0, OCCURRED_AT_MS_END - 1)
counts = st.integers(0, 999_999_999_999)
quantities = st.builds(
    lambda whole, part: f"{whole}.{part:06}".rstrip("0").rstrip("."), counts, st.integers(0, 999_999) | st.just(0)
)
birthdays = st.dates().map(str) | st.sampled_from(["--02-29", "--12-31"])
text_maps = st.dictionaries(texts, texts, max_size=3)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def _some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return _maybe(st.lists(strategy, max_size=3).map(tuple))


_head: dict[str, st.SearchStrategy[Any]] = {
    "event_id": ids,
    "occurred_at": instants,
    "source": ids | st.just("default"),
    "attributes": _maybe(text_maps),
}
_member = _head | {"member_id": ids}

items = st.builds(
    Item,
    line_id=ids,
    sku=ids,
    quantity=quantities,
    amount=amounts,
    category=_maybe(texts),
    brand=_maybe(texts),
)
refund_items = st.builds(RefundItem, line_id=ids, amount=amounts, quantity=_maybe(quantities))
tenders = st.builds(Tender, kind=ids, amount=amounts)

BY_TYPE: dict[str, st.SearchStrategy[Event]] = {
    "purchase": st.builds(
        Purchase,
        **_member,
        order_id=ids,
        currency=texts,
        amount=amounts,
        gross=_maybe(amounts),
        shipping=_maybe(amounts),
        tax=_maybe(amounts),
        channel=_maybe(texts),
        store=_maybe(texts),
        brand=_maybe(texts),
        coupons=_some(texts),
        tenders=_some(tenders),
        items=_some(items),
    ),
    "refund": st.builds(
        Refund, **_member, order_id=ids, refund_id=ids, amount=_maybe(amounts), items=_some(refund_items)
    ),
    "signup": st.builds(
        Signup,
        **_member,
        referral_code=_maybe(texts),
        referrer_id=_maybe(texts),
        visitor=_maybe(texts),
        channel=_maybe(texts),
        birthday=_maybe(birthdays),
        identity=_maybe(text_maps),
    ),
    "profile": st.builds(
        Profile,
        **(_member | {"attributes": _maybe(st.dictionaries(texts, _maybe(texts), max_size=3))}),
        birthday=_maybe(birthdays),
        identity=_maybe(text_maps),
    ),
    "erasure": st.builds(Erasure, **_member),
    "share": st.builds(
        Share, **_member, object=ids, channel=ids, campaign=_maybe(texts), verified=_maybe(st.booleans())
    ),
    "touch": st.builds(
        Touch, **_head, referral_code=ids, visitor=ids, channel=_maybe(texts), identity=_maybe(text_maps)
    ),
    "activity": st.builds(
        Activity,
        **_member,
        kind=ids,
        object=_maybe(texts),
        quantity=amounts,
        score=_maybe(st.integers(-INT64_MAX - 1, INT64_MAX)),
        campaign=_maybe(texts),
    ),
    "redemption": st.builds(
        Redemption,
        **_member,
        action=st.sampled_from(["reserve", "capture", "void", "spend", "restore"]),
        redemption_id=ids,
        reward=_maybe(texts),
        amount=_maybe(amounts),
        unit=_maybe(texts),
        order_id=_maybe(texts),
        order_amount=_maybe(amounts),
    ),
    "decision": st.builds(
        Decision,
        **_member,
        action=st.sampled_from(["adjust", "referral_release", "referral_void", "opening"]),
        amount=_maybe(st.integers(-INT64_MAX, INT64_MAX)),
        unit=_maybe(texts),
        reason=_maybe(texts),
        expires_at=_maybe(instants),
        tier=_maybe(texts),
        referral_code=_maybe(texts),
    ),
}
"""A strategy for each event type, by the type's name."""

events = st.one_of(*(BY_TYPE[name] for name in EVENT_TYPES))
upstream_events = st.one_of(*(BY_TYPE[name] for name in EVENT_TYPES if name != "decision"))
