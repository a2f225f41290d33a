"""What changed: every kind of change once, of the right days, and nobody named who was erased."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.store.cursor import one
from engine.store.database import transaction
from schemas.events import Erasure
from tests.operations.report.history import BASE, HEAD, History
from tests.system.load import activate

pytestmark = pytest.mark.postgres

TIERS = HEAD + "tiers: {metric: status, window: calendar_year, levels: [{id: basic, from: 0}, {id: silver, from: 5}]}\n"
PROGRAMME = TIERS + BASE + "- {id: status, on: purchase, give: [{status: 5}]}\n"
QUARANTINED = """
INSERT INTO guerdon.quarantine (stage, reason, message, status, quarantined_at, resolved_at, resolved_why)
VALUES ('decode', 'schema', 'x', 'open', now(), NULL, NULL), ('decode', 'schema', 'x', 'open', now(), NULL, NULL),
       ('admit', 'future', 'x', 'discarded', now() - interval '5 days', now(), 'a test of the till'),
       ('admit', 'future', 'x', 'released', now() - interval '5 days', now() - interval '4 days', NULL)
"""
KAFKA = """
INSERT INTO guerdon.consumer_reset (topic, partition, from_offset, to_offset, why)
VALUES ('purchases', 3, 10, 20, 'the topic was cut');
INSERT INTO guerdon.consumer_pass (topic, partition, offset_, why) VALUES ('purchases', 3, 21, 'it cannot be read');
INSERT INTO guerdon.kafka_place (topic_prefix, cluster_id, why) VALUES ('guerdon.', 'c2', 'we moved');
INSERT INTO guerdon.incarnation (incarnation, of_generation, topic, why, begun_by)
VALUES ('1', 1, 'guerdon.reward-events', 'the warehouse lost its copy', 'jo');
INSERT INTO guerdon.generation_switch (previous, generation) VALUES (1, 2);
"""


@pytest.fixture
def log(database_url: str) -> History:
    return History(database_url, PROGRAMME)


def changes(log: History, **asked: Any) -> list[dict[str, Any]]:
    found = log.report("changes", **asked)["changes"]
    assert isinstance(found, list)
    return found


def said(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(row["kind"], row["id"], row["what"], row["by"], row["why"]) for row in rows}


def test_each_kind_of_change_is_told_with_who_and_why_as_far_as_it_is_known(log: History) -> None:
    log.take(
        log.order("ann", "2026-01-10", "o1", 1_000),
        log.decide("ann", "2026-01-11", "adjust", amount=-30, unit="points", reason="wrong till"),
        log.decide("eve", "2026-01-11", "opening", amount=700, unit="points", tier="silver"),
        log.make(Erasure, "2026-01-12", member_id="eve"),
    )
    with transaction(log.database_url) as cursor:
        cursor.execute(QUARANTINED)
        cursor.execute(KAFKA)
    activate(log.database_url, PROGRAMME.replace("status: 5", "status: 6"))
    rows = changes(log)
    assert said(rows) == {
        ("programme", "1", "version 1 activated from test.yaml", None, None),
        ("programme", "2", "version 2 activated from test.yaml", None, None),
        ("generation", "2", "became live in place of generation 1", None, None),
        ("quarantine", "schema", "2 set aside", None, None),
        ("quarantine", "future", "1 discarded", None, "a test of the till"),
        ("kafka", "purchases/3", "reading goes on from offset 20 instead of 10", None, "the topic was cut"),
        ("kafka", "purchases/3", "the record at offset 21 was passed", None, "it cannot be read"),
        ("kafka", "guerdon.", "events are read from cluster c2", None, "we moved"),
        ("kafka", "guerdon.reward-events", "incarnation 1 began", "jo", "the warehouse lost its copy"),
        ("tier", "silver", "1 came into it", None, "reached"),
        ("tier", "silver", "1 came into it", None, "opening"),
        ("member", None, "2 new", None, None),
        ("member", None, "1 erased", None, None),
        ("decision", "ann", "adjusted by -30 points", "operator", "wrong till"),
        ("decision", None, "opened with 700 points, tier silver", "operator", None),
    }
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


def test_only_changes_of_the_time_asked_for_are_told_and_only_what_was_known(log: History) -> None:
    log.take(*(log.decide("ann", "2026-01-11", "adjust", amount=n, unit="points", reason="r") for n in range(1, 40)))
    known_at = log.take(
        *(log.decide(f"m{n}", "2026-01-11", "adjust", amount=1, unit="points", reason="r") for n in range(40))
    )
    log.take(log.decide("ann", "2026-01-11", "adjust", amount=99, unit="points", reason="later"))

    everything = [row["what"] for row in changes(log) if row["kind"] == "decision"]
    then = [row["what"] for row in changes(log, known_at=known_at) if row["kind"] == "decision"]
    assert (len(everything), len(then)) == (80, 79)
    assert "adjusted by +99 points" in everything
    assert "adjusted by +99 points" not in then

    with transaction(log.database_url) as cursor:
        (now,) = one(cursor, "SELECT now()")
    tomorrow = (now.astimezone(UTC) + timedelta(days=2)).date()
    assert changes(log, since=tomorrow, until=f"{tomorrow + timedelta(days=1)}") == []
    assert changes(log, known_at=datetime(2026, 1, 1, tzinfo=UTC)) == []


def test_decisions_are_found_where_they_begin_in_the_log(log: History) -> None:
    log.take(*(log.order("ann", "2026-01-10", f"o{n}", 100) for n in range(37)))
    with transaction(log.database_url) as cursor:
        (before,) = one(cursor, "SELECT clock_timestamp()")
    log.take(log.decide("ann", "2026-01-11", "adjust", amount=5, unit="points", reason="r"))
    decisions = [row for row in changes(log) if row["kind"] == "decision"]
    assert [row["id"] for row in decisions] == ["ann"]
    assert decisions[0]["at"] > before.astimezone(UTC).isoformat()[:19]
