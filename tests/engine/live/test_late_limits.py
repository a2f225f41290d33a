"""Uses of ended periods in PostgreSQL: late events find them in rows, in any batches, and a replay gives the same."""

from __future__ import annotations

import json
import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.history.replay import Replay, Stretch
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from operations.replay.generations import discard, promote
from operations.replay.run import connect_to_replay
from operations.simulate.run import simulate
from schemas.events import Refund
from schemas.json_events import event_to_object
from schemas.partitioning import shard_of
from tests.engine.history.test_replay import begun
from tests.programme_text import written
from tests.strategies.replays import differing, repeated
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
RATED = "on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]"
PROGRAMME = written(
    """schema: guerdon/1
programme: late
timezone: America/New_York
currency: USD
refunds: {window: 20d}
rules:
- {id: daily, $rated, limits: [{max: 12, per: member, every: day}]}
- {id: rolling, $rated, limits: [{max: 15, per: member, every: 30h}]}
- {id: stores, $rated, limits: [{times: 1, per: [member, purchase.store], every: week}]}
- {id: once, $rated, limits: [{times: 1, per: [member, purchase.store]}]}
""",
    rated=RATED,
)


def history(seed: int, events: int) -> list[Event]:
    """Return orders of two members over 80 days, some of them late by hours to weeks, and refunds of some."""
    rng = random.Random(seed)  # noqa: S311  a history, no secret
    found: list[Event] = []
    orders: dict[str, list[str]] = {"m1": [], "m2": []}
    at_ms = START_MS
    for n in range(events):
        at_ms += rng.randrange(HOUR_MS, 16 * HOUR_MS)
        member_id = rng.choice(("m1", "m2"))
        if n % 9 == 8 and orders[member_id]:
            order_id = rng.choice(orders[member_id][-12:])
            head: dict[str, Any] = {"event_id": f"e{n}", "member_id": member_id, "occurred_at": at_ms}
            found.append(Refund(**head, order_id=order_id, refund_id=f"r{n}", amount=rng.choice((None, 200))))
            continue
        late_ms = rng.choice((0, 0, 0, 5 * HOUR_MS, 3 * DAY_MS, 12 * DAY_MS, 25 * DAY_MS))
        orders[member_id].append(f"o{n}")
        store, amount = f"s{rng.randrange(60)}", rng.randrange(100, 900)
        found.append(purchase(n, member_id, occurred_at=max(at_ms - late_ms, 1), store=store, amount=amount))
    return found


def given(database_url: str) -> list[tuple[Any, ...]]:
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT member_id, event_id, type, rule_id, reason, amount
            FROM reward.reward_event WHERE event_id LIKE 'e%'
            """
        )
        return sorted(cursor.fetchall(), key=str)


def simulated(folder: Path, events: list[Event]) -> list[tuple[Any, ...]]:
    (folder / "p.yaml").write_text(PROGRAMME)
    (folder / "e.jsonl").write_text("\n".join(json.dumps(event_to_object(event)) for event in events))
    rows = simulate(folder / "p.yaml", [folder / "e.jsonl"]).document()["reward_events"]
    names = ("member_id", "event_id", "type", "rule_id", "reason", "amount")
    return sorted((tuple(row[name] for name in names) for row in rows), key=str)


def numbers(database_url: str, table: str = "member_use") -> tuple[int, int, int]:
    """Return how many pages of uses there are, the most of one member, and how large the largest state is."""
    with transaction(database_url) as cursor:
        found = one(
            cursor,
            f"""
            SELECT (SELECT count(*) FROM guerdon.{table}),
                   (SELECT coalesce(max(count), 0) FROM (SELECT count(*) FROM guerdon.{table} GROUP BY member_id) AS c),
                   (SELECT max(length(state)) FROM guerdon.member_state)
            """,
        )
        return int(found[0]), int(found[1]), int(found[2])


@pytest.mark.parametrize("batch_size", [4, 1_000])
def test_late_events_find_what_was_used_and_a_replay_gives_the_same_bytes(
    database_url: str, tmp_path: Path, batch_size: int
) -> None:
    events = history(batch_size, 160)
    activate(database_url, PROGRAMME)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for first in range(0, len(events), batch_size):
            worker.commit(Batch([admitted(event) for event in events[first : first + batch_size]]))
    live = given(database_url)
    assert live == simulated(tmp_path, events)
    reasons = {row[4] for row in live}
    assert reasons >= {None, "limit_max", "limit_times", "limit_forgotten", "refund"}, "the history is too tame"
    pages, most, largest = numbers(database_url)
    assert pages > 0
    assert most < 20
    assert largest < 2_048
    result = repeated(database_url)
    assert result["shards_that_differ"] == 0
    assert differing(database_url, result["generation"]) == 0
    assert numbers(database_url, f"member_use_g{result['generation']}")[0] > 0


def test_a_shadow_has_uses_of_its_own_which_go_live_and_are_dropped_with_it(database_url: str, tmp_path: Path) -> None:
    """Folded in chunks, promoted between two late events, and gone when it is discarded."""
    events = history(5, 160)
    activate(database_url, PROGRAMME)
    commit(database_url, Batch([admitted(event) for event in events[:120]]))
    shadow = begun(database_url)
    upto = {shard_of(member_id): 1_000_000 for member_id in ("m1", "m2")}
    with closing(connect_to_replay(database_url)) as connection:
        for shard in upto:
            folding = Replay(connection, shadow, [shard])
            while folding.advance(Stretch(upto, 9)):
                pass
    repeated(database_url, into=shadow.number)
    promote(database_url, shadow.number)
    commit(database_url, Batch([admitted(event) for event in events[120:]]))
    assert given(database_url) == simulated(tmp_path, events)
    assert numbers(database_url)[0] > 0
    assert numbers(database_url, "member_use_g1")[0] > 0
    discard(database_url, 1)
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT to_regclass('guerdon.member_use_g1') IS NULL") == (True,)


def test_pages_of_uses_are_dropped_once_they_are_forgotten(database_url: str) -> None:
    """A year of daily orders keeps the pages of some weeks: a page is begun every 16 periods, and 20 days are known."""
    activate(database_url, PROGRAMME)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for week in range(52):
            days = range(week * 7, week * 7 + 7)
            orders = [purchase(n, occurred_at=START_MS + n * DAY_MS, amount=100, store="s1") for n in days]
            worker.commit(Batch([admitted(order) for order in orders]))
    pages, _, largest = numbers(database_url)
    assert 0 < pages <= 8
    assert largest < 2_048
