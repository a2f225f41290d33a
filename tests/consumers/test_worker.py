"""The worker catches up over anything a topic may hold, stays within its memory, and stops only what it must."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumers.source import reader
from consumers.source.lanes import Lanes
from consumers.source.reader import BUFFERED_BATCHES, POLL_MESSAGES_MAX
from consumers.source.source import Source
from consumers.worker import Worker
from engine.store.database import transaction
from operations.intake import offsets
from operations.intake.lag import lag_rows
from operations.member.view import member
from operations.setup.initialise import create_topics
from schemas.codec import CommittedSchemas
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Purchase, Share, Signup
from schemas.partitioning import murmur2
from tests.models.oracle import assert_judged, assert_whole
from tests.system.batches import ENCODER, purchase
from tests.system.load import START_MS, Load, activate, make_topics, producer_of, publish
from tests.system.workers import catch_up, eventually, other_group, running

if TYPE_CHECKING:
    from engine.live.batch import Batch
    from operations.settings import Settings

pytestmark = pytest.mark.kafka


def three_topics(events: int) -> Load:
    """Return a load that lies in three topics, in step."""
    load = Load(members=5)
    for number in range(events):
        head: dict[str, Any] = {"event_id": f"x{number}", "member_id": f"m{number % 5}"}
        at_ms = START_MS + number * 1000
        if number % 3 == 0:
            load.add(Signup(**head, occurred_at=at_ms), deliveries=1)
        elif number % 3 == 1:
            load.add(Share(**head, occurred_at=at_ms, object="shoe", channel="link"), deliveries=1)
        else:
            order = Purchase(**head, occurred_at=at_ms, order_id=f"o{number}", currency="USD", amount=100)
            load.add(order, deliveries=1)
    return load


def granted(settings: Settings, member_id: str) -> int:
    """Return the points that the member was granted, as the view says."""
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT coalesce(sum(granted), 0) FROM reward.member_balance WHERE member_id = %s", (member_id,))
        (points,) = cursor.fetchone() or (0,)
    return int(points)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_backlog_far_larger_than_memory_is_taken_in_order_and_memory_stays_within_its_bound(
    settings: Settings, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound that is far below what one poll brings pauses every partition again and again."""
    make_topics(settings, partitions)
    activate(settings.database_url)
    load = three_topics(4_500)
    publish(settings, load.messages)
    monkeypatch.setattr(reader, "POLL_MESSAGES_MAX", 100)
    waited: list[int] = []

    class Watched(Lanes):
        def take(self, records_max: int, now: float, limit_ms: int | None = None) -> Batch | None:
            waited.append(len(self))
            return super().take(records_max, now, limit_ms)

    monkeypatch.setattr(reader, "Lanes", Watched)
    Worker(settings.model_copy(update={"max_batch": 100}), CommittedSchemas(), until_caught_up=True).run()
    lanes = 3 * partitions
    assert max(waited) <= BUFFERED_BATCHES * 100 + (lanes + 1) * 100 < len(load.messages)
    assert BUFFERED_BATCHES * settings.max_batch > POLL_MESSAGES_MAX
    assert_whole(settings, load.messages)


def test_an_idle_system_shows_an_event_in_its_view_at_once(settings: Settings) -> None:
    make_topics(settings, 4)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    producer = producer_of(settings, **{"linger.ms": 0})
    seconds = []
    with running(settings):
        for number in range(21):
            member_id = f"m{number}"
            producer.produce(topic, ENCODER.encode(purchase(number, member_id)), member_id)
            producer.flush(10)
            shown = eventually(lambda member_id=member_id: granted(settings, member_id) == 10, "its balance")  # type: ignore[misc]
            seconds.append(shown)
    # measured, not asserted, as a busy machine would fail it: the first one waits for the group
    print(f"visible after {statistics.median(seconds[1:]):.3f} s (median), {max(seconds[1:]):.3f} s (most)")  # noqa: T201


def test_until_caught_up_ends_at_once_where_there_is_nothing(settings: Settings) -> None:
    make_topics(settings, 4)
    activate(settings.database_url)
    assert catch_up(settings).batches == 0
    assert catch_up(settings).batches == 0


