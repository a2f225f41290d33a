"""Compare the product with the ledger's model on histories where they once differed, each as small as possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from schemas.scalars import instant_from_iso
from tests.models.comparison import differences, modelled, simulated
from tests.models.family import Settings, Tiers
from tests.strategies.ledger_histories import History

if TYPE_CHECKING:
    from pathlib import Path

UNTIL = "2024-03-06T10:00:00Z"
Line = dict[str, Any]


def on(day: int, kind: str, name: str, **fields: Any) -> Line:
    """Return an event of m1 on a day of March 2024."""
    at = f"2024-03-{day:02}T10:00:00Z"
    return {"type": kind, "event_id": name, "member_id": "m1", "occurred_at": at, **fields}


def bought(day: int, number: int, amount: int, **fields: Any) -> Line:
    return on(day, "purchase", f"p{number}", order_id=f"o{number}", currency="EUR", amount=amount, **fields)


def returned(day: int, order: int, number: int = 1, **goods: Any) -> Line:
    return on(day, "refund", f"r{number}", order_id=f"o{order}", refund_id=f"r{number}", **goods)


def spend_tiers(window: str, downgrade: str = "balance_based") -> Tiers:
    return Tiers("spend", window, downgrade, None, 10_000, 30_000)


HALF_A_KILO = [{"line_id": "l", "sku": "s", "quantity": "0.5", "amount": 5_000}]
FOUND: dict[str, tuple[Settings, list[Line]]] = {
    "a multiplier's base is what rules of its phase gave before it, not what on: tier gave after": (
        Settings(status=True, boost=True, hello_gold=True, tiers=Tiers()),
        [bought(1, 1, 20_000), bought(2, 2, 20_000), returned(3, 2, amount=10_000)],
    ),
    "a late purchase that makes the rolling sum reach a level is the event that reaches it": (
        Settings(tiers=spend_tiers("rolling 365d")),
        [bought(1, 1, 5_000), bought(5, 2, 3_000), bought(4, 3, 4_000)],
    ),
    "a late correction of status that makes the rolling sum reach a level is the event that reaches it": (
        Settings(status=True, tiers=Tiers(window="rolling 365d")),
        [
            bought(1, 1, 2_000),
            bought(5, 2, 3_000),
            on(4, "decision", "d1", action="adjust", amount=60, unit="status", reason="test"),
        ],
    ),
    "a fall by a late refund is dated at the refund, in the log and in member_tier alike": (
        Settings(tiers=spend_tiers("lifetime")),
        [bought(1, 1, 15_000), bought(5, 2, 100), returned(4, 1)],
    ),
    "a refund that waited lowers the tier at its purchase, not before": (
        Settings(tiers=spend_tiers("lifetime")),
        [returned(1, 1), bought(2, 1, 15_000)],
    ),
    "nothing is left of a line whose whole amount came back without a quantity": (
        Settings(units=True),
        [bought(1, 1, 5_000, items=HALF_A_KILO), returned(2, 1, items=[{"line_id": "l", "amount": 5_000}])],
    ),
    "an order that came back whole leaves a level that no number earned as it was": (
        Settings(tiers=spend_tiers("calendar_year", "one_down")),
        [
            bought(1, 1, 40_000) | {"occurred_at": "2022-03-01T10:00:00Z"},
            bought(1, 2, 12_000),
            returned(2, 2),
        ],
    ),
}


@pytest.mark.parametrize("promise", FOUND)
def test_the_product_keeps(promise: str, tmp_path: Path) -> None:
    settings, lines = FOUND[promise]
    history = History(lines, instant_from_iso(UNTIL, "until"))
    document = simulated(settings, history, tmp_path)
    assert differences(modelled(settings, history, document), document) == []
