"""Refunds judge the rest of an order by what was true at its award, not by what is true now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from engine.evaluate import fold
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from engine.store.members.member_states import encode_state
from operations.simulate.run import simulate
from schemas.canonical import event_identity
from schemas.json_events import event_from_object
from schemas.scalars import instant_from_iso
from tests.programme_text import written

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\n"
RATE = "{points: {rate: 1, per: 1.00, of: purchase.amount}}"
PROFILED = HEAD + (
    written(
        """\
rules:
- {id: base, on: purchase, give: [$rate]}
- {id: party, on: purchase, when: {member.birthday: {within: 3d}}, give: [{points: 7}]}
- {id: city, on: purchase, phase: boost,
   give: [{multiply: {phase: base, key: member.attributes.city, by: {Oslo: 3}}}]}
""",
        rate=RATE,
    )
)


def event(number: int, kind: str, at: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": f"e{number}", "member_id": "m1", "occurred_at": f"{at}T10:00:00Z", **fields}


def purchase(number: int, at: str, amount: int, **fields: Any) -> dict[str, Any]:
    return event(number, "purchase", at, order_id=f"o{number}", currency="USD", amount=amount, **fields)


def refund(number: int, at: str, of: int, amount: int | None = None) -> dict[str, Any]:
    part = {} if amount is None else {"amount": amount}
    return event(number, "refund", at, order_id=f"o{of}", refund_id=f"r{number}", **part)


@pytest.fixture
def balance(tmp_path: Path) -> Any:
    def run(programme: str, *events: dict[str, Any]) -> dict[str, Any]:
        (tmp_path / "p.yaml").write_text(programme, encoding="utf-8")
        (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(each) for each in events), encoding="utf-8")
        rows = simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"]).document()["balances"]
        (points,) = (row for row in rows if row["unit"] == "points")
        return dict(points)

    return run


JOINED = event(1, "signup", "2024-05-01", birthday="1990-05-04", attributes={"city": "Oslo"})
MOVED = event(3, "profile", "2024-06-20", birthday="1990-12-24", attributes={"city": "Rome"})


def test_what_a_member_told_counts_as_it_was_at_the_purchase(balance: Any) -> None:
    """40.00 on the birthday: 40 + 7, times 3 by the city: 40 + 7 + 94. Half comes back: 20 + 7 + 54 stay."""
    bought = purchase(2, "2024-05-04", 4_000)
    assert balance(PROFILED, JOINED, bought)["available"] == 40 + 7 + 94
    assert balance(PROFILED, JOINED, bought, MOVED, refund(4, "2024-06-21", 2, 2_000))["available"] == 20 + 7 + 54
    assert balance(PROFILED, JOINED, bought, MOVED, refund(4, "2024-06-21", 2))["available"] == 0


def test_nothing_of_what_a_member_told_is_kept_beside_an_order() -> None:
    programme = load_programme(PROFILED, "p.yaml").programme
    assert programme is not None
    judge, state = compile_programme(programme, 1), MemberState()
    books = MemoryBooks(lambda _: judge)
    for line in (JOINED, purchase(2, "2024-05-04", 4_000)):
        happened: Any = event_from_object(line)
        fold(state, happened, Occurrence(event_identity("default", line["event_id"]), 1, 0), judge, books)
    assert state.orders["o2"].facts == (True, (2, 1))
    stored = encode_state(state)
    assert b"Oslo" not in stored
    assert b"05-04" not in stored


def test_history_counts_as_it_was_and_falls_with_the_order(balance: Any) -> None:
    """The third order finds two before it and earns 10 on top; the first two come back: it keeps the 10."""
    programme = HEAD + (
        "metrics: {orders: {count: purchase}, spent: {sum: purchase.amount}}\nrules:\n"
        "- {id: third, on: purchase, when: {history.orders: {gte: 2}}, give: [{points: 10}]}\n"
        "- {id: big, on: purchase, when: {history.spent: {gte: 50.00}}, give: [{points: 1}]}\n"
    )
    bought = [purchase(n, f"2024-05-0{n}", 2_000) for n in (1, 2, 3)]
    back = [refund(n, f"2024-05-1{n}", n - 3) for n in (4, 5)]
    assert balance(programme, *bought, *back)["available"] == 10
    assert balance(programme, *bought, *back, purchase(6, "2024-05-20", 2_000))["available"] == 10, "one order is left"
    assert balance(programme, *bought, purchase(6, "2024-05-20", 2_000))["available"] == 21


def test_a_metric_gives_up_an_order_that_earned_nothing(balance: Any) -> None:
    """Only orders of members who hold a badge count; the order that counted earned nothing and comes back."""
    programme = HEAD + (
        "metrics: {orders: {count: purchase, where: {member.held.vip: true}}}\nrules:\n"
        "- {id: badge, on: share, give: [{badge: vip}, {points: 1}]}\n"
        "- {id: again, on: purchase, when: {history.orders: {gte: 1}}, give: [{points: 10}]}\n"
    )
    shared = event(1, "share", "2024-05-01", object="a", channel="link")
    bought = [shared, purchase(2, "2024-05-02", 100), refund(3, "2024-05-03", 2), purchase(4, "2024-05-04", 100)]
    assert balance(programme, *bought)["available"] == 1
    assert balance(programme, bought[0], bought[1], bought[3])["available"] == 11


def test_a_refund_later_than_anything_is_kept_for_is_refused(balance: Any) -> None:
    programme = HEAD + written("refunds: {window: 10d}\nrules:\n- {id: base, on: purchase, give: [$rate]}\n", rate=RATE)
    late = [purchase(1, "2024-05-01", 1_000), purchase(2, "2024-05-30", 100), refund(3, "2024-05-09", 1)]
    assert balance(programme, *late)["available"] == 11
    assert balance(programme, late[0], late[2], late[1])["available"] == 1


def test_a_level_that_was_brought_along_is_kept_for_a_window_that_rolls(tmp_path: Path) -> None:
    tiers = "tiers: {metric: status, window: rolling 30d, levels: [{id: low, from: 0}, {id: gold, from: 1000}]}\n"
    rule = "rules:\n- {id: base, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"
    (tmp_path / "p.yaml").write_text(HEAD + tiers + rule, encoding="utf-8")
    brought = event(1, "decision", "2024-05-01", action="opening", tier="gold", reason="moved in")
    events = [brought, purchase(2, "2024-05-10", 1_000), refund(3, "2024-05-11", 2)]
    (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(each) for each in events), encoding="utf-8")

    def tier(until: str) -> str:
        document = simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"], instant_from_iso(until, "until")).document()
        return str(document["tiers"][0]["tier"])

    assert [tier(f"2024-{day}T10:00:00Z") for day in ("05-12", "05-30", "06-01")] == ["gold", "gold", "low"]


def test_a_refund_of_what_a_rolling_window_has_forgotten_takes_nothing_from_what_it_still_counts(
    tmp_path: Path,
) -> None:
    """20.00 in January left the window of 30 days long ago; their refund in April leaves 94.00 of March and April."""
    (tmp_path / "p.yaml").write_text(
        HEAD
        + written(
            """\
metrics: {spent: {sum: purchase.amount}}
refunds: {window: 400d}
tiers: {metric: spent, window: rolling 30d, levels: [{id: low, from: 0}, {id: gold, from: 500.00}]}
rules:
- {id: base, on: purchase, give: [$rate]}
""",
            rate=RATE,
        ),
        encoding="utf-8",
    )
    days = [(1, "2024-01-01", 2_000), (2, "2024-03-20", 5_000), (3, "2024-04-05", 4_400)]
    events = [*(purchase(*day) for day in days), refund(4, "2024-04-06", 1)]
    (tmp_path / "e.jsonl").write_text("\n".join(json.dumps(each) for each in events), encoding="utf-8")
    (tier,) = simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"]).document()["tiers"]
    assert tier["qualifying"] == 9_400
