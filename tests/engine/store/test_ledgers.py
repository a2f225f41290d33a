"""The ledger in PostgreSQL: pages of lots, refunded orders and redemptions say what `simulate` says, in any batches."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.member.state import PAGE_LOTS
from engine.store.cursor import one
from engine.store.database import ANALYST, transaction
from operations.simulate.run import simulate
from operations.verify.checks import verify
from projections.runner import finish
from schemas.events import Erasure, Event, Redemption, Refund, Signup
from schemas.json_events import event_to_object
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PROGRAMME = """
schema: guerdon/1
programme: p
timezone: America/New_York
currency: USD
points: {validity: 8d}
refunds: {window: 3d}
metrics: {orders: {count: purchase}}
tiers:
  metric: status
  window: rolling 10d
  grace: 2d
  levels: [{id: low, from: 0}, {id: high, from: 40, benefits: [lounge]}]
catalogue: [{id: mug, points: 30, kind: gift, stock: 12}, {id: pay, kind: money, points_per: {10: 1.00}}]
reserve_for: 2d
rules:
- {id: base, on: purchase, hold: 36h, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: loyal, on: purchase, when: {history.orders: {gte: 3}}, give: [{points: 7}],
   limits: [{max: 20, per: member, every: week}]}
- {id: tiered, on: purchase, phase: boost, give: [{multiply: {phase: base, key: member.tier, by: {high: 1.5}}}]}
"""
COLUMNS = "granted, pending, active, reserved, spent, expired, settled, reversed, debt, available"


def history(seed: int, count: int, members: int) -> list[Event]:
    """Return purchases with what follows them, times rising; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  a history, no secret
    events: list[Event] = []
    orders: dict[str, list[str]] = {}
    at_ms = START_MS
    for n in range(count):
        at_ms += rng.randrange(1, 3 * HOUR_MS)
        member_id = f"m{rng.randrange(members)}"
        head: dict[str, Any] = {"event_id": f"e{n}", "member_id": member_id, "occurred_at": at_ms}

        # a purchase, a refund of one of the member's orders or of one to come, or a redemption
        kind = rng.random()
        of_member = orders.setdefault(member_id, [])
        if kind < 0.6 or not of_member:
            order_id = f"o{rng.randrange(n, n + 3)}-{member_id}"
            of_member.append(order_id)
            events.append(purchase(n, **head, order_id=order_id, amount=rng.randrange(0, 4_000)))
        elif kind < 0.8:
            amount = rng.choice([None, rng.randrange(1, 1_500)])
            order_id = rng.choice([*of_member, f"o{n + 1}-{member_id}"])
            events.append(Refund(**head, order_id=order_id, refund_id=f"r{n}", amount=amount))
        else:
            events.append(redemption(rng, head, n))
    return events


def redemption(rng: random.Random, head: dict[str, Any], n: int) -> Redemption:
    action = rng.choice(["reserve", "capture", "void", "spend", "restore"])
    what: dict[str, Any] = rng.choice([{"reward": "mug"}, {"reward": "pay"}, {"amount": rng.randrange(1, 30)}])
    return Redemption(
        **head,
        action=action,  # type: ignore[arg-type]  # one of the five
        redemption_id=f"s{rng.randrange(max(0, n // 9 - 2), n // 9 + 1)}",
        **what,
    )


def simulated(folder: Path, events: list[Event]) -> dict[str, list[dict[str, Any]]]:
    (folder / "p.yaml").write_text(PROGRAMME)
    (folder / "e.jsonl").write_text("\n".join(json.dumps(event_to_object(event)) for event in events))
    return simulate(folder / "p.yaml", [folder / "e.jsonl"]).document()


