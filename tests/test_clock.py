"""The same history gives the same through Kafka and PostgreSQL as in memory, however far and by whom time is moved."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from consumers.clock import refuse_old_backlog, time_of
from consumers.worker import Worker, topics_of
from engine.programme.load import load_programme
from engine.programme.nodes import plain
from engine.store.database import ANALYST, transaction
from operations.rows import dictionaries
from operations.simulate import Line, simulate_lines
from operations.verify import verify
from schemas.codec import CommittedSchemas, Encoder
from schemas.errors import InputError
from schemas.events import key_of
from schemas.json_events import decode_json
from tests.chaos.load import TOPIC_OF, Message, activate, make_topics, publish
from tests.chaos.workers import eventually, running
from tests.conformance_cases import all_cases, programme_of
from tests.histories import DAY_MS, HOUR_MS, History, programme

if TYPE_CHECKING:
    from engine.programme.model import Programme
    from operations.settings import Settings

CASES = {case.id: case for case in all_cases()}
TIMELY = (
    "lots-soonest-first", "lots-alive-just-before", "lots-expire-at-the-instant", "lots-hold-then-release",
    "lots-month-end", "refund-debt-then-settled", "redeem-restore-after-expiry", "engage-birthday",
    "engage-badge-and-benefit", "tier-rolling-year", "tier-rule-and-benefit",
)  # fmt: skip
"""Acceptance cases in which time passes, and each member's events come in their order."""

PLACES = ("shard", "pos", "seq", "event_id", "recorded_at")
"""What says where in the log a reward event stands, and by which source event: ticks may change that."""


def messages(texts: list[str]) -> list[Message]:
    encoder = Encoder()
    events = [decode_json(text.encode()) for text in texts]
    return [Message(TOPIC_OF[type(event)], key_of(event).encode(), encoder.encode(event), event) for event in events]


def simulated(checked: Programme, texts: list[str], until_ms: int) -> dict[str, Any]:
    """Return what `simulate --until` says."""
    lines = [Line("events", number, text.encode()) for number, text in enumerate(texts, 1)]
    return compared(simulate_lines(checked, lines, until_ms).document())


def viewed(database_url: str) -> dict[str, Any]:
    """Return what the views say, as an analyst reads them."""
    with transaction(database_url, role=ANALYST) as cursor:
        return compared(
            {
                "reward_events": dictionaries(cursor, "SELECT * FROM reward.reward_event ORDER BY shard, pos"),
                "balances": dictionaries(cursor, "SELECT * FROM reward.member_balance"),
                "tiers": dictionaries(cursor, "SELECT * FROM reward.member_tier"),
                "rewards": dictionaries(cursor, "SELECT * FROM reward.member_reward"),
            }
        )


def compared(document: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what must be the same, by member: reward events in their order, all else in any."""
    found: dict[str, Any] = {"reward_events": {}}
    for row in document["reward_events"]:
        kept = {name: value for name, value in row.items() if name not in PLACES}
        found["reward_events"].setdefault(row["member_id"], []).append(kept)
    for name in ("balances", "tiers", "rewards"):
        rows = [{key: value for key, value in row.items() if key != "as_of"} for row in document[name]]
        found[name] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    return found


def work(settings: Settings, until_ms: int, workers: int = 1) -> None:
    """Run workers until all is consumed, and the clock of events stands at an instant."""
    made = [
        Worker(settings, CommittedSchemas(), until_caught_up=True, clock="events", until_ms=until_ms)
        for _ in range(workers)
    ]
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(worker.run) for worker in made]:
            done.result()


def assert_sound(database_url: str) -> None:
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


@pytest.mark.kafka
@pytest.mark.parametrize("case_id", TIMELY)
def test_an_acceptance_case_in_which_time_passes_comes_out_as_in_memory(case_id: str, settings: Settings) -> None:
    case = CASES[case_id]
    checked = programme_of(case).programme
    assert checked is not None
    texts = [event.text for event in case.events]
    until_ms = case.until_ms or max(decode_json(text.encode()).occurred_at for text in texts)
    make_topics(settings, 2)
    activate_case(settings.database_url, case_id)
    publish(settings, messages(texts))
    work(settings, until_ms)
    assert viewed(settings.database_url) == simulated(checked, texts, until_ms)


def activate_case(database_url: str, case_id: str) -> None:
    tree = CASES[case_id].programme
    assert tree is not None
    activate(database_url, json.dumps(plain(tree), ensure_ascii=False))


@pytest.mark.kafka
@pytest.mark.parametrize(("window", "workers"), [("rolling 60d", 1), ("rolling 60d", 3), ("anniversary", 3)])
def test_a_long_history_comes_out_as_in_memory_whoever_works_it_off(
    window: str, workers: int, settings: Settings
) -> None:
    history = History(members=30).fill(900)
    assert_as_in_memory(settings, history.in_time, history.end_ms + 30 * DAY_MS, (window, workers))
    reasons = {row["reason"] for rows in viewed(settings.database_url)["reward_events"].values() for row in rows}
    assert reasons >= {"lapsed", "refund", "reached", "tier"}
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.source_event WHERE kind = 'tick'")
        assert cursor.fetchone() > (0,)


@pytest.mark.kafka
@pytest.mark.parametrize("workers", [1, 3])
def test_members_whose_events_lie_behind_those_of_others_come_out_as_in_memory(
    workers: int, settings: Settings
) -> None:
    """A topic may hold one member's year behind another's: a tick on the way would come too early for the second."""
    history = History(members=20).fill(600)
    assert_as_in_memory(settings, history.orders, history.end_ms + 30 * DAY_MS, ("rolling 60d", workers))


def assert_as_in_memory(settings: Settings, lines: list[dict[str, Any]], until_ms: int, how: tuple[str, int]) -> None:
    """Hold what the views say after so many workers to what `simulate` says of the same lines."""
    window, workers = how
    texts = [json.dumps(line) for line in lines]
    checked = load_programme(programme(window), "history").programme
    assert checked is not None
    make_topics(settings, 4)
    activate(settings.database_url, programme(window))
    publish(settings, messages(texts))
    work(settings.model_copy(update={"max_batch": 50}), until_ms, workers)
    assert viewed(settings.database_url) == simulated(checked, texts, until_ms)
    assert_sound(settings.database_url)