def test_until_caught_up_ends_behind_transaction_markers_and_takes_nothing_that_was_aborted(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    producer = producer_of(settings, **{"transactional.id": settings.topic_prefix})
    producer.init_transactions(10)
    committed = Load(members=1)
    for number, keep in enumerate((True, False, True, True, False)):
        producer.begin_transaction()
        producer.produce(topic, ENCODER.encode(purchase(number)), "m1")
        if keep:
            committed.add(purchase(number), deliveries=1)
            producer.commit_transaction(10)
        else:
            producer.flush(10)
            producer.abort_transaction(10)
    catch_up(settings)
    assert_whole(settings, committed.messages)
    (row,) = [row for row in offsets.listed(settings) if row["topic"] == topic]
    assert (row["next_offset"], row["accepted"], row["passed"], row["lag"]) == (10, 3, 7, 0)
    publish(settings, committed.messages)
    assert catch_up(settings).duplicate == 3


def test_the_newer_group_protocol_works_as_well(settings: Settings) -> None:
    make_topics(settings, 4)
    activate(settings.database_url)
    load = Load(members=10).fill(200)
    publish(settings, load.messages)
    newer = settings.model_copy(update={"group_protocol": "consumer", "max_batch": 30})
    with running(newer):
        catch_up(newer)
    assert_whole(settings, load.messages)


def test_without_a_programme_the_worker_refuses_and_says_how_to_activate_one(settings: Settings) -> None:
    make_topics(settings, 1)
    with pytest.raises(AnswerIsNo, match=r"no programme is active, .* run `guerdon programme activate FILE` first"):
        Worker(settings, CommittedSchemas())


def test_without_topics_the_worker_refuses_and_says_how_to_create_them(settings: Settings) -> None:
    activate(settings.database_url)
    with pytest.raises(InputError, match="run `guerdon init` to create the topics"):
        Worker(settings, CommittedSchemas())


# What the broker lost


def member_of(partition: int, partitions: int = 2) -> str:
    """Return a member whose events are in that partition."""
    numbers = (f"m{number}" for number in range(1_000))
    return next(each for each in numbers if (murmur2(each.encode()) & 0x7FFFFFFF) % partitions == partition)


def some_events(first: int, count: int) -> Load:
    """Return purchases and shares of a member in partition 0 and of one in partition 1."""
    load = Load(members=1)
    for number in range(first, first + count):
        for member_id in (member_of(0), member_of(1)):
            event_id, at_ms = f"{member_id}-{number}", START_MS + number
            load.add(purchase(number, member_id, event_id=event_id, amount=100), deliveries=1)
            share = Share(event_id=f"s-{event_id}", member_id=member_id, occurred_at=at_ms, object="o", channel="sms")
            load.add(share, deliveries=1)
    return load


def stopped(settings: Settings) -> str:
    sentences = {row["stopped"] for row in lag_rows(settings) if row["stopped"]}
    assert len(sentences) == 1
    return str(sentences.pop())


def test_a_partition_whose_next_offsets_were_deleted_stops_its_number_alone_until_an_operator_decides(
    settings: Settings,
) -> None:
    make_topics(settings, 2)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    publish(settings, some_events(0, 5).messages)
    catch_up(settings)
    publish(settings, some_events(5, 5).messages)
    admin = AdminClient({**settings.kafka_config()})  # held by name: the answers die with it
    admin.delete_records([TopicPartition(topic, 1, 8)])[TopicPartition(topic, 1)].result(10)

    with pytest.raises(AnswerIsNo, match=f"cannot catch up: {topic} partition 1: offsets 5 to 7 were deleted"):
        catch_up(settings)
    assert stopped(settings) == (
        f"{topic} partition 1: offsets 5 to 7 were deleted before they were read; "
        f"when you know what was lost, run `guerdon offsets reset {topic} --why TEXT`"
    )
    accepted = {(row["topic"], row["partition"]): row["accepted"] for row in offsets.listed(settings)}
    assert accepted[topic, 1] == accepted[f"{settings.topic_prefix}shares", 1] == 5
    with running(other_group(settings, "goes-on")):
        eventually(lambda: granted(settings, member_of(0)) == 10, "the other number's events")
    assert granted(settings, member_of(1)) == 5

    (row,) = offsets.reset(settings, topic, "retention was too short; marketing agreed")
    assert (row["partition"], row["continues_at"]) == (1, 8)
    catch_up(settings)
    assert granted(settings, member_of(1)) == 5 + 2
    assert [row for row in lag_rows(settings) if row["lag"] or row["stopped"]] == []
    with transaction(settings.database_url) as cursor:
        assert_judged(cursor)
        cursor.execute("SELECT from_offset, to_offset, why FROM guerdon.consumer_reset")
        assert cursor.fetchall() == [(5, 8, "retention was too short; marketing agreed (was 5)")]


def test_a_topic_that_was_deleted_and_made_again_is_not_read_until_an_operator_decides(settings: Settings) -> None:
    make_topics(settings, 2)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    load = some_events(0, 5)
    publish(settings, load.messages)
    catch_up(settings)
    admin = AdminClient({**settings.kafka_config()})
    admin.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics, "the end of the topic")
    eventually(lambda: made(admin, topic), "the topic made again")
    more = some_events(3, 8)
    publish(settings, more.messages)

    with pytest.raises(AnswerIsNo, match=f"the topic {topic} was deleted and made again since it was last read"):
        catch_up(settings)
    assert stopped(settings).startswith(f"the topic {topic} was deleted and made again")
    assert granted(settings, member_of(0)) == 5
    assert len(offsets.reset(settings, topic, "moved to another cluster")) == 2
    summary = catch_up(settings)
    assert (summary.accepted, summary.duplicate) == (2 * 6 * 2, 2 * 2 * 2)
    assert granted(settings, member_of(0)) == granted(settings, member_of(1)) == 11
    assert [row for row in lag_rows(settings) if row["lag"] or row["stopped"]] == []
    with transaction(settings.database_url) as cursor:
        assert_judged(cursor)


