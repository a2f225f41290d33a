"""A worker that was stopped in the middle of a transaction neither holds its successor up nor comes back to double."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg2
import pytest
from psycopg2 import sql

from tests.chaos.conftest import FULL
from tests.chaos.crashing_worker import IN_COPY
from tests.models.oracle import assert_whole
from tests.system.load import PROGRAMME_OF_LEDGER, Load, activate, make_topics, publish
from tests.system.workers import catch_up, other_group

if TYPE_CHECKING:
    from operations.settings import Settings
    from tests.system.workers import Workers

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]


def limit(settings: Settings, **limits: str) -> None:
    """Set time limits as an operator does, for every session of the database."""
    connection = psycopg2.connect(settings.database_url)
    with connection, connection.cursor() as cursor:
        for name, value in limits.items():
            words = sql.SQL("ALTER DATABASE {} SET {} = {}")
            database = sql.Identifier(connection.info.dbname)
            cursor.execute(words.format(database, sql.Identifier(name), sql.Literal(value)))
    connection.close()


@pytest.mark.parametrize("same_group", [False, True] if FULL else [False])
@pytest.mark.parametrize(
    "point", ["before fence", "after fence", IN_COPY, "after save heads", "before commit", "after fold"]
)
def test_a_stopped_workers_locks_are_taken_from_it_and_when_it_goes_on_it_is_fenced(
    point: str, settings: Settings, workers: Workers, *, same_group: bool
) -> None:
    make_topics(settings, 2)
    activate(settings.database_url, PROGRAMME_OF_LEDGER)
    limit(settings, idle_in_transaction_session_timeout="1s", lock_timeout="1s")
    load = Load(members=20, ledger=True).fill(400)
    publish(settings, load.messages)
    quick = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
    small = settings.model_copy(update={"max_batch": 150, "kafka": quick})
    pid = workers.start(small, point, 2 if point == "before fence" else 1, signal.SIGSTOP, until_caught_up=True)
    workers.wait_stopped(pid)
    catch_up(small if same_group else other_group(small, "successor"))
    assert_whole(settings, load.messages)
    os.kill(pid, signal.SIGCONT)
    assert workers.wait(pid) == 0, workers.said()
    assert_whole(settings, load.messages)
