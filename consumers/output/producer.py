"""Publish the live reward log to Kafka: at least once, each shard in its order, with headers that mark repetitions."""

from __future__ import annotations

import time
from contextlib import suppress
from math import gcd
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from consumers.output.incarnation import Agreement, Topic
from consumers.output.topic_tail import TailReader
from consumers.source import fixed
from engine.store.database import PUBLISHER, connect
from engine.store.eras import keep_to_keys
from engine.store.generations import live_generation
from engine.store.kafka import publication
from engine.store.session.blockers import who_writes
from operations.kafka.causes import KafkaCauses, refuse_hidden
from operations.kafka.output_topic import missing, topic_id
from operations.setup.initialise import OUTPUT_TOPIC
from schemas.errors import ServiceUnreachable
from schemas.partitioning import SHARDS
from schemas.reward_codec import RECORD, RewardEncoder, frame
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from confluent_kafka import Message

    from engine.store.kafka.publication import Range
    from operations.settings import Settings
    from schemas.reward_codec import RewardRow

_SHARDS = [b"%d" % shard for shard in range(SHARDS)]
Headers = list[tuple[str, str | bytes | None]]

SHARDS_MAX = 32
POSITIONS_MAX = 500
"""Shards that one round takes at most, and positions of each: 16,000 messages, and work left for other workers."""

ACKNOWLEDGED_WITHIN_S = 30.0
"""How long to wait for the broker in one transaction: an old transaction keeps PostgreSQL from clearing up."""

LEAVE_S = 1.0
METADATA_TIMEOUT_S = 10.0
FLUSH_STEP_S = 0.2
LOOK_AT_TOPIC_S = 10.0
"""How often to ask whether the topic was deleted and made again: a producer goes on as if nothing had happened."""

GZIP_LEVEL = 1
"""A third of the time of zlib's own choice, for a tenth more bytes."""

_NOBODY = b""
"""The key of messages that say where an incarnation begins: a member_id is never empty."""

_TUNING: dict[str, Any] = {
    "linger.ms": 5,
    "queue.buffering.max.messages": 100_000,
    "log_level": 0,
}
_FIXED: dict[str, Any] = {
    **fixed.PRODUCER,
    "delivery.report.only.error": True,  # a report for each message would cost as much as sending it
}


class Edition(NamedTuple):
    """Hold the headers that all messages of one round have in common."""

    incarnation: bytes
    generation: bytes


class NotTaken(Exception):
    """Say why the broker has not taken all of a round; the cursor stays, and the round is sent again."""


