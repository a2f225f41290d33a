"""Admission takes an event or names why not, whatever the event holds."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.intake import admit
from schemas.events import (
    INT64_MAX,
    TYPE_NAMES,
    Decision,
    Event,
    Purchase,
    Redemption,
    Refund,
    RefundItem,
    Share,
    key_of,
)
from schemas.rejection import Reason, Rejected
from tests.strategies.events import BY_TYPE, events
from tests.system.batches import admitted, purchase
from tests.system.load import START_MS

LATEST_MS = START_MS + 300_000
NASTY = st.sampled_from(["\0", "a\0", "\n", "\x7f", "\x85", "\ud800", "ok", "ümlaut", "\u202e", "\u2028", "🎉"])


def reason_of(event: Event, latest_ms: int | None = None) -> Reason | None:
    try:
        admit.check(event, currency="USD", latest_ms=latest_ms)
    except Rejected as rejected:
        return rejected.reason if rejected.message else None
    return None


@settings(max_examples=400, deadline=None)
@given(events, st.none() | st.integers(0, 2**45))
def test_any_event_is_admitted_or_rejected_and_nothing_else_happens(event: Event, latest_ms: int | None) -> None:
    reason = reason_of(event, latest_ms)
    if latest_ms is not None and event.occurred_at > latest_ms:
        assert reason is Reason.FROM_THE_FUTURE
    if reason is None:
        record = admitted(event)
        assert record.kind == TYPE_NAMES[type(event)]
        assert (len(record.identity), len(record.digest)) == (32, 16)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([name for name in BY_TYPE if name != "touch"]), NASTY)
def test_no_id_that_a_log_or_terminal_cannot_keep_is_admitted(data: st.DataObject, kind: str, text: str) -> None:
    event = data.draw(BY_TYPE[kind])
    field = data.draw(st.sampled_from(["event_id", "member_id", "source"]))
    values = {name: getattr(event, name) for name in event.__struct_fields__} | {field: text}
    reason = reason_of(type(event)(**values))
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        assert reason in {Reason.OUT_OF_RANGE, Reason.WRONG_CURRENCY}
    if reason is None:
        assert key_of(type(event)(**values)).encode()


def test_an_event_is_from_the_future_from_the_first_millisecond_beyond_what_the_clock_allows() -> None:
    assert reason_of(purchase(1, occurred_at=LATEST_MS), LATEST_MS) is None
    assert reason_of(purchase(1, occurred_at=LATEST_MS + 1), LATEST_MS) is Reason.FROM_THE_FUTURE
    assert reason_of(purchase(1, occurred_at=LATEST_MS + 1), None) is None, "simulate has no wall clock"


def lines(*amounts: int) -> dict[str, Any]:
    from schemas.events import Item  # noqa: PLC0415  beside its only use

    items = (Item(line_id=f"{at}", sku="shoe", quantity="1", amount=amount) for at, amount in enumerate(amounts))
    return {"items": tuple(items)}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (purchase(1, **lines(400, 600)), None),
        (purchase(1, **lines(400, 601)), Reason.ITEMS_MISMATCH),
        (purchase(1, **lines()), None),
        (purchase(1, amount=0, **lines()), None),
        (purchase(1, amount=INT64_MAX, **lines(INT64_MAX, INT64_MAX)), Reason.ITEMS_MISMATCH),
        (purchase(1, currency="EUR"), Reason.WRONG_CURRENCY),
        (purchase(1, currency="usd"), Reason.WRONG_CURRENCY),
        (purchase(1, order_id="a\x1f"), Reason.OUT_OF_RANGE),
    ],
)
def test_a_purchase_must_add_up_in_the_programmes_currency(event: Purchase, reason: Reason | None) -> None:
    assert reason_of(event) is reason


HEAD: dict[str, Any] = {"event_id": "e", "member_id": "m", "occurred_at": START_MS}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Refund(**HEAD, order_id="o", refund_id="r"), None),
        (Refund(**HEAD, order_id="o", refund_id="r\0"), Reason.OUT_OF_RANGE),
        (Refund(**HEAD, order_id="o", refund_id="r", amount=1, items=()), None),
        (
            Refund(**HEAD, order_id="o", refund_id="r", items=(RefundItem(line_id="1", amount=INT64_MAX),) * 2),
            Reason.OUT_OF_RANGE,
        ),
        (Redemption(**HEAD, action="spend", redemption_id="r", unit="points"), None),
        (Redemption(**HEAD, action="spend", redemption_id="r", unit="USD"), None),
        (Redemption(**HEAD, action="spend", redemption_id="r", unit="EUR"), Reason.WRONG_CURRENCY),
        (Redemption(**HEAD, action="spend", redemption_id="r", reward="mug\0"), Reason.OUT_OF_RANGE),
        (Redemption(**HEAD, action="spend", redemption_id="r", reward=""), Reason.OUT_OF_RANGE),
        (Redemption(**HEAD, action="spend", redemption_id="r", reward="m" * 201), Reason.OUT_OF_RANGE),
        (Redemption(**HEAD, action="spend", redemption_id="r", order_id="o\0"), Reason.OUT_OF_RANGE),
        (Redemption(**HEAD, action="spend", redemption_id="r", reward="m" * 200, order_id="ö"), None),
        (Decision(**HEAD, action="adjust", amount=1, unit="points\0"), Reason.OUT_OF_RANGE),
        (Decision(**HEAD, action="opening", tier=""), Reason.OUT_OF_RANGE),
        (Share(**HEAD, object="o\0", channel="link"), Reason.OUT_OF_RANGE),
    ],
)
def test_each_type_is_checked_by_what_it_holds_alone(event: Event, reason: Reason | None) -> None:
    assert reason_of(event) is reason
