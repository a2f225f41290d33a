"""Read the input topics: one consumer group, positions from PostgreSQL, never from Kafka."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumers.source import fixed
from operations.kafka.causes import KafkaCauses, error_of, refuse_hidden
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from engine.intake.batch import LastRecord, Partition
    from operations.settings import Settings

    Place = tuple[Partition, int]
    """A partition and an offset in it."""

log = structlog.get_logger()

TOPICS_IN_RANK = ("signups", "shares", "purchases", "activities", "redemptions")
"""At one instant, events are judged in this order."""

WATERMARK_TIMEOUT_S = 10.0
REFUSED_AGAIN_S = 10.0
LEAVE_S = 1.0
END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001  confluent-kafka's public name for it begins so
OUT_OF_RANGE = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001  as above
FATAL = KafkaError._FATAL  # noqa: SLF001  as above

_PREFETCH = {
    "log_level": "0",  # what matters of librdkafka's own lines arrives as errors of messages, and is logged as such
    "queued.min.messages": "20000",
    "queued.max.messages.kbytes": "32768",
    "fetch.message.max.bytes": "262144",  # small turns: several topics then arrive side by side, not one after another
    "fetch.wait.max.ms": "100",
    "fetch.queue.backoff.ms": "5",  # its default of 1 s leaves the worker idle whenever the queue was full once
    "topic.metadata.refresh.interval.ms": "10000",  # by default partitions that are added are found after 5 minutes
}


def topics_of(settings: Settings) -> list[str]:
    """Return the full names of the input topics, in the order of TOPICS_IN_RANK."""
    return [settings.topic_prefix + topic for topic in TOPICS_IN_RANK]


def consumer_config(kafka: Mapping[str, Any], group_id: str, group_protocol: str) -> dict[str, Any]:
    """Return the consumer's settings; an operator's own win, except over those that exactly-once rests on."""
    if group_protocol == "classic":
        # how soon a killed worker's partitions go to others, and how soon a worker that joins gets its share
        kafka = {"session.timeout.ms": "10000", "heartbeat.interval.ms": "500"} | dict(kafka)
    return _PREFETCH | dict(kafka) | fixed.of_consumer(group_id, group_protocol)


class Source:
    """Deliver messages of the partitions that the group gives this worker.

    Args:
        config: the consumer's settings.
        topics: the input topics.
        assigned: gets the partitions that the group has given, and returns where to begin with each one to read.
        revoked: gets the partitions that the group has taken away.

    Raises:
        InputError: Kafka does not have one of the topics.
        ServiceUnreachable: Kafka does not answer.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topics: list[str],
        assigned: Callable[[list[Partition]], dict[Partition, Begin]],
        revoked: Callable[[list[Partition]], None],
    ) -> None:
        self._causes = KafkaCauses(config)
        self._consumer = Consumer(self._causes.config)
        self._group = str(config["group.id"])
        self._refused: str | None = None
        self._refused_again_s = 0.0
        self._incremental = config["group.protocol"] == "consumer"  # the broker then moves partitions one by one
        self._assigned = assigned
        self._revoked = revoked
        self._paused: set[Partition] = set()
        self._on_hold: set[Partition] = set()

        try:
            present = self._consumer.list_topics(timeout=WATERMARK_TIMEOUT_S).topics
        except KafkaException as error:
            self._causes.listen(self._consumer)
            raise ServiceUnreachable(self._causes.why(error)) from error
        missing = [topic for topic in topics if topic not in present]
        if missing:
            refuse_hidden(self._consumer, self._causes, missing, "READ and DESCRIBE")
            raise InputError(f"Kafka has no topic {', '.join(missing)}; run `guerdon init` to create the topics")
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def why(self, error: Exception | KafkaError, topic: str | None = None) -> str:
        """Return in a sentence why Kafka did not do what was asked."""
        cause = error_of(error)
        if cause is not None and cause.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return self._causes.why(error, self._group, "READ on the group")
        return self._causes.why(error, topic or "", "READ and DESCRIBE on the topic")

    def note_refusal(self, error: KafkaError) -> None:
        """Note that the group does not let this worker in: no message comes until it does, so say it every 10 s."""
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            self._refused = self.why(error)
            self._refused_again_s = time.monotonic() + REFUSED_AGAIN_S

    def _report_refusal(self) -> None:
        if self._refused is not None and time.monotonic() >= self._refused_again_s:
            self._refused_again_s = time.monotonic() + REFUSED_AGAIN_S
            log.error("kafka refuses", why=self._refused)

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset that the broker still has, and the one after the last."""
        low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=WATERMARK_TIMEOUT_S)
        return int(low), int(high)

    def known_end(self, partition: Partition) -> int | None:
        """Return the end offset of `partition` as of its last fetch, without asking Kafka; None before the first."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return int(high) if high >= 0 else None

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return what has arrived; wait up to `timeout_s` for the first message, and for no other.

        Raises:
            ServiceUnreachable: librdkafka has given this consumer up for good; only a new one reads on.
        """
        first = self._consumer.poll(timeout_s)
        self._report_refusal()
        if first is None:
            return []

        messages = [first, *self._consumer.consume(messages_max - 1, 0)]
        for message in messages:
            error = message.error()
            if error is not None and is_fatal(error):
                raise ServiceUnreachable(_why_given_up(error))
        return messages

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` on from `offset`."""
        self._consumer.seek(TopicPartition(*partition, offset))

    def hold(self, partition: Partition) -> None:
        """Deliver nothing more of `partition` until `read_again`, whatever is paused and resumed meanwhile."""
        self._paused.discard(partition)
        self._on_hold.add(partition)
        self.leave_out([partition])

    def read_again(self, partition: Partition, offset: int) -> None:
        """Deliver `partition` again from `offset` on; raises KafkaException where it is not read yet."""
        self._on_hold.discard(partition)
        self._paused.discard(partition)
        self._consumer.resume([TopicPartition(*partition)])
        self.seek(partition, offset)

    def assign_again(self, partition: Partition, positions: Mapping[Partition, int]) -> None:
        """Read `partition` again, which librdkafka has given up and refuses to seek in; all are read at `positions`."""
        if self._incremental:
            self._consumer.incremental_unassign([TopicPartition(*partition)])
            self._consumer.incremental_assign([TopicPartition(*partition, positions[partition])])
        else:
            self._consumer.assign([TopicPartition(*each, offset) for each, offset in sorted(positions.items())])

    def leave_out(self, partitions: Iterable[Partition]) -> None:
        """Deliver nothing more of `partitions`, which stay assigned."""
        self._consumer.pause([TopicPartition(*partition) for partition in partitions])

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Deliver nothing of `partitions` until `resume`."""
        fresh = set(partitions) - self._paused - self._on_hold
        if fresh:
            self._paused |= fresh
            self.leave_out(sorted(fresh))

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Deliver again those of `partitions` that are paused."""
        paused = self._paused.intersection(partitions)
        if paused:
            self._consumer.resume([TopicPartition(*partition) for partition in sorted(paused)])
            self._paused -= paused

    def report(self, positions: Mapping[Partition, int]) -> None:
        """Tell Kafka how far this worker is: for lag dashboards, nothing reads it back."""
        if positions:
            self._consumer.commit(
                offsets=[TopicPartition(*partition, offset) for partition, offset in positions.items()],
                asynchronous=True,
            )

    def close(self, positions: Mapping[Partition, int]) -> None:
        """Tell Kafka how far this worker is, and leave the group; where that takes long, do not wait for it.

        While the group waits for a member that was killed, leaving takes as long as the dead one's session. Nobody
        needs to wait for it: positions are in PostgreSQL.
        """

        def leave() -> None:
            with suppress(KafkaException):  # the broker is away, or the group has other members by now
                if positions:
                    self._consumer.commit(
                        offsets=[TopicPartition(*partition, offset) for partition, offset in positions.items()],
                        asynchronous=False,
                    )
            self._consumer.close()

        leaving = threading.Thread(target=leave, name="leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVE_S)

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._refused = None
        starts = self._assigned([(each.topic, each.partition) for each in partitions])
        wanted = [
            _begin(each.topic, each.partition, starts[each.topic, each.partition])
            for each in partitions
            if (each.topic, each.partition) in starts
        ]
        if self._incremental:
            consumer.incremental_assign(wanted)
        else:
            consumer.assign(wanted)
        # librdkafka keeps a partition paused through a rebalance, but nothing here remembers that it is
        consumer.resume(wanted)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        lost = [(each.topic, each.partition) for each in partitions]
        self._paused.difference_update(lost)
        self._on_hold.difference_update(lost)
        self._revoked(lost)
        if self._incremental:
            consumer.incremental_unassign(partitions)


def _begin(topic: str, number: int, begin: Begin) -> TopicPartition:
    """Return where to read from: at the record taken last, which is compared, or behind it where that is not known."""
    last = begin.last
    if last is None:
        return TopicPartition(topic, number, begin.offset)
    if last.leader_epoch is None:
        return TopicPartition(topic, number, last.offset)
    return TopicPartition(topic, number, last.offset, leader_epoch=last.leader_epoch)


def is_fatal(error: KafkaError) -> bool:
    """Whether this client has given up for good, whatever the cluster does."""
    return bool(error.fatal()) or error.code() == FATAL


def _why_given_up(error: KafkaError) -> str:
    words = error.str()
    if "INSTANCE" in words.upper():
        return (
            f"Kafka has put another worker in this one's place ({words}): give each worker a group.instance.id of its "
            "own (KAFKA__GROUP_INSTANCE_ID), or none"
        )
    return f"Kafka's client has given up for good ({words}): mend what it names, then start the worker again"


def place_of(message: Message) -> Place:
    """Return the partition and offset of `message`, which has both unless it is an error about the whole cluster."""
    return (message.topic(), message.partition()), message.offset()  # type: ignore[return-value]


class Begin(NamedTuple):
    """Say where to begin with a partition, as the table has it."""

    offset: int
    high_ms: int
    """The highest occurred_at that was taken."""

    last: LastRecord | None
    """The record taken last; None where it is not known, or the broker no longer has it."""
