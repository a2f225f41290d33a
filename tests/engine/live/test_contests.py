"""Contests through Kafka and PostgreSQL: closed once, whoever works, with the winners that memory finds."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import engine.driver
from engine.evaluate import award
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.programme.file.load import load_programme
from engine.store.database import transaction
from operations.intake import quarantine
from operations.rows import dictionaries
from operations.settings import load_settings
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.events import Purchase
from schemas.partitioning import shard_of
from schemas.scalars import instant_from_iso
from tests.engine.live.test_clock import assert_sound, messages, work
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate, make_topics, publish

if TYPE_CHECKING:
    from operations.settings import Settings

PROGRAMME = """\
schema: guerdon/1
programme: race
timezone: Europe/Rome
currency: EUR
contests:
- {id: spenders, metric: spend, period: month, winners: 3}
- {id: sharers, metric: shares, period: week, winners: 1}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: prize, on: contest, when: {contest.id: spenders}, give: [{points: 100}]}
- {id: badge, on: contest, when: {contest.id: sharers, contest.rank: 1}, give: [{badge: sharer}]}
"""
UNTIL_MS = instant_from_iso("2024-06-15T00:00:00Z", "until")


def history() -> list[str]:
    """Return three months of twenty members; some of them spend the same."""
    lines: list[dict[str, Any]] = []
    for day in range(75):
        at = f"2024-{3 + day // 30:02}-{1 + day % 30:02}T"
        who = f"m{day * 7 % 20}"
        order: dict[str, Any] = {"type": "purchase", "event_id": f"p{day}", "member_id": who, "order_id": f"o{day}"}
        lines.append(order | {"currency": "EUR", "amount": 1_000 + day % 3 * 500, "occurred_at": f"{at}10:00:00Z"})
        share = {"type": "share", "event_id": f"s{day}", "member_id": who, "object": f"x{day}", "channel": "link"}
        lines.append(share | {"verified": day % 2 == 0, "occurred_at": f"{at}11:00:00Z"})
    return [json.dumps(line) for line in lines]


def won(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    return sorted(
        (row["item"], row["reason"], row["member_id"], row["amount"]) for row in rows if row["type"] == "contest.won"
    )


@pytest.mark.kafka
@pytest.mark.parametrize("workers", [1, 3])
def test_winners_are_those_of_memory_and_every_period_is_closed_once(workers: int, settings: Settings) -> None:
    checked = load_programme(PROGRAMME, "race").programme
    assert checked is not None
    texts = history()
    make_topics(settings, 4)
    activate(settings.database_url, PROGRAMME)
    publish(settings, messages(texts))
    work(settings.model_copy(update={"max_batch": 20}), UNTIL_MS, workers)
    lines = [Line("events", number, text.encode()) for number, text in enumerate(texts, 1)]
    expected = simulate_lines(checked, lines, UNTIL_MS).document()
    with transaction(settings.database_url) as cursor:
        rows = dictionaries(cursor, "SELECT * FROM reward.reward_event ORDER BY shard, pos")
        balances = dictionaries(cursor, "SELECT * FROM reward.member_balance")
        cursor.execute("SELECT count(*), count(DISTINCT (contest, period)) FROM guerdon.contest_closing")
        closings, periods = cursor.fetchone() or (0, 0)
        cursor.execute("SELECT count(*) FROM guerdon.generation_fact WHERE kind = 'contest'")
        (facts,) = cursor.fetchone() or (0,)
    assert won(rows) == won(expected["reward_events"])
    assert closings == 64 * periods > 0
    assert facts == len(won(rows)) > 10
    granted = {(row["member_id"], row["unit"]): row["granted"] for row in balances}
    assert granted == {(row["member_id"], row["unit"]): row["granted"] for row in expected["balances"]}
    assert_sound(settings.database_url)


@pytest.mark.kafka
def test_what_comes_after_the_closing_changes_nothing_and_says_so(settings: Settings) -> None:
    texts = history()
    late = json.loads(texts[0]) | {"event_id": "late", "order_id": "late", "amount": 900_000, "member_id": "m19"}
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    publish(settings, messages(texts))
    work(settings, UNTIL_MS)
    publish(settings, messages([json.dumps(late)]))
    work(settings, UNTIL_MS)
    with transaction(settings.database_url) as cursor:
        rows = dictionaries(cursor, "SELECT * FROM reward.reward_event WHERE event_id = 'late' ORDER BY pos")
    assert [(row["type"], row["reason"], row["amount"]) for row in rows] == [
        ("points.granted", None, 9_000), ("reward.refused", "contest_closed", 900_000),
    ]  # fmt: skip
    assert_sound(settings.database_url)


@pytest.mark.postgres
def test_a_prize_that_cannot_be_judged_holds_its_winner_and_stops_nobody_else(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(member_id: str, *rest: Any, **named: Any) -> Any:
        if member_id == "ann":
            raise ZeroDivisionError
        return award(member_id, *rest, **named)

    activate(database_url, PROGRAMME)
    at_ms = instant_from_iso("2024-03-10T10:00:00Z", "at")
    orders = [
        Purchase(event_id=who, member_id=who, order_id="o", currency="EUR", amount=5_000, occurred_at=at_ms)
        for who in ("ann", "bob")
    ]
    monkeypatch.setattr(engine.driver, "award", failing)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch([admitted(each) for each in orders]))
        worker.commit(Batch(clock=ClockMove(UNTIL_MS, everywhere=True, reached_ms=UNTIL_MS)))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id FROM reward.reward_event WHERE type = 'contest.won'")
        assert cursor.fetchall() == [("bob",)]
        cursor.execute("SELECT id, member_id, stage FROM guerdon.quarantine")
        ((record, *about),) = cursor.fetchall()
        assert about == ["ann", "evaluate"]
    shown = quarantine.shown(load_settings(database_url=database_url), record)
    assert (shown["event"]["member_id"], shown["event"]["rank"]) == ("ann", 1)
    with transaction(database_url) as cursor:
        assert release_member(cursor, shard_of("ann"), "ann") == 0
    assert_sound(database_url)
