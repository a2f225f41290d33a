"""The same history gives the same through Kafka and PostgreSQL as in memory, however far and by whom time is moved."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from consumers.clock import refuse_old_backlog, time_of
from consumers.source.source import topics_of
from consumers.worker import Worker
from engine.programme.file.load import load_programme
from engine.programme.file.nodes import plain
from engine.store.database import ANALYST, transaction
from operations.rows import dictionaries
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from operations.verify.checks import verify
from schemas.codec import CommittedSchemas, Encoder
from schemas.errors import InputError
from schemas.events import key_of
from schemas.json_events import decode_json
from schemas.scalars import iso_from_instant
from tests.conformance.cases import all_cases, programme_of
from tests.strategies.histories import DAY_MS, HOUR_MS, History, compared, programme
from tests.system.load import TOPIC_OF, Message, activate, make_topics, publish
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from engine.programme.model import Programme
    from operations.settings import Settings

CASES = {case.id: case for case in all_cases()}
TIMELY = (
    "lots-soonest-first", "lots-alive-just-before", "lots-expire-at-the-instant", "lots-hold-then-release",
    "lots-month-end", "refund-debt-then-settled", "redeem-restore-after-expiry", "engage-birthday",
    "engage-badge-and-benefit", "tier-rolling-year", "tier-rule-and-benefit", "ref-hold-cancelled",
)  # fmt: skip
"""Acceptance cases in which time passes, and each member's events come in their order."""


YEAR_S = 365 * 86_400


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
    assert_as_in_memory(settings, history.in_time, history.end_ms + 75 * DAY_MS, (window, workers))
    reasons = {row["reason"] for rows in viewed(settings.database_url)["reward_events"].values() for row in rows}
    assert reasons >= {"lapsed", "refund", "reached", "tier"}
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.source_event WHERE kind = 'tick'")
        (ticks,) = cursor.fetchone() or (0,)
    assert ticks > 0


@pytest.mark.kafka
@pytest.mark.parametrize("workers", [1, 3])
def test_members_whose_events_lie_behind_those_of_others_come_out_as_in_memory(
    workers: int, settings: Settings
) -> None:
    """A topic may hold one member's year behind another's: a tick on the way would come too early for the second."""
    history = History(members=20).fill(600)
    assert_as_in_memory(settings, history.orders, history.end_ms + 30 * DAY_MS, ("rolling 60d", workers))


def assert_as_in_memory(settings: Settings, lines: list[dict[str, Any]], until_ms: int, how: tuple[str, int]) -> None:
    """Compare the views, after several workers, with `simulate` on the same lines."""
    window, workers = how
    texts = [json.dumps(line) for line in lines]
    checked = load_programme(programme(window), "history").programme
    assert checked is not None
    make_topics(settings, 4)
    activate(settings.database_url, programme(window))
    publish(settings, messages(texts))
    apart = {"max_batch": 50, "alignment_s": YEAR_S}  # none of these members has to do with another one
    work(settings.model_copy(update=apart), until_ms, workers)
    assert viewed(settings.database_url) == simulated(checked, texts, until_ms)
    assert_sound(settings.database_url)


# How far time has come

SIGNUPS, PURCHASES = ("signups", 0), ("purchases", 0)


@pytest.mark.parametrize(
    ("wall_ms", "consumed", "time_ms"),
    [
        (1_000, {SIGNUPS: (5, 400), PURCHASES: (9, 600)}, 1_000),
        (None, {SIGNUPS: (5, 400), PURCHASES: (9, 600)}, 600),
        (1_000, {SIGNUPS: (4, 400), PURCHASES: (9, 600)}, 400),
        (None, {SIGNUPS: (4, 400), PURCHASES: (8, 600)}, 400),
        (500, {SIGNUPS: (5, 400), PURCHASES: (8, 600)}, 500),
        (1_000, {SIGNUPS: (0, 0), PURCHASES: (9, 600)}, None),
        (1_000, {PURCHASES: (9, 600)}, None),
        (None, {SIGNUPS: (5, 0), PURCHASES: (9, 0)}, None),
    ],
)
def test_time_goes_no_further_than_what_is_consumed_of_each_partition_that_is_behind(
    wall_ms: int | None, consumed: dict[tuple[str, int], tuple[int, int]], time_ms: int | None
) -> None:
    assert time_of(wall_ms, {SIGNUPS: 5, PURCHASES: 9}, consumed) == time_ms


def test_a_topic_that_holds_nothing_keeps_time_from_nothing() -> None:
    assert time_of(1_000, {SIGNUPS: 0, PURCHASES: 9}, {PURCHASES: (9, 600)}) == 1_000


@pytest.mark.kafka
def test_a_worker_without_traffic_moves_members_who_have_no_event(settings: Settings) -> None:
    make_topics(settings, 4)
    activate(settings.database_url, programme())
    bought_ms = int(time.time() * 1000) - 2 * DAY_MS - HOUR_MS
    order: dict[str, Any] = {"type": "purchase", "event_id": "e", "member_id": "m1", "order_id": "o", "currency": "USD"}
    order |= {"amount": 1_000, "occurred_at": iso_from_instant(bought_ms)}
    publish(settings, messages([json.dumps(order)]))

    def points() -> list[tuple[int, int]]:
        with transaction(settings.database_url) as cursor:
            cursor.execute("SELECT pending, active FROM reward.member_balance WHERE unit = 'points'")
            return cursor.fetchall()

    with running(settings):
        eventually(lambda: points() == [(0, 10)], "the release of the points by a tick")
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT kind::text, guerdon.ms(occurred_at) FROM guerdon.source_event ORDER BY shard, seq")
        ticks = [at_ms for kind, at_ms in cursor.fetchall() if kind == "tick"]
    now_ms = int(time.time() * 1000)
    assert [now_ms - DAY_MS < at_ms <= now_ms - settings.lateness_s * 1000 for at_ms in ticks] == [True]


@pytest.mark.kafka
def test_an_old_backlog_on_an_empty_log_asks_for_the_clock_to_be_named(settings: Settings) -> None:
    topics = topics_of(settings)
    make_topics(settings, 2)
    activate(settings.database_url, programme())
    refuse_old_backlog(settings, topics, CommittedSchemas())
    history = History(members=2).fill(12)
    publish(settings, messages([json.dumps(line) for line in history.in_time]))
    first = history.in_time[0]["occurred_at"]
    with pytest.raises(InputError, match=rf"the topics hold events since {first}, .*--clock events .*--clock wall"):
        refuse_old_backlog(settings, topics, CommittedSchemas())
    work(settings, history.end_ms)
    refuse_old_backlog(settings, topics, CommittedSchemas())
