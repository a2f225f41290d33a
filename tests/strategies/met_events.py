"""Make histories of events that the rules of tests.strategies.programmes can meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from engine.intake.own_events import (
    Attribution,
    Forwarded,
    ForwardedActivity,
    ForwardedPurchase,
    ForwardedSignup,
    Referee,
)
from schemas.events import INT64_MAX, Activity, Item, MemberEvent, Profile, Purchase, Refund, Share, Signup, Tender
from tests.strategies.programmes import ATTRIBUTES, DAY_MS, FIRST_MS, WORDS

_amounts = st.sampled_from([0, 99, 150, 2_500, INT64_MAX]) | st.integers(0, 4_000) | st.integers(0, INT64_MAX)


_word = st.sampled_from(WORDS)


_head: dict[str, Any] = {
    "event_id": st.uuids().map(str),
    "member_id": st.sampled_from(["m1", "m1", "会员"]),
    "occurred_at": st.integers(FIRST_MS, FIRST_MS + 2 * DAY_MS) | st.integers(FIRST_MS, FIRST_MS + 12 * DAY_MS),
    "attributes": st.none() | st.dictionaries(st.sampled_from(ATTRIBUTES), _word),
}


_lines = st.builds(
    Item,
    line_id=st.just("l"),
    sku=_word,
    quantity=st.sampled_from(["0", "0.5", "1", "2.000001", "999999999999.999999"]),
    amount=_amounts,
    category=st.none() | _word,
    brand=st.none() | _word,
)


_birthday = st.sampled_from(["1990-03-10", "--03-11", "2000-02-29", "--09-09", "1971-12-31"])


_tenders = st.builds(Tender, kind=st.sampled_from(["card", "cash"]), amount=_amounts)


_order_ids = st.sampled_from(["o1", "o2"]) | st.uuids().map(str)


purchases = st.builds(
    Purchase,
    **_head,
    order_id=_order_ids,
    currency=st.just("USD"),
    amount=_amounts,
    tax=st.none() | _amounts,
    channel=st.none() | _word,
    coupons=st.none() | st.lists(_word, max_size=3).map(tuple),
    tenders=st.none() | st.lists(_tenders, max_size=2).map(tuple),
    items=st.none() | st.lists(_lines, max_size=3).map(tuple),
)


_signups = st.builds(
    Signup,
    **_head,
    channel=st.none() | _word,
    birthday=st.none() | _birthday,
    identity=st.none() | st.dictionaries(st.just("email"), _word),
)


_profiles = st.builds(
    Profile,
    **_head | {"attributes": st.dictionaries(st.sampled_from(ATTRIBUTES), st.none() | _word)},
    birthday=st.none() | _birthday,
)


_activities = st.builds(
    Activity,
    **_head,
    kind=_word,
    quantity=st.integers(0, 4),
    score=st.none() | st.integers(-3, 10),
)


_shares = st.builds(
    Share, **_head, object=st.sampled_from(WORDS[:4]), channel=_word, verified=st.none() | st.booleans()
)


_refunds = st.builds(
    Refund,
    **_head,
    order_id=_order_ids,
    refund_id=st.uuids().map(str),
    amount=st.none() | st.integers(0, 3_000),
)


member_events: st.SearchStrategy[MemberEvent | Profile] = st.one_of(
    purchases, purchases, purchases, _signups, _profiles, _activities, _shares, _refunds
)


histories = st.lists(member_events, min_size=1, max_size=16)


profile_histories = st.lists(st.one_of(_profiles, _profiles, _signups, _shares, purchases), min_size=4, max_size=16)


_attributions = st.builds(
    Attribution, **_head, status=st.just("attributed"), referrer_id=st.sampled_from(["m2", "m3"]),
    flags=st.sampled_from([(), ("burst",)]),
)  # fmt: skip


def _carried(event: MemberEvent) -> ForwardedPurchase | ForwardedActivity | ForwardedSignup:
    kinds: dict[type[MemberEvent], Any] = {
        Purchase: ForwardedPurchase, Activity: ForwardedActivity, Signup: ForwardedSignup,
    }  # fmt: skip
    carried: ForwardedPurchase | ForwardedActivity | ForwardedSignup
    carried = kinds[type(event)](**{name: getattr(event, name) for name in event.__struct_fields__})
    return carried


_forwarded = st.builds(
    lambda event, flagged, signup_ms, channel, counted: Forwarded(
        event_id=f"forwarded:{event.event_id}", member_id="m1", occurred_at=event.occurred_at, referee_id="r",
        event=_carried(event), number=counted[0], spend=counted[1], signup_ms=signup_ms, channel=channel,
        flagged=flagged, referee=Referee(channel),
    ),
    st.one_of(purchases, purchases, _activities, _signups),
    st.booleans(),
    st.none() | st.integers(FIRST_MS, FIRST_MS + DAY_MS),
    st.none() | _word,
    st.tuples(st.integers(1, 3), st.integers(0, 5_000)),
)  # fmt: skip


referral_histories = st.lists(st.one_of(_forwarded, _forwarded, _attributions, purchases), min_size=2, max_size=16)
