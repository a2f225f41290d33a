"""Reward events come back over Kafka: all of them, in order, and nothing else ever waits for that."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from confluent_kafka import admin as kafka_admin
from confluent_kafka.admin import AdminClient

from consumers.output import incarnation, producer, publisher
from consumers.output.producer import NotTaken, Output
from consumers.output.publisher import Publisher, finish
from engine.live.batch import Batch
from engine.meaning import MEANING
from engine.store.database import PUBLISHER, transaction
from engine.store.generations import live_generation
from engine.store.kafka import publication
from operations.intake.lag import lag_rows
from operations.services.kafka import LocalKafka
from operations.setup.initialise import OUTPUT_TOPIC, create_topics
from schemas.errors import InputError, ServiceUnreachable
from schemas.partitioning import SHARDS
from schemas.writer_schemas import committed_ids
from tests.consumers.output.follower import assert_followed, follow, logged
from tests.schemas.test_registry import registry
from tests.services.servers import suspended
from tests.system.batches import admitted, commit, purchase
from tests.system.load import PROGRAMME_WITHOUT_ORDER, Load, activate, make_topics, publish
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from operations.settings import Settings
    from tests.services.servers import Servers

pytestmark = pytest.mark.kafka

MEMBERS = 20
one_broker = pytest.mark.xdist_group("a broker that is stopped")


@pytest.fixture
def ready(settings: Settings) -> Settings:
    make_topics(settings, 4)
    activate(settings.database_url)
    return settings


def log(settings: Settings, first: int, count: int) -> None:
    """Log purchases of 60.00 or more: two reward events each."""
    events = [admitted(purchase(at, f"m{at % MEMBERS}", amount=6_000 + at)) for at in range(first, first + count)]
    commit(settings.database_url, Batch(events))


def rounds(settings: Settings, observe: Callable[[str], None] = lambda _point: None) -> int:
    """Publish all that is there, and return how many reward events that were."""
    with closing(Output(settings, threading.Event(), observe)) as out:
        total = 0
        while moved := out.advance():
            total += moved
        return total


def lag(settings: Settings) -> int:
    with transaction(settings.database_url) as cursor:
        return publication.lag(cursor)


def set_config(settings: Settings, name: str, value: str) -> None:
    """Set a setting of the output topic."""
    kafka: Any = kafka_admin  # what it offers is not all in its type hints
    entry = kafka.ConfigEntry(name, value, incremental_operation=kafka.AlterConfigOpType.SET)
    topic = settings.topic_prefix + OUTPUT_TOPIC
    resource = kafka.ConfigResource(kafka.ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({**settings.kafka_config()})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()

    def is_set() -> bool:
        (answer,) = admin.describe_configs([kafka.ConfigResource(kafka.ResourceType.TOPIC, topic)]).values()
        return bool(answer.result()[name].value == value)

    eventually(is_set, f"{name} = {value}")


@pytest.mark.parametrize("partitions", [1, 3, 4])
def test_what_a_worker_has_judged_is_in_the_topic_once_and_in_order_when_it_has_caught_up(
    settings: Settings, partitions: int
) -> None:
    make_topics(settings, partitions)
    activate(settings.database_url)
    publish(settings, Load(members=30).fill(600).messages)
    assert catch_up(settings).rewards == len(logged(settings)) > 300
    followed = assert_followed(settings)
    assert max(Counter(followed.came).values()) == 1
    assert followed.generations == {1}
    assert lag(settings) == 0


def test_a_running_worker_publishes_what_it_commits_and_status_tells_how_far_it_is(ready: Settings) -> None:
    log(ready, 0, 50)
    topic = ready.topic_prefix + OUTPUT_TOPIC
    assert [row["lag"] for row in lag_rows(ready) if row["what"] == topic] == [100]
    with running(ready):
        publish(ready, Load(members=10, bad=False).fill(100).messages)
        eventually(lambda: lag(ready) == 0 and len(logged(ready)) > 100, "the topic at the head")
        log(ready, 50, 50)
        eventually(lambda: lag(ready) == 0, "what another process committed")
    assert_followed(ready)


def test_several_publishers_share_the_shards_and_send_each_event_once(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "SHARDS_MAX", 4)
    monkeypatch.setattr(producer, "POSITIONS_MAX", 7)
    stop = threading.Event()
    threads = [threading.Thread(target=finish, args=(ready, stop)) for _ in range(3)]
    log(ready, 0, 100)
    for thread in threads:
        thread.start()
    for first in range(100, 500, 100):
        log(ready, first, 100)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    finish(ready, stop)
    assert max(Counter(assert_followed(ready).came).values()) == 1


def test_a_shard_that_another_process_publishes_is_left_to_it(ready: Settings) -> None:
    rounds(ready)
    log(ready, 0, 40)
    shards = {row["shard"] for row in logged(ready)}
    with transaction(ready.database_url) as other:
        other.execute(
            "SELECT 1 FROM guerdon.publication_cursor WHERE generation = 1 AND shard = %s FOR UPDATE", (min(shards),)
        )
        rounds(ready)
        assert {shard for shard, _ in follow(ready).came} == shards - {min(shards)}
    rounds(ready)
    assert_followed(ready)


@pytest.mark.parametrize("positions_max", [1, 2, 3])
def test_a_round_that_is_cut_ends_with_a_whole_source_event(
    ready: Settings, positions_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "POSITIONS_MAX", positions_max)
    log(ready, 0, 60)
    halves: list[tuple[int]] = []

    def look(point: str) -> None:
        if point == "after publish commit":
            with transaction(ready.database_url) as cursor:
                cursor.execute(
                    """
                    SELECT c.shard FROM guerdon.publication_cursor c
                    JOIN guerdon.reward_event a ON a.shard = c.shard AND a.pos = c.pos
                    JOIN guerdon.reward_event b ON b.shard = c.shard AND b.pos = c.pos + 1 AND b.seq = a.seq
                    """
                )
                halves.extend(cursor.fetchall())

    assert rounds(ready, look) == 120
    assert halves == []
    assert_followed(ready)


def test_a_round_that_was_sent_and_not_noted_is_sent_again_and_followers_have_each_event_once(ready: Settings) -> None:
    log(ready, 0, 60)

    def break_off(point: str) -> None:
        if point == "after publish":
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            rounds(ready, break_off)
        log(ready, 60, 40)
    rounds(ready)
    came = Counter(assert_followed(ready).came)
    assert max(came.values()) == 3


def test_a_topic_that_takes_nothing_holds_up_nothing_else_and_catches_up_by_itself(ready: Settings) -> None:
    set_config(ready, "max.message.bytes", "1")
    with running(ready):
        publish(ready, Load(members=10, bad=False).fill(200).messages)
        eventually(lambda: behind(ready) == {OUTPUT_TOPIC} and logged(ready) != [], "all judged and projected")
        assert lag(ready) == len(logged(ready))
        set_config(ready, "max.message.bytes", "1000000")
        eventually(lambda: behind(ready) == set(), "the topic at the head")
    assert_followed(ready)


def behind(settings: Settings) -> set[str]:
    """Return what is not at its end."""
    return {row["what"].removeprefix(settings.topic_prefix) for row in lag_rows(settings) if row["lag"]}


@pytest.fixture(scope="module")
def broker(servers: Servers) -> Iterator[LocalKafka]:
    """Return a broker of these tests alone, which each of them leaves running."""
    with servers.own(LocalKafka) as service:
        yield service


@pytest.fixture
def own_broker(ready: Settings, broker: LocalKafka) -> Settings:
    """Return settings of a broker that can be stopped."""
    own = ready.model_copy(update={"kafka_bootstrap_servers": broker.address})
    make_topics(own, 4)
    return own


@one_broker
def test_a_broker_that_stands_still_is_waited_for_by_nobody_but_the_publisher(
    own_broker: Settings, broker: LocalKafka
) -> None:
    follower = Publisher(own_broker)
    follower.start()
    log(own_broker, 0, 10)
    eventually(lambda: lag(own_broker) == 0, "the topic at the head")
    with suspended(broker):
        for first in range(10, 60, 10):
            log(own_broker, first, 10)
            follower.wake()
        assert lag(own_broker) == 100
    eventually(lambda: lag(own_broker) == 0, "the topic at the head again")
    follower.stop()
    assert_followed(own_broker)


@one_broker
def test_a_publisher_leaves_a_broker_that_stands_still_within_seconds_and_nothing_is_lost(
    own_broker: Settings, broker: LocalKafka
) -> None:
    sending = threading.Event()
    follower = Publisher(own_broker, observe=lambda point: sending.set() if point == "before publish" else None)
    follower.start()
    log(own_broker, 0, 1)
    eventually(lambda: lag(own_broker) == 0, "the topic at the head")
    sending.clear()
    with suspended(broker):
        log(own_broker, 1, 10)
        assert sending.wait(30)
        begun = time.monotonic()
        follower.stop()
        assert time.monotonic() - begun < 4.0
        assert lag(own_broker) == 20
    rounds(own_broker)
    assert_followed(own_broker)


@one_broker
def test_a_round_is_given_up_after_a_while_so_that_no_transaction_grows_old(
    own_broker: Settings, broker: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Output(own_broker, threading.Event(), lambda _point: None)) as out, monkeypatch.context() as hurried:
        assert out.advance() == 0
        log(own_broker, 0, 10)
        hurried.setattr(producer, "ACKNOWLEDGED_WITHIN_S", 0.5)
        with suspended(broker), pytest.raises(NotTaken, match="the broker did not take all within"):
            out.advance()
    assert lag(own_broker) == 20
    rounds(own_broker)
    assert_followed(own_broker)


def test_a_message_that_the_topic_refuses_leaves_no_hole_behind_it(ready: Settings) -> None:
    set_config(ready, "max.message.bytes", "1")
    log(ready, 0, 30)
    with pytest.raises(NotTaken):
        rounds(ready)
    assert lag(ready) == 60
    set_config(ready, "max.message.bytes", "1000000")
    rounds(ready)
    assert_followed(ready)


def test_without_the_topic_events_are_judged_and_a_worker_that_should_catch_up_says_what_is_missing(
    ready: Settings,
) -> None:
    topic = ready.topic_prefix + OUTPUT_TOPIC
    admin = AdminClient({**ready.kafka_config()})
    admin.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics, "the end of the topic")
    publish(ready, Load(members=5).fill(50).messages)
    with pytest.raises(InputError, match=f"Kafka has no topic {topic}; run `guerdon init` to create it, or set"):
        catch_up(ready)
    assert lag(ready) == len(logged(ready)) > 0
    assert lag_rows(ready)[-1]["lag"] == 0
    catch_up(ready.model_copy(update={"publish_rewards": False}))
    eventually(lambda: create_topics(ready, 4).startswith("1 created"), "the topic made again")
    make_topics(ready, 4)
    catch_up(ready)
    assert_followed(ready)


def test_it_can_be_switched_off_and_what_was_left_out_comes_when_it_is_switched_on(ready: Settings) -> None:
    off = ready.model_copy(update={"publish_rewards": False})
    publish(ready, Load(members=5).fill(50).messages)
    catch_up(off)
    assert follow(ready).came == []
    assert ready.topic_prefix + OUTPUT_TOPIC not in {row["what"] for row in lag_rows(off)}
    catch_up(ready)
    assert assert_followed(ready).came != []


def test_each_generation_that_becomes_live_is_published_from_its_first_position(ready: Settings) -> None:
    log(ready, 0, 20)
    rounds(ready)
    with transaction(ready.database_url, role="none") as cursor:
        cursor.execute("UPDATE guerdon.generation SET status = 'retired' WHERE generation = 1")
        cursor.execute("SELECT guerdon.create_generation(2, 'live')")
        cursor.execute("UPDATE guerdon.generation SET meaning = %s WHERE generation = 2", (MEANING,))
    activate(ready.database_url, PROGRAMME_WITHOUT_ORDER)
    log(ready, 100, 10)
    assert rounds(ready) == 20 + SHARDS
    followed = assert_followed(ready)
    assert followed.generations == {1, 2}
    assert len(followed.incarnations) == 1
    assert sorted(followed.beginnings) == [(shard, 0) for shard in range(SHARDS)]
    assert {event["event_id"] for event in followed.events} == {f"e{at}" for at in range(100, 110)}
    assert len(followed.came) == 40 + 20
    with transaction(ready.database_url) as cursor:
        assert publication.LogReader().read(cursor, 1, [publication.Range(0, 0, 99)]) == []
        assert live_generation.live(cursor) == 2


def test_a_generation_that_is_no_longer_live_is_not_published_any_more(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(ready, 0, 5)
    monkeypatch.setattr(live_generation, "live", lambda _cursor: 1)
    with transaction(ready.database_url, role="none") as cursor:
        cursor.execute("UPDATE guerdon.generation SET status = 'retired' WHERE generation = 1")
    with pytest.raises(NotTaken, match="generation 1 is no longer live"):
        rounds(ready)
    assert follow(ready).came == []


def test_a_process_that_was_stopped_while_it_read_the_log_gives_its_shards_back(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session neither idles nor ends: PostgreSQL waits for somebody to take what it sends."""
    monkeypatch.setattr(publisher, "HELD_UP_S", 1.5)
    monkeypatch.setattr(incarnation, "LOCKED_WITHIN", "1500ms")
    with psycopg2.connect(ready.database_url) as connection, connection.cursor() as cursor:
        name = connection.info.dbname
        cursor.execute(f"ALTER DATABASE \"{name}\" SET idle_in_transaction_session_timeout = '1s'")
    log(ready, 0, 20)
    with transaction(ready.database_url) as cursor:
        publication.begin(cursor, 1)
    frozen = psycopg2.connect(ready.database_url, application_name=PUBLISHER)
    go_on, stopped = threading.Event(), threading.Event()

    class Unread:
        """Take the first bytes, and then nothing until the test ends."""

        def write(self, _data: bytes) -> None:
            stopped.set()
            go_on.wait(60)

    def read() -> None:
        with frozen.cursor() as cursor:
            cursor.execute("SELECT 1 FROM guerdon.publication_cursor FOR UPDATE")
            with pytest.raises(psycopg2.Error):
                cursor.copy_expert("COPY (SELECT repeat('x', 9999) FROM generate_series(1, 9999)) TO STDOUT", Unread())

    thread = threading.Thread(target=read)
    thread.start()
    assert stopped.wait(30)
    finish(ready, threading.Event())
    go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    frozen.close()
    assert_followed(ready)