def rewards_of(document: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """Return the reward events of a simulation, without those of ticks, whose ids differ."""
    rows = document["reward_events"]
    names = (
        "member_id", "event_id", "type", "unit", "amount", "debit", "credit", "rule_id", "reason", "reward_key", "lot",
    )  # fmt: skip
    return sorted(
        (tuple(row[name] or "" for name in names) for row in rows if not row["event_id"].startswith("tick-")), key=str
    )


def rewards_in(database_url: str) -> list[tuple[Any, ...]]:
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute(
            """
            SELECT member_id, event_id, type, unit, amount, debit, credit, rule_id, reason, reward_key, lot
            FROM reward.reward_event
            """
        )
        return sorted((tuple(value or "" for value in row) for row in cursor.fetchall()), key=str)


@pytest.mark.parametrize(("batch_size", "seed"), [(1, 1), (7, 2), (500, 3)])
def test_what_is_stored_and_read_again_says_what_memory_says(
    database_url: str, tmp_path: Path, batch_size: int, seed: int
) -> None:
    events = history(seed, 260, 4)
    activate(database_url, PROGRAMME)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for first in range(0, len(events), batch_size):
            worker.commit(Batch([admitted(event) for event in events[first : first + batch_size]]))
    document = simulated(tmp_path, events)
    assert rewards_in(database_url) == rewards_of(document)

    # and it is a rich history, that leaves the database whole
    assert any(row["type"] == "points.expired" for row in document["reward_events"]), "the history is too tame"
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    with transaction(database_url) as cursor:
        (pages,) = one(cursor, "SELECT count(*) FROM guerdon.member_ledger WHERE part LIKE 'page:%%'")
        (largest,) = one(cursor, "SELECT max(length(state)) FROM guerdon.member_state")
    assert pages > 0, f"each batch turns a page of at least {PAGE_LOTS} lots"
    assert largest < 2_048


def test_a_ledger_forgets_what_no_refund_and_no_restore_can_need(database_url: str) -> None:
    """A lot a day for half a year, each gone after 8 days: the ledger holds the last weeks, and not the half year."""
    activate(database_url, PROGRAMME.replace("- {id: status", "# {id: status"))
    days = [purchase(n, occurred_at=START_MS + n * DAY_MS, amount=500) for n in range(180)]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for day in days:
            worker.commit(Batch([admitted(day)]))
    with transaction(database_url) as cursor:
        (parts, size) = one(cursor, "SELECT count(*), sum(length(body)) FROM guerdon.member_ledger")
    assert parts <= 2 * 18 / PAGE_LOTS + 3, "two lots a day, for 8 days and 10 more in which a refund may come"
    assert size < 8_000


def test_a_new_worker_goes_on_where_another_stopped(database_url: str, tmp_path: Path) -> None:
    events = history(4, 120, 2)
    activate(database_url, PROGRAMME)
    for first in range(0, len(events), 11):
        commit(database_url, Batch([admitted(event) for event in events[first : first + 11]]))
    assert rewards_in(database_url) == rewards_of(simulated(tmp_path, events))


def test_the_last_of_a_stock_is_taken_once_however_many_ask_at_once(database_url: str) -> None:
    """Eight workers, 40 members of different shards, 12 mugs: never one over, and none is left while somebody asks."""
    activate(database_url, PROGRAMME.replace("hold: 36h, ", ""))
    members = [f"member-{n}" for n in range(40)]
    commit(database_url, Batch([admitted(purchase(n, name, amount=5_000)) for n, name in enumerate(members)]))

    def ask(mine: list[str]) -> None:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
            for name in mine:
                head: dict[str, Any] = {"event_id": f"s-{name}", "member_id": name, "occurred_at": START_MS + DAY_MS}
                asked = Redemption(**head, action="spend", redemption_id=f"s-{name}", reward="mug")
                worker.commit(Batch([admitted(asked)]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, [members[n::8] for n in range(8)]))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT type, reason, count(*) FROM reward.reward_event WHERE item = 'mug' GROUP BY 1, 2")
        counts = {(kind, reason): count for kind, reason, count in cursor.fetchall()}
    assert counts == {("gift.awarded", "redeemed"): 12, ("reward.refused", "out_of_stock"): 28}


def test_a_gift_that_is_given_back_can_be_taken_by_the_next(database_url: str) -> None:
    activate(database_url, PROGRAMME.replace("hold: 36h, ", "").replace("stock: 12", "stock: 1"))
    commit(database_url, Batch([admitted(purchase(n, f"m{n}", amount=5_000)) for n in range(3)]))
    steps = [("m0", "spend", "a"), ("m1", "spend", "b"), ("m0", "restore", "a"), ("m2", "spend", "c")]
    for n, (member_id, action, identifier) in enumerate(steps):
        head: dict[str, Any] = {"event_id": f"s{n}", "member_id": member_id, "occurred_at": START_MS + DAY_MS + n}
        asked = Redemption(**head, action=action, redemption_id=identifier, reward="mug")  # type: ignore[arg-type]
        commit(database_url, Batch([admitted(asked)]))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, type FROM reward.reward_event WHERE item = 'mug' ORDER BY recorded_at, pos")
        rows = cursor.fetchall()
    assert rows == [
        ("m0", "gift.awarded"), ("m1", "reward.refused"), ("m0", "gift.revoked"), ("m2", "gift.awarded"),
    ]  # fmt: skip


def test_erasure_lets_everything_open_lapse(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    head: dict[str, Any] = {"member_id": "m1", "occurred_at": START_MS + HOUR_MS}
    joined = Signup(**head, event_id="s", birthday="1990-01-02")
    gone = Erasure(member_id="m1", event_id="x", occurred_at=START_MS + 2 * HOUR_MS)
    commit(database_url, Batch([admitted(event) for event in (purchase(1, amount=5_000), joined, gone)]))
    finish(database_url, threading.Event())

    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute(f"SELECT unit, {COLUMNS} FROM reward.member_balance ORDER BY unit")
        rows = [tuple(map(str, row)) for row in cursor.fetchall()]
        cursor.execute("SELECT count(*) FROM reward.member_tier")
        assert cursor.fetchone() == (0,)
    assert rows == [
        ("points", "50", "0", "0", "0", "0", "50", "0", "0", "0", "0"),
        ("status", "50", "0", "0", "0", "0", "50", "0", "0", "0", "0"),
    ]
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
