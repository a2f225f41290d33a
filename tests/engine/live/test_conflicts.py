"""An event that contradicts an earlier one is refused with a sentence: what differs, from which source, what to do."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from engine.live.conflicts import is_same_order, other_order
from schemas.events import Item, Purchase
from tests.engine.in_memory import event, judged

FIRST = Purchase(event_id="p1", source="till-1", member_id="ann", occurred_at=1_700_000_000_000, order_id="o",
                 currency="EUR", amount=1000)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "till-2", "amount": 1500},
         'came first from source "till-1" (event_id "p1"), and comes from source "till-2" with another amount;'),
        ({"amount": 1500, "items": (Item(line_id="1", sku="a", quantity="1", amount=1500),)},
         'came first from source "till-1" (event_id "p1"), and comes from the same one with another amount and items;'),
        ({"occurred_at": 1_700_000_000_001}, "with another occurred_at;"),
    ],
)  # fmt: skip
def test_an_order_that_came_otherwise_names_both_sources_and_what_differs(changes: dict[str, Any], says: str) -> None:
    again = structs.replace(FIRST, event_id="p2", **changes)
    assert not is_same_order(FIRST, again)
    assert says in other_order(FIRST, again)


@pytest.mark.parametrize("changes", [{"source": "till-2"}, {"coupons": ()}, {"items": (), "attributes": {}}])
def test_an_order_that_says_the_same_is_the_same(changes: dict[str, Any]) -> None:
    assert is_same_order(FIRST, structs.replace(FIRST, event_id="p2", **changes))


def test_a_simulation_says_what_to_do_when_an_order_grew_and_when_two_tills_number_alike() -> None:
    order = {"order_id": "o", "currency": "EUR"}
    document = judged(
        "rules: []\n",
        [event(1, "purchase", "ann", "2026-03-01", amount=4000, source="till-1", **order),
         event(2, "purchase", "ann", "2026-03-02", amount=5500, source="till-2", **order),
         event(1, "purchase", "ann", "2026-03-01", amount=4500, source="till-1", **order)],
    )  # fmt: skip
    grown, again = (row["message"] for row in document["quarantined"])
    assert grown == (
        'order "o" of this member came first from source "till-1" (event_id "e1"), and comes from source "till-2" with '
        "another occurred_at and amount; the first stands. Where the order grew, send what came to it under an "
        "order_id of its own; where it shrank, send a refund; where two sources number alike, let each write its name "
        "before its order ids"
    )
    assert again == (
        'event_id "e1" of source "till-1" came before with other content; the first stands: send a new event_id, or '
        "name each producer by a source of its own"
    )