class Output:
    """Hold one connection, one producer and one encoder, for one thread.

    Args:
        settings: name the addresses, and how messages are compressed.
        stop: ends a round that waits for the broker.
        observe: called with the name of each step's start and end.

    Raises:
        InputError: there is no such topic, or the registry does not hold the schema.
        ServiceUnreachable: PostgreSQL, Kafka or the registry does not answer.
    """

    def __init__(self, settings: Settings, stop: threading.Event, observe: Callable[[str], None]) -> None:
        self._stop = stop
        self._observe = observe
        self._topic = settings.topic_prefix + OUTPUT_TOPIC
        schema_id = _schema_id(settings.registry_url)
        self._encoder = RewardEncoder(schema_id)

        # the producer
        self._failures: list[KafkaError] = []
        kafka = settings.kafka_config()
        tuning = {**_TUNING, "compression.type": settings.rewards_compression}
        if settings.rewards_compression == "gzip":
            tuning["compression.level"] = GZIP_LEVEL
        self._causes = KafkaCauses({**tuning, **kafka, **_FIXED})
        self._producer, self._partitions = _producer(self._causes, self._topic, self._failures)
        self._admin = AdminClient({**kafka})

        # the comparison of the topic with the log
        self._reader = publication.LogReader()
        tails = TailReader(kafka, settings.group_id, self._topic, frame(schema_id))
        self._agreement = Agreement(settings.database_url, tails, self._reader, stop)
        self._generation: int | None = None
        self._topic_id: str | None = None
        self._look_at = 0.0

        self.connection = connect(settings.database_url, application=PUBLISHER)
        with self.connection, self.connection.cursor() as cursor:
            keep_to_keys(cursor)

    def close(self) -> None:
        """Give up messages that the broker has not taken, and disconnect."""
        with suppress(KafkaException, SystemError):  # after a fatal error it does nothing any more
            self._producer.purge()
            self._producer.flush(0)
        del self._producer, self._admin  # which ends their threads: they would go on to look for a broker
        self.connection.close()

    def lag(self) -> int:
        """Return how many reward events the topic does not have yet."""
        with self.connection, self.connection.cursor() as cursor:
            return publication.lag(cursor)

    def held_by(self) -> str:
        """Return in words who holds the cursors of the reward events that are left."""
        with self.connection, self.connection.cursor() as cursor:
            return who_writes(cursor, "guerdon.publication_cursor")

    def advance(self) -> int:
        """Publish a round, of the shards furthest behind that nobody else publishes; return the number of messages.

        The cursors are locked, the events sent, the broker's acknowledgements awaited, the cursors moved. A failure in
        between leaves the cursors where they were, and the same events are sent again. Two processes may send the same
        events, where one was taken for dead; each sends them in order and from the cursor on. So the first message of
        every position comes after the first message of the position before it: followers rely on nothing else.

        Raises:
            NotTaken: the broker did not take them; this object must be closed.
        """
        is_due = self._is_comparison_due()
        sent = 0
        with self.connection.cursor() as cursor:
            # compare with the topic first, where this is new or something has changed
            generation = live_generation.live(cursor)
            if is_due or generation != self._generation:
                self.connection.commit()
                self._agreement.make(self.connection, generation, Topic(self._topic, self._topic_id, self._partitions))
                self._generation = generation

            incarnation, ranges = publication.lock_ranges(cursor, generation, SHARDS_MAX, POSITIONS_MAX)
            if ranges:
                self._observe("before publish")
                rows = self._reader.read(cursor, generation, ranges)
                if len(rows) != sum(each.upto_pos - each.after_pos for each in ranges):
                    raise NotTaken(f"generation {generation} is no longer live, or its log has a hole: see verify")
                sent = self._send_all(Edition(incarnation.encode(), b"%d" % generation), ranges, rows)
                self._observe("after publish")
                publication.move(cursor, generation, incarnation, ranges)
                self._observe("before publish commit")
        self.connection.commit()
        self._observe("after publish commit")
        return sent

    def _is_comparison_due(self) -> bool:
        """Whether this object is new, as after a lost connection, or the topic was deleted and made again."""
        if time.monotonic() < self._look_at:
            return False
        before, self._topic_id = self._topic_id, topic_id(self._admin, self._topic, self._stop)
        is_new, self._look_at = not self._look_at, time.monotonic() + LOOK_AT_TOPIC_S
        return is_new or before != self._topic_id

    def _send_all(self, edition: Edition, ranges: list[Range], rows: list[RewardRow]) -> int:
        try:
            beginnings = sum(
                self._begin(edition, each) for each in ranges if each.begun.encode() != edition.incarnation
            )
            self._send(edition, rows)
            self._await_broker()
        except (KafkaException, SystemError) as error:  # the library's own where a fatal error meets a report
            raise NotTaken(self._why(error)) from error
        return beginnings + len(rows)

    def _why(self, error: Exception | KafkaError) -> str:
        with suppress(KafkaException, SystemError):  # as above: the cause is known without its lines, too
            self._causes.listen(self._producer)
        return self._causes.why(error, self._topic, "WRITE and DESCRIBE on the topic")

    def _begin(self, edition: Edition, where: Range) -> int:
        """Say up to which position the shard's messages stay valid, in each partition that may hold the shard.

        Returns the number of these partitions.
        """
        headers: Headers = [
            ("incarnation", edition.incarnation), ("generation", edition.generation),
            ("shard", _SHARDS[where.shard]), ("pos", b"%d" % where.after_pos),
        ]  # fmt: skip
        step = gcd(self._partitions, SHARDS)
        partitions = range(where.shard % step, self._partitions, step)
        for partition in partitions:
            while True:
                try:
                    self._producer.produce(self._topic, None, _NOBODY, partition, headers=headers)
                except BufferError:
                    self._await_broker()
                else:
                    break
        return len(partitions)

    def _send(self, edition: Edition, rows: list[RewardRow]) -> None:
        produce, encode, topic = self._producer.produce, self._encoder.encode, self._topic
        incarnation, generation = edition
        for row in rows:
            headers: Headers = [
                ("incarnation", incarnation), ("generation", generation), ("shard", _SHARDS[row.shard]),
                ("pos", b"%d" % row.pos),
            ]  # fmt: skip
            while True:
                try:
                    produce(topic, encode(row), row.member_id, headers=headers)
                except BufferError:
                    self._await_broker()
                else:
                    break

    def _await_broker(self) -> None:
        """Wait until the broker has taken everything that was sent, but only a moment once the worker must stop.

        Meanwhile PostgreSQL gets a statement now and then: it ends sessions that hold locks and are silent.
        """
        deadline = time.monotonic() + ACKNOWLEDGED_WITHIN_S
        while self._producer.flush(FLUSH_STEP_S):
            if self._stop.is_set():
                deadline = min(deadline, time.monotonic() + LEAVE_S)
            if time.monotonic() > deadline:
                raise NotTaken(f"the broker did not take all within {ACKNOWLEDGED_WITHIN_S:.0f} s, or before the stop")
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        if self._failures:
            raise NotTaken(self._why(self._failures[0]))


def _schema_id(registry_url: str | None) -> int:
    if registry_url is None:
        return committed_ids()[RECORD]
    from schemas.registry import registered_ids, registry_client  # noqa: PLC0415  0.15 s that few installations need

    return registered_ids(registry_client(registry_url), registry_url)[RECORD]


def _producer(causes: KafkaCauses, topic: str, failures: list[KafkaError]) -> tuple[Producer, int]:
    """Return a producer that adds its failures to `failures`, and how many partitions the topic has.

    The producer gets the list and not the `Output`: it must not refer to the object that refers to it.
    """

    def note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({**causes.config, "on_delivery": note})
    try:
        present = producer.list_topics(timeout=METADATA_TIMEOUT_S).topics
    except KafkaException as error:
        causes.listen(producer)
        raise ServiceUnreachable(causes.why(error)) from error
    if topic not in present:
        refuse_hidden(producer, causes, [topic], "WRITE and DESCRIBE on the topic")
        raise missing(topic)
    return producer, len(present[topic].partitions)