@pytest.fixture
def unreachable(ready: Settings) -> Settings:
    log(ready, 0, 5)
    return ready.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})


def test_a_broker_that_is_away_is_one_sentence_and_the_thread_tries_again(
    unreachable: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "METADATA_TIMEOUT_S", 0.3)
    monkeypatch.setattr(publisher, "RETRY_S_FIRST", 0.01)
    with pytest.raises(ServiceUnreachable, match="Kafka is away at 127"):
        rounds(unreachable)
    tries = []

    class Counted(Output):
        def __init__(self, *words: Any) -> None:
            tries.append(words)
            super().__init__(*words)

    monkeypatch.setattr(publisher, "Output", Counted)
    thread = Publisher(unreachable)
    thread.start()
    eventually(lambda: len(tries) > 2, "another try")
    thread.stop()
    assert lag(unreachable) == 10


def test_messages_carry_the_schema_id_of_the_registry_or_else_the_committed_one(ready: Settings) -> None:
    log(ready, 0, 5)
    rounds(ready)
    assert assert_followed(ready).schema_ids == {committed_ids()["RewardEvent"]}
    log(ready, 5, 5)
    with registry(lambda _method, path, body: (200, {"id": len(path), "version": 1, **body})) as server:
        rounds(ready.model_copy(update={"schema_registry_url": server.url}))
        (path,) = {asked.split()[1] for asked in server.asked if "RewardEvent" in asked}
    assert assert_followed(ready).schema_ids == {committed_ids()["RewardEvent"], len(path)}


def test_a_registry_that_is_away_or_lacks_the_schema_stops_the_topic_alone(ready: Settings) -> None:
    log(ready, 0, 5)
    missing = 404, {"error_code": 40401, "message": "Subject not found"}
    with registry(lambda *_: missing) as server, pytest.raises(InputError, match="run `guerdon init`"):
        rounds(ready.model_copy(update={"schema_registry_url": server.url}))
    with pytest.raises(ServiceUnreachable, match=r"the Schema Registry at http://127\.0\.0\.1:1 does not answer"):
        rounds(ready.model_copy(update={"schema_registry_url": "http://127.0.0.1:1"}))
    assert lag(ready) == 10


def test_the_shards_of_a_round_are_those_furthest_behind(ready: Settings) -> None:
    for number in range(30):
        commit(ready.database_url, Batch([admitted(purchase(number, "much", amount=100))]))
    log(ready, 100, 40)
    with transaction(ready.database_url) as cursor:
        publication.begin(cursor, 1)
        _, ranges = publication.lock_ranges(cursor, 1, 5, 1_000)
    lengths = [each.upto_pos - each.after_pos for each in ranges]
    assert len(lengths) == 5
    assert lengths[0] >= 30
    assert all(first >= second for first, second in pairwise(lengths))
