"""A broker that lost the tail of a partition stops it, however much has been sent since; nothing is skipped in silence.

One broker of this module's own is stopped, the folders of its partitions are removed, and it is started again: the
topics keep their ids, and producers send more than was there before.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest
from structlog.testing import capture_logs

from engine.store.database import transaction
from operations.intake import offsets
from operations.intake.lag import lag_rows
from operations.services.kafka import LocalKafka
from operations.settings import Settings, load_settings
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo
from tests.conftest import _database
from tests.system.batches import purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.servers import Servers

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("lost tail")]

BEFORE, AFTER = 10, 25


def purchases(numbers: range) -> Load:
    load = Load(members=1)
    for number in numbers:
        load.add(purchase(number, amount=100), deliveries=1)
    return load


def forget(settings: Settings, what: str) -> None:
    """Leave the database as a broker without epochs, or an earlier release, would have."""
    with transaction(settings.database_url) as cursor:
        cursor.execute(f"UPDATE guerdon.consumer_offset SET {what}")


class Lost(NamedTuple):
    """Hold settings of four databases, each with topics of its own, after the loss."""

    by_epoch: Settings
    by_digest: Settings
    unknown: Settings
    running: Settings
    said_running: list[str]


@pytest.fixture(scope="module")
def lost(
    postgres_admin_url: str, template_database: str, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lost]:
    with (
        servers.own(LocalKafka) as broker,
        _database(postgres_admin_url, template_database) as first,
        _database(postgres_admin_url, template_database) as second,
        _database(postgres_admin_url, template_database) as third,
        _database(postgres_admin_url, template_database) as fourth,
    ):
        home = tmp_path_factory.mktemp("home")
        made = [
            settings_of(url, broker.address, f"t{number}.", home)
            for number, url in enumerate((first, second, third, fourth))
        ]
        for settings in made:
            make_topics(settings, 1)
            activate(settings.database_url)
            publish(settings, purchases(range(BEFORE)).messages)
            catch_up(settings)
        forget(made[1], "leader_epoch = NULL")
        forget(made[2], "last_offset = NULL, leader_epoch = NULL, last_digest = NULL")
        with capture_logs() as said, running(made[3]) as worker:
            eventually(lambda: bool(worker._lanes.partitions), "the assignment")  # noqa: SLF001  no outside tells
            broker.stop()
            for settings in made:
                shutil.rmtree(broker.folder / "data" / f"{settings.topic_prefix}purchases-0")
            broker.start()
            for settings in made:
                publish(settings, purchases(range(100, 100 + AFTER)).messages)
            eventually(lambda: bool(stops(made[3])), "the stop of the running worker's partition")
            eventually(lambda: clock_goes(worker), "the clock's next look")
        yield Lost(made[0], made[1], made[2], made[3], [f"{each['event']} {each.get('why', '')}" for each in said])


def clock_goes(worker: object) -> bool:
    return worker._clock._until_ms is not None  # type: ignore[attr-defined]  # noqa: SLF001  as above


def settings_of(url: str, broker: str, prefix: str, home: Path) -> Settings:
    return load_settings(
        database_url=url, bootstrap_servers=broker, topic_prefix=prefix, group_id=f"{prefix}group", home=home
    )


def stops(settings: Settings) -> list[str]:
    return [row["stopped"] for row in lag_rows(settings) if row["stopped"]]


def accepted(settings: Settings) -> int:
    return sum(row["accepted"] for row in offsets.listed(settings))


def go_on_after_a_reset(settings: Settings) -> None:
    """Hold the reset to what it promises: what the broker has now is taken, and nothing is out of place."""
    topic = f"{settings.topic_prefix}purchases"
    assert [row["continues_at"] for row in offsets.reset(settings, topic, "the disk was replaced")] == [0]
    catch_up(settings)
    assert accepted(settings) == BEFORE + AFTER
    assert stops(settings) == []
    assert [each for each in verify(settings.database_url) if each["problem"]] == []


@pytest.mark.parametrize("how", ["by_epoch", "by_digest"])
def test_a_tail_that_was_lost_while_the_worker_was_stopped_stops_the_partition_until_an_operator_decides(
    lost: Lost, how: str
) -> None:
    settings: Settings = getattr(lost, how)
    topic = f"{settings.topic_prefix}purchases"
    sentence = (
        rf"{topic} partition 0 was read up to offset {BEFORE - 1}, and no longer holds what was read there: the broker "
        rf"lost its tail and has other events in its place; when you know what was lost, run `guerdon offsets reset"
    )
    for _ in range(2):  # a restart does not make it whole
        with pytest.raises(AnswerIsNo, match=f"cannot catch up: {sentence}"):
            catch_up(settings)
        assert accepted(settings) == BEFORE
    go_on_after_a_reset(settings)


def test_where_nothing_tells_the_worker_goes_on_and_says_so(lost: Lost) -> None:
    with capture_logs() as said:
        catch_up(lost.unknown)
    (line,) = [each for each in said if each["event"] == "positions unchecked"]
    assert (line["partitions"], "was not kept yet" in line["why"]) == (1, True)
    with capture_logs() as said:
        catch_up(lost.unknown)
    assert "positions unchecked" not in [each["event"] for each in said]


def test_a_tail_that_is_lost_under_a_running_worker_stops_the_partition_in_our_words_and_lag_is_not_0(
    lost: Lost,
) -> None:
    (why,) = stops(lost.running)
    assert f"{lost.running.topic_prefix}purchases partition 0" in why
    assert f"guerdon offsets reset {lost.running.topic_prefix}purchases --why TEXT" in why
    (row,) = [row for row in offsets.listed(lost.running) if row["stopped"]]
    assert row["lag"] > 0
    assert len([line for line in lost.said_running if "FENCED_LEADER_EPOCH" in line]) <= 1
    go_on_after_a_reset(lost.running)
