"""Publish the live reward log to Kafka: at least once, each shard in its order, with what tells a repetition."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from engine.store import generations, publication
from engine.store.blockers import who_writes
from engine.store.database import PUBLISHER, connect
from operations.initialise import OUTPUT_TOPIC
from operations.kafka_causes import KafkaCauses, refuse_hidden
from schemas.errors import InputError, ServiceUnreachable
from schemas.partitioning import SHARDS
from schemas.reward_codec import RECORD, RewardEncoder
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from confluent_kafka import Message

    from operations.settings import Settings
    from schemas.reward_codec import RewardRow

_SHARDS = [b"%d" % shard for shard in range(SHARDS)]
Headers = list[tuple[str, str | bytes | None]]

SHARDS_MAX = 32
POSITIONS_MAX = 500
"""Shards, and positions of each, that one round takes at most: 16,000 messages, and work left for other workers."""

ACKNOWLEDGED_WITHIN_S = 30.0
"""How long to wait for the broker in one transaction; an older one would keep PostgreSQL from clearing up."""

LEAVE_S = 1.0
METADATA_TIMEOUT_S = 10.0
FLUSH_STEP_S = 0.2

_TUNING: dict[str, Any] = {
    "linger.ms": 5,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 100_000,
    "log_level": 0,
}
_FIXED: dict[str, Any] = {
    "partitioner": "murmur2_random",  # the shard's own hash: with 1, 2, 4 … 64 partitions a shard lies in one
    "enable.idempotence": True,
    "acks": "all",
    # a message that is given up while the next one arrives would be a hole that no repetition fills: who follows drops
    # positions below the last one seen
    "enable.gapless.guarantee": True,
    "message.timeout.ms": 0,
    "delivery.report.only.error": True,  # a report for each message would cost as much as sending it
}


class NotTaken(Exception):  # noqa: N818  a state, not a fault
    """Say why the broker has not taken all of a round; the cursor stays, and the round is sent again."""


class Output:
    """Hold one connection, one producer and what encodes; not to be shared between threads.

    `stop` ends a round that waits for the broker. `observe` is called with the name of each step's start and end.

    Raises:
        InputError: there is no such topic, or the registry does not hold the schema.
        ServiceUnreachable: PostgreSQL, Kafka or the registry does not answer.
    """

    def __init__(self, settings: Settings, stop: threading.Event, observe: Callable[[str], None]) -> None:
        self._stop = stop
        self._observe = observe
        self._topic = settings.topic_prefix + OUTPUT_TOPIC
        self._encoder = RewardEncoder(_schema_id(settings.registry_url))
        self._failures: list[KafkaError] = []
        self._causes = KafkaCauses({**_TUNING, **settings.kafka_config(), **_FIXED})
        self._producer = _producer(self._causes, self._topic, self._failures)
        self._reader = publication.LogReader()
        self._generation: int | None = None
        self.connection = connect(settings.database_url, application=PUBLISHER)

    def close(self) -> None:
        """Give up what the broker has not taken, and disconnect."""
        with suppress(KafkaException, SystemError):  # after a fatal error it does nothing any more
            self._producer.purge()
            self._producer.flush(0)
        del self._producer  # which ends its threads: they would go on to look for a broker
        self.connection.close()

    def lag(self) -> int:
        """Return how many reward events the topic does not have yet."""
        with self.connection, self.connection.cursor() as cursor:
            return publication.lag(cursor)

    def held_by(self) -> str:
        """Return who holds the cursors of what is left to publish, in words."""
        with self.connection, self.connection.cursor() as cursor:
            return who_writes(cursor, "guerdon.publication_cursor")

    def advance(self) -> int:
        """Publish a round: the shards furthest behind that nobody else publishes; return how many reward events.

        The cursors are locked, the events sent, the broker's acknowledgements awaited, the cursors moved. Whatever
        breaks in between leaves the cursors where they were, and the same events are sent again. Where two processes
        send the same ones, as one was taken for dead, each does so in order and from the cursor on: of every position
        the first message comes after the first one of the position before it, which is all that followers rely on.

        Raises:
            NotTaken: the broker did not take them; this object must be closed.
        """
        with self.connection.cursor() as cursor:
            generation = generations.live(cursor)
            if generation != self._generation:
                publication.begin(cursor, generation)
                self._generation = generation
            ranges = publication.lock_ranges(cursor, generation, SHARDS_MAX, POSITIONS_MAX)
            if ranges:
                self._observe("before publish")
                rows = self._reader.read(cursor, generation, ranges)
                if len(rows) != sum(each.upto_pos - each.after_pos for each in ranges):
                    raise NotTaken(f"generation {generation} is no longer live, or its log has a hole: see verify")
                self._send_all(generation, rows)
                self._observe("after publish")
                publication.move(cursor, generation, ranges)
                self._observe("before publish commit")
        self.connection.commit()
        self._observe("after publish commit")
        return len(rows) if ranges else 0

    def _send_all(self, generation: int, rows: list[RewardRow]) -> None:
        try:
            self._send(b"%d" % generation, rows)
            self._await_broker()
        except (KafkaException, SystemError) as error:  # the library's own where a fatal error meets a report
            raise NotTaken(self._why(error)) from error

    def _why(self, error: Exception | KafkaError) -> str:
        with suppress(KafkaException, SystemError):  # as above: the lines are told all the same
            self._causes.listen(self._producer)
        return self._causes.why(error, self._topic, "WRITE and DESCRIBE on the topic")

    def _send(self, generation: bytes, rows: list[RewardRow]) -> None:
        produce, encode, topic = self._producer.produce, self._encoder.encode, self._topic
        for row in rows:
            headers: Headers = [("generation", generation), ("shard", _SHARDS[row.shard]), ("pos", b"%d" % row.pos)]
            while True:
                try:
                    produce(topic, encode(row), row.member_id, headers=headers)
                except BufferError:
                    self._await_broker()
                else:
                    break

    def _await_broker(self) -> None:
        """Wait until the broker has taken all that was sent; told to stop, no longer than a moment.

        PostgreSQL hears of us meanwhile: it ends the sessions of processes that hold locks and are silent.
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


def _producer(causes: KafkaCauses, topic: str, failures: list[KafkaError]) -> Producer:
    """Return a producer that adds what fails to `failures`: it must not hold the object that holds it."""

    def note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({**causes.config, "on_delivery": note})
    try:
        known = producer.list_topics(timeout=METADATA_TIMEOUT_S).topics
    except KafkaException as error:
        causes.listen(producer)
        raise ServiceUnreachable(causes.why(error)) from error
    if topic not in known:
        refuse_hidden(producer, causes, [topic], "WRITE and DESCRIBE on the topic")
        raise InputError(
            f"Kafka has no topic {topic}; run `guerdon init` to create it, or set `publish_rewards = false`"
        )
    return producer
