"""The consumer keeps what exactly-once rests on, ends when Kafka gives it up, and tells Kafka how far it came."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from consumers.health import reports
from consumers.source import fixed
from consumers.source.source import Source, consumer_config
from consumers.worker import Worker
from operations.intake import offsets
from operations.intake.lag import remarks
from operations.setup.initialise import initialise
from schemas.codec import CommittedSchemas
from schemas.errors import AnswerIsNo, ServiceUnreachable
from tests.system.batches import ENCODER, purchase
from tests.system.load import Load, activate, make_topics, producer_of, publish
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from operations.settings import Settings


def purchases(count: int) -> Load:
    load = Load(members=1)
    for number in range(count):
        load.add(purchase(number), deliveries=1)
    return load


# What stays as it is


@pytest.mark.parametrize("name", [*fixed.CONSUMER, "partition.assignment.strategy", "group.id", "group.protocol"])
def test_an_operators_setting_does_not_change_what_exactly_once_rests_on(name: str) -> None:
    assert consumer_config({name: "other"}, "group", "classic")[name] == consumer_config({}, "group", "classic")[name]


def test_what_is_not_taken_is_told_and_what_says_the_same_is_not() -> None:
    given = {"isolation.level": "read_uncommitted", "acks": "1", "group.id": "mine", "client.id": "till"}
    sentences = fixed.overruled(given, "classic")
    assert len(sentences) == 3
    assert sentences[0].startswith("Kafka's setting acks stays all, as exactly-once rests on it: 1 is not taken")
    assert sentences[1].endswith("use GUERDON_GROUP_ID")
    assert sentences[2].startswith("Kafka's setting isolation.level stays read_committed")
    same = {"acks": "-1", "enable.idempotence": "True", "enable.auto.commit": "false", "message.timeout.ms": "0"}
    assert fixed.overruled(same, "classic") == []


@pytest.mark.kafka
def test_what_was_aborted_does_not_count_whatever_isolation_level_is_set(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    producer = producer_of(settings, **{"transactional.id": f"{settings.topic_prefix}till"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(f"{settings.topic_prefix}purchases", ENCODER.encode(purchase(100)), "m1")
    producer.flush(10)
    producer.abort_transaction(20)
    publish(settings, purchases(1).messages)
    with capture_logs() as said:
        summary = catch_up(settings.model_copy(update={"kafka": {"isolation.level": "read_uncommitted"}}))
    assert summary.accepted == 1
    (line,) = [each for each in said if each["event"] == "setting stays"]
    assert line["why"] == (
        "Kafka's setting isolation.level stays read_committed, as exactly-once rests on it: read_uncommitted is not "
        "taken; leave isolation.level out of KAFKA__… and [kafka]"
    )


@pytest.mark.kafka
def test_a_topic_that_kafka_compacts_is_named_with_the_way_out(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    assert "warning" not in initialise(settings, 1)
    topic = f"{settings.topic_prefix}purchases"
    entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({**settings.kafka_config()})
    admin.incremental_alter_configs([resource])[resource].result(10)
    sentence = f"the topic {topic} has cleanup.policy=compact: "
    way_out = f"--alter --topic {topic} --add-config cleanup.policy=delete"

    def is_told() -> bool:
        return [sentence in each and way_out in each for each in remarks(settings)] == [True]

    eventually(is_told, "the broker's own news of the setting")
    warning = str(initialise(settings, 1)["warning"])
    assert warning.startswith(sentence)
    with capture_logs() as said:
        catch_up(settings)
    assert [each["why"] for each in said if each["event"] == "topic is compacted"] == [warning]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("when", "protocol"), [("before", "classic"), ("at the assignment", "classic"), ("at the assignment", "consumer")]
)
def test_retention_that_took_no_more_than_what_was_read_is_no_loss(
    settings: Settings, when: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"group_protocol": protocol})
    make_topics(settings, 1)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    publish(settings, purchases(5).messages)
    catch_up(settings)
    admin = AdminClient({**settings.kafka_config()})
    watermarks = Source.watermarks

    def delete() -> None:
        admin.delete_records([TopicPartition(topic, 0, 5)])[TopicPartition(topic, 0)].result(10)

    def delete_meanwhile(source: Source, partition: tuple[str, int]) -> tuple[int, int]:
        """Let the records go between the worker's look at the offsets and its first fetch."""
        found = watermarks(source, partition)
        if partition == (topic, 0):
            delete()
        return found

    if when == "before":
        delete()
    else:
        monkeypatch.setattr(Source, "watermarks", delete_meanwhile)
    publish(settings, purchases(7).messages[5:])
    assert catch_up(settings).accepted == 2
    assert [row["stopped"] for row in offsets.listed(settings) if row["stopped"]] == []


# Fatal errors, reports, and orders to stop


@pytest.mark.kafka
def test_a_worker_in_whose_place_kafka_has_put_another_ends_and_says_why(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    static = settings.model_copy(update={"kafka": {"group.instance.id": "worker-1"}})
    first = Worker(static, CommittedSchemas())
    errors: list[ServiceUnreachable] = []

    def run() -> None:
        try:
            first.run()
        except ServiceUnreachable as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: bool(offsets.listed(settings)), "the first worker's partitions")
        with running(static):
            eventually(lambda: bool(errors), "the end of the first worker")
    finally:
        first.stop()
        thread.join(30)
    assert errors[0].exit_code == 3
    assert "give each worker a group.instance.id of its own (KAFKA__GROUP_INSTANCE_ID), or none" in str(errors[0])


def committed(settings: Settings) -> int:
    """Return the offsets of the purchases that the group has reported to Kafka."""
    consumer = Consumer({**settings.kafka_config(), "group.id": settings.group_id})
    try:
        (found,) = consumer.committed([TopicPartition(f"{settings.topic_prefix}purchases", 0)], timeout=20)
        return int(found.offset)
    finally:
        consumer.close()


@pytest.mark.kafka
@pytest.mark.parametrize("when", ["idle", "leaving"])
def test_kafka_is_told_how_far_the_worker_came_at_idle_and_when_it_leaves(
    settings: Settings, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    monkeypatch.setattr(reports, "REPORT_S", 0.3 if when == "idle" else 3600.0)
    with running(settings):
        eventually(lambda: bool(offsets.listed(settings)), "the assignment")
        publish(settings, purchases(40).messages)
        eventually(lambda: sum(row["accepted"] for row in offsets.listed(settings)) == 40, "the events")
        if when == "idle":
            eventually(lambda: committed(settings) == 40, "the report")
    assert committed(settings) == 40


@pytest.mark.kafka
def test_told_to_stop_before_it_has_caught_up_the_worker_says_what_is_left_and_does_not_say_done(
    settings: Settings,
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    publish(settings, purchases(5).messages)
    small = settings.model_copy(update={"max_batch": 1})
    stops: list[Worker] = []

    def observe(point: str) -> None:
        if point == "before load":
            stops[0].stop()

    stops.append(Worker(small, CommittedSchemas(), until_caught_up=True, observe=observe))
    left = rf"told to stop before it had caught up: \d offsets of {settings.topic_prefix}purchases are left"
    with pytest.raises(AnswerIsNo, match=left):
        stops[0].run()
    assert catch_up(settings).accepted >= 1
