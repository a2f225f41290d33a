"""Who follows the reward events has what the log says, also when another server with another end of it takes over."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from consumers.output.publisher import finish
from engine.store.cursor import one
from engine.store.database import migrate, transaction
from operations.intake.lag import lag_rows
from operations.services.postgresql import LocalPostgres
from operations.setup.initialise import OUTPUT_TOPIC
from tests.chaos.conftest import FULL
from tests.consumers.output.follower import assert_followed, follow, logged
from tests.services import standby
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operations.settings import Settings
    from tests.services.servers import Servers
    from tests.system.load import Message

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.chaos]

EVENTS = 6_000 if FULL else 300


@pytest.fixture
def standby_home(servers: Servers) -> Iterator[Path]:
    with servers.home() as home:
        yield home
        LocalPostgres(home).kill()


def of(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"guerdon_database_url": url})


def is_published(settings: Settings, more_than: int = 0, *, consumed: bool = True) -> bool:
    """Whether the topic has the whole log, of more than `more_than` events, and with `consumed` no input topic lags."""
    with transaction(settings.database_url) as cursor:
        (total,) = one(cursor, "SELECT count(*) FROM reward.reward_event")
    names = settings.topic_prefix if consumed else settings.topic_prefix + OUTPUT_TOPIC
    topics = [row for row in lag_rows(settings) if row["what"].startswith(names)]
    return total > more_than and not any(row["lag"] for row in topics)


def loads(parts: int) -> list[list[Message]]:
    """Return one load in parts."""
    messages = Load(members=40, bad=False, late=False).fill(parts * EVENTS).messages
    return [messages[at::parts] for at in range(parts)]


def test_a_follower_is_right_after_a_failover_to_a_standby_that_lacks_some_of_the_log(
    settings: Settings, postgres_service: LocalPostgres, standby_home: Path
) -> None:
    migrate(postgres_service.address)
    old = of(settings, postgres_service.address)
    make_topics(old, 4)
    activate(old.database_url)
    other = standby.make_standby(postgres_service, standby_home)
    both = of(settings, standby.url_of_both(postgres_service, other))
    before, missed, after = loads(3)
    with running(both):
        publish(both, before)
        eventually(lambda: is_published(both), "all published")
        standby.wait_for(postgres_service, other)
        standby.cut(other)
        count = len(logged(both))
        publish(both, missed)
        eventually(lambda: is_published(both, count), "published what the standby lacks")
        followed = assert_followed(old)
        ahead = logged(old)
        postgres_service.kill()
        standby.promote(other)
        publish(both, after)
        new = of(settings, other.address)
        eventually(lambda: is_published(new, len(ahead), consumed=False), "all published again")
        eventually(lambda: len(follow(new).incarnations) == 2, "another incarnation")
        eventually(lambda: is_published(new, len(ahead), consumed=False), "all published again")
    finish(new, threading.Event())  # what the worker still wrote when it was told to stop
    assert {(row["shard"], row["pos"], row["recorded_at"]) for row in ahead} - {
        (row["shard"], row["pos"], row["recorded_at"]) for row in logged(new)
    }, "the standby lacked nothing"
    assert_followed(new, followed)  # who went on
    again = assert_followed(new)  # who begins now
    assert len(again.incarnations) == 2
    assert len(again.came) < 2 * len(logged(new)), "more was sent again than what the standby lacked"


def test_a_follower_is_right_after_a_dump_is_restored_into_another_server(
    settings: Settings, postgres_service: LocalPostgres, standby_home: Path
) -> None:
    migrate(postgres_service.address)
    old = of(settings, postgres_service.address)
    make_topics(old, 4)
    activate(old.database_url)
    before, lost, after = loads(3)
    with running(old):
        publish(old, before)
        eventually(lambda: is_published(old), "all published")
    file = postgres_service.folder / "guerdon.dump"
    standby.dump(old.database_url, file)
    count = len(logged(old))
    with running(old):
        publish(old, lost)
        eventually(lambda: is_published(old, count), "published what the dump lacks")
    followed = assert_followed(old)
    other = LocalPostgres(standby_home)
    other.start()
    standby.ask(other, "CREATE ROLE guerdon_writer NOLOGIN")
    standby.ask(other, "CREATE ROLE guerdon_analyst NOLOGIN")
    standby.restore(other.address, file)
    new = of(settings, other.address)
    with running(new):
        publish(new, after)
        eventually(lambda: is_published(new, len(followed.events)), "all published again")
    finish(new, threading.Event())
    assert len(assert_followed(new, followed).incarnations) == 2
    assert_followed(new)
