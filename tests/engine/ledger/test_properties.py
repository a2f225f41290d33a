"""The ledger's promises on refunds and on time hold for any programme, order and history."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from schemas.scalars import instant_from_iso, iso_from_instant
from tests.models.comparison import simulated
from tests.strategies.ledger_histories import (
    DAY_MS,
    Adjust,
    History,
    Step,
    programmes,
    steps,
    written,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.comparison import Document, Row
    from tests.models.family import Settings

START = "2024-03-05T10:00:00Z"
EVERY_WAIT_BELOW_A_WEEK = 4
many = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
Line = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("family")


def balances(document: Document) -> list[Row]:
    """Return balances without the instant at which they were read."""
    return [{name: value for name, value in row.items() if name != "as_of"} for row in document["balances"]]


def refund(number: int, at: str, order_id: str, **goods: Any) -> Line:
    """Return a refund of an order of m1: by `items`, by `amount`, or of the whole rest."""
    head = {"type": "refund", "event_id": f"r{number}", "member_id": "m1", "occurred_at": at}
    return head | {"order_id": order_id, "refund_id": f"r{number}"} | goods


quiet_steps = st.lists(
    steps.map(lambda step: replace(step, late=None, member="m1", wait=min(step.wait, EVERY_WAIT_BELOW_A_WEEK))),
    max_size=8,
)
"""Steps of one member in order, that together last less than the window of refunds."""


@st.composite
def parted(draw: st.DrawFn, amount: int, most: int) -> list[int]:
    """Return up to `most` positive parts of an amount; together they may be less than it."""
    parts: list[int] = []
    while len(parts) < most and (left := amount - sum(parts)):
        parts.append(draw(st.integers(1, left)))
    return parts


@st.composite
def orders_with_two_ways_back(draw: st.DrawFn) -> tuple[list[Line], list[Line], list[Line]]:
    """Return an order paid with points, and two lists of refunds of the same goods: many, and as few as possible."""
    at = iso_from_instant(instant_from_iso(START, "start") + 60 * DAY_MS)
    amounts = draw(st.lists(st.integers(100, 20_000), min_size=1, max_size=3))
    items: list[Line] = [
        {
            "line_id": f"l{n}",
            "sku": "s",
            "category": draw(st.sampled_from(("food", "toys"))),
            "quantity": 2,
            "amount": a,
        }
        for n, a in enumerate(amounts)
    ]
    order = {
        "type": "purchase", "event_id": "the-order", "member_id": "m1", "occurred_at": at, "order_id": "the-order",
        "currency": "EUR", "amount": sum(amounts), "items": items,
    }  # fmt: skip

    # points have paid for a part of it
    payment = {
        "type": "redemption", "event_id": "payment", "member_id": "m1", "occurred_at": at, "action": "spend",
        "redemption_id": "payment", "reward": "pay", "amount": draw(st.sampled_from((10, 30, 70))),
        "order_id": "the-order", "order_amount": sum(amounts),
    }  # fmt: skip

    # parts come back, by line first
    by_line = [(item["line_id"], part) for item in items for part in draw(parted(item["amount"] // 2, 2))]
    by_amount = draw(parted(sum(amounts) - sum(part for _, part in by_line), 3))
    steps_back: list[Line] = [{"items": [{"line_id": line, "amount": part}]} for line, part in by_line]
    steps_back += [{"amount": part} for part in by_amount]

    # one refund for each part, or one for all lines and one for the rest of the money
    several = [refund(n, at, "the-order", **goods) for n, goods in enumerate(draw(st.permutations(steps_back)))]
    few: list[Line] = []
    if by_line:
        few.append({"items": [{"line_id": line, "amount": part} for line, part in by_line]})
    if by_amount:
        few.append({"amount": sum(by_amount)})
    return [payment, order], several, [refund(n, at, "the-order", **goods) for n, goods in enumerate(few)]


@many
@given(settings=programmes, before=quiet_steps, goods=orders_with_two_ways_back())
def test_however_a_refund_is_split_the_order_has_earned_the_same(
    folder: Path, settings: Settings, before: list[Step], goods: tuple[list[Line], list[Line], list[Line]]
) -> None:
    settings = replace(settings, refund_window="90d", negative="unlimited")
    order, several, few = goods
    lines = [*written(settings, START, before, joins=True).lines, *order]
    until_ms = instant_from_iso(order[-1]["occurred_at"], "at")
    split = simulated(settings, History([*lines, *several], until_ms), folder)
    whole = simulated(settings, History([*lines, *few], until_ms), folder)
    assert balances(split) == balances(whole)
    assert [row["tier"] for row in split["tiers"]] == [row["tier"] for row in whole["tiers"]]


@many
@given(settings=programmes, before=quiet_steps)
def test_refunding_every_order_leaves_every_award_at_zero(folder: Path, settings: Settings, before: list[Step]) -> None:
    settings = replace(settings, refund_window="90d", negative="unlimited", welcome=False)
    earned = [step for step in before if not isinstance(step.act, Adjust)]
    history = written(settings, START, earned)
    at = iso_from_instant(history.until_ms)
    orders = dict.fromkeys(line["order_id"] for line in history.lines if line["type"] == "purchase")
    refunds = [refund(1_000 + n, at, order_id) for n, order_id in enumerate(orders)]
    document = simulated(settings, History([*history.lines, *refunds], history.until_ms), folder)
    assert [(row["unit"], row["granted"] - row["reversed"]) for row in document["balances"]] == [
        (row["unit"], 0) for row in document["balances"]
    ]


def movements(document: Document) -> dict[str, list[Row]]:
    """Return each member's reward events in order, without their places in the log and their source events."""
    rows: dict[str, list[Row]] = {}
    of_the_log = ("shard", "pos", "seq", "event_id", "recorded_at")
    for row in document["reward_events"]:
        said = {name: value for name, value in row.items() if name not in of_the_log}
        rows.setdefault(row["member_id"], []).append(said)
    return rows


@many
@given(data=st.data(), settings=programmes)
def test_ticks_change_no_balance_no_tier_and_no_amount(folder: Path, data: st.DataObject, settings: Settings) -> None:
    drawn = data.draw(st.lists(steps.map(lambda step: replace(step, late=None)), max_size=12))
    history = written(settings, START, drawn, data.draw(st.integers(0, 9)), joins=data.draw(st.booleans()))

    # up to two ticks before each event and at the end
    ticked: list[Line] = []
    now_ms = instant_from_iso(START, "start")
    for line in [*history.lines, {}]:
        next_ms = instant_from_iso(line["occurred_at"], "at") if "occurred_at" in line else now_ms
        next_ms = history.until_ms if not line else max(now_ms, next_ms)
        instants = sorted(data.draw(st.lists(st.integers(now_ms, next_ms), max_size=2)))
        ticked += [{"type": "tick", "occurred_at": iso_from_instant(at_ms)} for at_ms in instants]
        ticked += [line] if line else []
        now_ms = next_ms

    without = simulated(settings, history, folder)
    with_ticks = simulated(settings, History(ticked, history.until_ms), folder)
    assert balances(with_ticks) == balances(without)
    assert with_ticks["tiers"] == without["tiers"]
    assert movements(with_ticks) == movements(without)
