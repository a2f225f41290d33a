"""A history of households who refer one another ends alike: with workers killed or not, loaded at once or live."""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from schemas.events import Signup
from tests.chaos.conftest import FULL
from tests.chaos.test_restarts import QUICK, taken
from tests.engine.live.test_clock import work
from tests.models.referred_households import DAY_MS, PROGRAMME, households, in_memory, in_views
from tests.system.load import activate, make_topics, publish
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operations.settings import Settings
    from schemas.events import Event
    from tests.system.load import Message
    from tests.system.workers import Workers

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.chaos,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(
        not FULL, reason="minutes long; tests/engine/live/test_order_across_partitions.py is its short form"
    ),
]

KILLS = 8
ALIGNMENT_S = 86_400
REST_S = 1.0
DEADLINE_S = 900


@pytest.fixture
def aligned(settings: Settings) -> Settings:
    found = settings.model_copy(update={"kafka": QUICK, "max_batch": 20, "alignment_s": ALIGNMENT_S})
    make_topics(found, 4)
    activate(found.database_url, PROGRAMME)
    return found


class Shift:
    """Have three workers, of whom one is killed now and then and another takes its place."""

    def __init__(self, aligned: Settings, workers: Workers) -> None:
        self._aligned = aligned
        self._workers = workers
        self._chance = random.Random(5)  # noqa: S311  a test must repeat
        self._running = [workers.start(aligned, clock="events") for _ in range(3)]

    def kill(self, count: int) -> bool:
        """Kill a worker some time after the next batch, and return whether fewer than `count` events were taken."""
        before = taken(self._aligned)
        eventually(lambda: taken(self._aligned) > before or before == count, "the next batch", DEADLINE_S)
        time.sleep(self._chance.random() * REST_S)
        is_behind = taken(self._aligned) < count
        self._workers.kill(self._running.pop(self._chance.randrange(3)))
        self._running.append(self._workers.start(self._aligned, clock="events"))
        return is_behind

    def take(self, count: int) -> None:
        eventually(lambda: taken(self._aligned) == count, f"{count} events", DEADLINE_S)

    def leave(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)
        assert {self._workers.wait(pid) for pid in self._running} <= {0, -signal.SIGTERM}, self._workers.said()


@pytest.mark.parametrize("kills", [0, KILLS])
def test_three_workers_over_a_backlog_killed_at_random_or_not_leave_what_there_is_in_memory(
    kills: int, aligned: Settings, workers: Workers
) -> None:
    told = households()
    messages = told.messages()
    publish(aligned, messages)
    shift = Shift(aligned, workers)
    were_behind = [shift.kill(len(messages)) for _ in range(kills)]
    assert sum(were_behind) >= kills // 2, "most workers were killed when all was done"
    shift.take(len(messages))
    shift.leave()
    work(aligned, told.end_ms)
    assert in_views(aligned.database_url) == in_memory(told)


def test_three_workers_killed_at_random_while_it_happens_day_by_day_leave_what_there_is_in_memory(
    aligned: Settings, workers: Workers
) -> None:
    told = households()
    days = [list(day) for _, day in groupby(told.messages(), lambda message: day_of(message.event))]
    shift = Shift(aligned, workers)
    published = 0
    for number, day in enumerate(days):
        for part in as_it_happens(day):
            publish(aligned, part)
            published += len(part)
            if number % (len(days) // KILLS) == 1 and part[-1] is day[-1]:
                shift.kill(published)
            shift.take(published)
    shift.leave()
    work(aligned, told.end_ms)
    assert in_views(aligned.database_url) == in_memory(told)


def as_it_happens(day: Sequence[Message]) -> list[list[Message]]:
    """Return a day's signups, and then the rest: who joins buys a minute later, and topics have no order at the tip."""
    joined = [message for message in day if isinstance(message.event, Signup)]
    rest = [message for message in day if not isinstance(message.event, Signup)]
    return [part for part in (joined, rest) if part]


def day_of(event: Event | None) -> int:
    assert event is not None
    return event.occurred_at // DAY_MS
