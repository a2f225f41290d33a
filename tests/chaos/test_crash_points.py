"""A worker killed at any point leaves nothing lost and nothing doubled."""

from __future__ import annotations

import signal
import uuid
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest

from operations.settings import Settings, load_settings
from tests.chaos.conftest import FULL
from tests.models.oracle import assert_whole, prefix
from tests.system.load import PROGRAMME_OF_LEDGER, Load, Message, activate, make_topics, publish
from tests.system.poison import STEPS
from tests.system.workers import catch_up, other_group

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.workers import Workers

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

AROUND_STEPS = [f"{side} {name}" for name in STEPS for side in ("before", "after")]
PROJECTING = ["before fold", "after fold", "before project commit", "after project commit"]
PROJECTING += [f"{point} of facts" for point in PROJECTING]
POINTS = [*AROUND_STEPS, "before commit", "after commit", *PROJECTING]
HITS = (1, 2, 5) if FULL else (2,)
EVENTS = 6_000 if FULL else 600
MAX_BATCH = 250


@dataclass(frozen=True)
class Published:
    """Hold topics that were filled once; every test reads them into a database and by a group of its own."""

    topic_prefix: str
    messages: list[Message]


@pytest.fixture(scope="module")
def published(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    prefix_ = f"t{uuid.uuid4().hex[:10]}."
    made = load_settings(
        bootstrap_servers=kafka_bootstrap, topic_prefix=prefix_, home=tmp_path_factory.mktemp("home"),
        database_url="postgresql://nowhere",
    )  # fmt: skip
    make_topics(made)
    load = Load(members=60, ledger=True).fill(EVENTS)
    publish(made, load.messages)
    return Published(prefix_, load.messages)


@pytest.fixture
def crashing(published: Published, kafka_bootstrap: str, database_url: str, tmp_path: Path) -> Settings:
    activate(database_url, PROGRAMME_OF_LEDGER)
    return load_settings(
        bootstrap_servers=kafka_bootstrap, database_url=database_url, topic_prefix=published.topic_prefix,
        group_id=uuid.uuid4().hex, home=tmp_path, max_batch=MAX_BATCH, projection_pause_ms=0,
        projection_pause_behind_ms=0,
    )  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("hit", HITS)
def test_a_worker_killed_at_a_point_loses_and_doubles_nothing(
    point: str, hit: int, published: Published, crashing: Settings, workers: Workers
) -> None:
    hit = 1 if point in PROJECTING and not FULL else hit
    pid = workers.start(crashing, point, hit, until_caught_up=True)
    assert workers.wait(pid) == -signal.SIGKILL, f"the worker never came to {point!r}: {workers.said()}"
    before = prefix(crashing.database_url)
    catch_up(other_group(crashing, "next"))
    assert_whole(crashing, published.messages)
    after = prefix(crashing.database_url)
    for log, rows in before.items():
        assert rows.items() <= after[log].items(), f"the {log} log was changed before the point of the crash"


@pytest.mark.skipif(not FULL, reason="the long form: make chaos")
@pytest.mark.parametrize("number", range(2))
def test_two_workers_that_are_killed_at_every_point_again_and_again_lose_and_double_nothing(
    number: int, published: Published, crashing: Settings, workers: Workers
) -> None:
    small = crashing.model_copy(update={"max_batch": 40})  # work for every one of them
    groups = (other_group(small, f"{number}-{each}") for each in count())
    ends = []
    for point in POINTS:
        pids = [workers.start(next(groups), point, hit, until_caught_up=True) for hit in (1, 2)]
        ends += [workers.wait(pid) for pid in pids]
    assert set(ends) <= {-signal.SIGKILL, 0}, workers.said()
    assert ends.count(-signal.SIGKILL) > len(POINTS)
    catch_up(next(groups))
    assert_whole(crashing, published.messages)
