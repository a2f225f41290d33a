"""Workers come and go, the broker and PostgreSQL die and come back: lag returns to nothing, and all counts once."""

from __future__ import annotations

import os
import random
import signal
import time
from threading import Event
from typing import TYPE_CHECKING

import pytest

from engine.store.database import migrate, transaction
from operations.settings import Settings, load_settings
from projections.runner import finish
from tests.chaos.conftest import FULL
from tests.models.oracle import assert_whole
from tests.system.load import PROGRAMME_OF_LEDGER, Load, Message, activate, make_topics, publish
from tests.system.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from operations.services.kafka import LocalKafka
    from operations.services.postgresql import LocalPostgres
    from tests.system.workers import Workers

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(400)]

CHURN_S = 90 if FULL else 10
LEAVE_S = 5.0
LEFT = {0, -signal.SIGTERM}
"""How a worker ends that was told to; by the signal itself while it still starts and has nothing to finish."""
EVENTS = 10_000 if FULL else 1_500
QUICK = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}


def fold_the_last_tick(settings: Settings) -> None:
    """Let the views see a tick that came just before the workers were told to leave."""
    finish(settings.database_url, Event())


def taken(settings: Settings) -> int:
    """Return how many messages were taken, and are visible in the views; -1 while some are not."""
    with transaction(settings.database_url) as cursor:
        cursor.execute(
            """
            SELECT coalesce(sum(accepted + duplicate + quarantined + passed), 0)::bigint,
                   (SELECT sum(lag) FROM reward.freshness)
            FROM guerdon.consumer_offset
            """
        )
        messages, lag = cursor.fetchone() or (0, 0)
    return -1 if lag else int(messages)


def parts_of(messages: list[Message], count: int) -> list[list[Message]]:
    size = -(-len(messages) // count)
    return [messages[start : start + size] for start in range(0, len(messages), size)]


def test_workers_that_join_and_leave_every_second_lose_and_double_nothing(settings: Settings, workers: Workers) -> None:
    quick = settings.model_copy(update={"kafka": QUICK, "max_batch": 100})
    make_topics(quick, 4)
    activate(quick.database_url, PROGRAMME_OF_LEDGER)
    load = Load(members=50, ledger=True).fill(EVENTS)
    chance = random.Random(3)  # noqa: S311  a test must repeat
    running = [workers.start(quick) for _ in range(3)]
    started = time.monotonic()
    for number, part in enumerate(parts_of(load.messages, CHURN_S)):
        publish(quick, part)
        leaving = running.pop(chance.randrange(3))
        if number == 1:
            workers.kill(leaving)
        else:
            os.kill(leaving, signal.SIGTERM)
            assert workers.wait(leaving, LEAVE_S) in LEFT, workers.said()
        running.append(workers.start(quick))
        eventually(lambda due=started + number + 1: time.monotonic() >= due, "the next second")  # type: ignore[misc]
    eventually(lambda: taken(quick) == len(load.messages), "the end of the lag, with nobody's help")
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    assert {workers.wait(pid, LEAVE_S) for pid in running} <= LEFT
    fold_the_last_tick(quick)
    assert_whole(quick, load.messages)


@pytest.fixture
def own(kafka_service: LocalKafka, postgres_service: LocalPostgres, tmp_path: Path) -> Settings:
    migrate(postgres_service.address)
    found = load_settings(
        bootstrap_servers=kafka_service.address, database_url=postgres_service.address, home=tmp_path, max_batch=100
    )
    make_topics(found, 2)
    activate(found.database_url, PROGRAMME_OF_LEDGER)
    return found


def test_after_the_broker_and_postgresql_were_killed_under_load_lag_returns_to_nothing_by_itself(
    own: Settings, kafka_service: LocalKafka, postgres_service: LocalPostgres, workers: Workers
) -> None:
    load = Load(members=50, ledger=True).fill(EVENTS)
    first, second, third, fourth = parts_of(load.messages, 4)
    running = [workers.start(own) for _ in range(3)]
    publish(own, first)
    eventually(lambda: taken(own) != 0, "the first batch")

    said = len(workers.said(0))
    postgres_service.kill()
    publish(own, second)
    eventually(lambda: "pauses" in workers.said(said), "a worker that finds PostgreSQL away")
    leaving = running.pop()
    os.kill(leaving, signal.SIGTERM)
    assert workers.wait(leaving, LEAVE_S) == 0, workers.said()
    postgres_service.start()
    eventually(lambda: taken(own) == len(first) + len(second), "the end of the lag, with nobody's help")

    publish(own, third)
    kafka_service.kill()
    kafka_service.start()
    publish(own, fourth)
    eventually(lambda: taken(own) == len(load.messages), "the end of the lag, with nobody's help")
    for pid in running:
        os.kill(pid, signal.SIGTERM)
    assert [workers.wait(pid, LEAVE_S) for pid in running] == [0, 0], workers.said()
    fold_the_last_tick(own)
    assert_whole(own, load.messages)
