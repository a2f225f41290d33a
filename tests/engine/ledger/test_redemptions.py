"""Redemptions at their edges: what a reservation promises is kept, whatever happens before its capture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from operations.simulate.run import simulate

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: EUR\n"
RULES = "rules: [{id: welcome, on: signup, give: [{points: 1000}]}]\n"
CATALOGUE = """catalogue:
- {id: mug, kind: gift, points: 300}
- {id: ticket, kind: coupon, points: 300}
- {id: pay, kind: money, points_per: {100: 1.00}}
"""
Line = dict[str, Any]


def at(hour: int, kind: str, **fields: Any) -> Line:
    when = f"2026-03-01T{hour:02}:00:00Z"
    return {"type": kind, "event_id": f"e{hour}", "member_id": "ann", "occurred_at": when, **fields}


def run(folder: Path, lines: list[Line], catalogue: str = CATALOGUE) -> dict[str, list[dict[str, Any]]]:
    """Simulate lines by a programme with a catalogue; `later.yaml` is the same without one."""
    (folder / "programme.yaml").write_text(HEAD + catalogue + RULES, encoding="utf-8")
    (folder / "later.yaml").write_text(HEAD + RULES, encoding="utf-8")
    events = folder / "events.jsonl"
    events.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return simulate(folder / "programme.yaml", [events]).document()


@pytest.mark.parametrize("reward", ["mug", "ticket"])
def test_a_reserved_reward_that_the_programme_drops_is_handed_out_at_its_capture(reward: str, tmp_path: Path) -> None:
    document = run(
        tmp_path,
        [
            at(1, "signup"),
            at(2, "redemption", action="reserve", redemption_id="r", reward=reward),
            {"type": "activation", "programme": "later.yaml"},
            at(3, "redemption", action="capture", redemption_id="r"),
        ],
    )
    assert [row["item"] for row in document["rewards"]] == [reward]
    assert [row["spent"] for row in document["balances"]] == [300]


def test_points_that_paid_come_back_in_proportion_where_the_programme_has_dropped_the_reward(tmp_path: Path) -> None:
    document = run(
        tmp_path,
        [
            at(1, "signup"),
            at(2, "redemption", action="reserve", redemption_id="r", reward="pay", order_id="o", order_amount=1000),
            {"type": "activation", "programme": "later.yaml"},
            at(3, "redemption", action="capture", redemption_id="r"),
            at(4, "purchase", order_id="o", currency="EUR", amount=1000),
            at(5, "refund", order_id="o", refund_id="f", amount=400),
        ],
    )
    assert [(row["spent"], row["available"]) for row in document["balances"]] == [(600, 400)]
