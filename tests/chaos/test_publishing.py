"""A worker killed while it publishes repeats reward events at most: none is lost, and each shard keeps its order."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.chaos.conftest import FULL
from tests.chaos.test_restarts import parts_of
from tests.consumers.output.follower import assert_followed, logged
from tests.models.oracle import assert_whole
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import catch_up, other_group

if TYPE_CHECKING:
    from operations.settings import Settings
    from tests.system.workers import Workers

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

POINTS = ["before publish", "after publish", "before publish commit", "after publish commit"]
SENT_AND_NOT_NOTED = POINTS[1:3]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("hit", [1, 2] if FULL else [2])
def test_who_follows_the_topic_of_a_killed_worker_has_exactly_the_log(
    point: str, hit: int, settings: Settings, workers: Workers
) -> None:
    make_topics(settings, 4)
    activate(settings.database_url)
    load = Load(members=300).fill(800)  # in more shards than one round takes
    publish(settings, load.messages)
    small = settings.model_copy(update={"max_batch": 40})
    pid = workers.start(small, point, hit, until_caught_up=True)
    assert workers.wait(pid) == -signal.SIGKILL, f"the worker never came to {point!r}: {workers.said()}"
    catch_up(other_group(settings, "next"))
    assert_whole(settings, load.messages)
    times = Counter(assert_followed(settings).came)
    assert len(times) == len(logged(settings)) > 400
    assert max(times.values()) == (2 if point in SENT_AND_NOT_NOTED else 1)


@pytest.mark.parametrize("rounds", [6 if FULL else 2])
def test_two_workers_that_are_killed_again_and_again_leave_a_topic_that_is_the_log(
    rounds: int, settings: Settings, workers: Workers
) -> None:
    make_topics(settings, 4)
    activate(settings.database_url)
    load = Load(members=40, bad=False, late=False).fill(2_000)
    small = settings.model_copy(update={"max_batch": 30})
    ends = []
    parts = iter(parts_of(load.messages, rounds * len(SENT_AND_NOT_NOTED)))
    for number in range(rounds):
        for at, point in enumerate(SENT_AND_NOT_NOTED):
            publish(settings, next(parts))  # so that there is something to send each time: who sends it is killed
            pids = [
                workers.start(other_group(small, f"{number}-{at}-{name}"), point, until_caught_up=True)
                for name in ("a", "b")
            ]
            ends += [workers.wait(pid) for pid in pids]
    assert set(ends) <= {-signal.SIGKILL, 0}, workers.said()
    assert ends.count(-signal.SIGKILL) >= 2
    catch_up(other_group(settings, "last"))
    assert_whole(settings, load.messages)
    assert max(Counter(assert_followed(settings).came).values()) > 1