def made(admin: AdminClient, topic: str) -> bool:
    """Ask for the topic again, which the broker refuses while it still deletes the old one."""
    for done in admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)]).values():
        if done.exception(10) is not None:
            return False
    return True


def test_topics_that_exist_are_left_as_they_are(settings: Settings) -> None:
    assert create_topics(settings, 2) == "6 created, 0 there already"
    assert create_topics(settings, 4) == "0 created, 6 there already"


def test_member_tells_what_the_views_and_the_log_say(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    publish(settings, Load(members=1).messages)
    load = Load(members=1)
    load.add(purchase(1), deliveries=3)
    publish(settings, load.messages)
    started = time.time()
    catch_up(settings)
    found = member(settings.database_url, "m1")
    assert (found["last_event_id"], found["last_type"], found["held_because"]) == ("e1", "purchase", [])
    assert found["balances"][0]["available"] == 10
    assert [event["rule_id"] for event in found["reward_events"]] == ["spend"]
    assert found["last_recorded_at"] >= time.strftime("%Y-%m-%dT%H:%M", time.gmtime(started))
    with pytest.raises(AnswerIsNo, match='no event of a member "M1" was recorded'):
        member(settings.database_url, "M1")


def test_a_worker_that_waits_for_a_lock_leaves_within_five_seconds_and_writes_nothing(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    load = some_events(0, 3)
    publish(settings, load.messages)
    waiting = threading.Event()
    with closing(psycopg2.connect(settings.database_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM guerdon.shard_head FOR UPDATE")
        with running(settings, lambda point: waiting.set() if point == "before load" else None) as worker:
            assert waiting.wait(30)
            started = time.monotonic()
            worker.stop()
        assert time.monotonic() - started < 5.0
        other.rollback()
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT sum(accepted) FROM guerdon.consumer_offset")
        assert cursor.fetchone() == (0,)
    catch_up(other_group(settings, "next"))
    assert_whole(settings, load.messages)


def test_a_partition_whose_offsets_are_deleted_under_a_worker_stops_and_its_other_number_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topics(settings, 2)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    publish(settings, some_events(0, 40).messages)
    admin = AdminClient({**settings.kafka_config()})
    watermarks = Source.watermarks

    def delete_meanwhile(source: Source, partition: tuple[str, int]) -> tuple[int, int]:
        """Let the offsets go between the worker's look at them and its first fetch."""
        found = watermarks(source, partition)
        if partition == (topic, 1):
            admin.delete_records([TopicPartition(topic, 1, 8)])[TopicPartition(topic, 1)].result(10)
        return found

    monkeypatch.setattr(Source, "watermarks", delete_meanwhile)
    with running(settings):
        eventually(lambda: bool(rows_stopped(settings)), "the stop")
        eventually(lambda: granted(settings, member_of(0)) == 40, "the other number's events")
    assert f"{topic} partition 1: offsets 0 to 7 were deleted before they were read" in stopped(settings)
    assert granted(settings, member_of(1)) == 0


def rows_stopped(settings: Settings) -> list[str]:
    return [row["stopped"] for row in lag_rows(settings) if row["stopped"]]
