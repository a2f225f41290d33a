"""Ask the broker where partitions begin and end: at the committed records, or behind open transactions."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, though not listed

from operations.kafka.causes import KafkaCauses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.intake.batch import Partition

ANSWERED_S = 2.0
PROBED_S = 5.0
_POLL_S = 0.1


class Span(NamedTuple):
    """Name the offsets at which the broker's part of a partition begins and ends."""

    first: int
    """The first record."""

    stable: int
    """The end of the records delivered now: the first open transaction, or the true end."""

    true: int
    """The end behind all records."""


class Ends:
    """Ask one client; after an error a new one, as the old one may go on to ask a broker that no longer leads.

    Every question raises KafkaException where the broker does not answer within `answered_s`.
    """

    def __init__(self, kafka: Mapping[str, str], answered_s: float = ANSWERED_S) -> None:
        self._causes = KafkaCauses(dict(kafka))
        self._answered_s = answered_s
        self._admin: AdminClient | None = None

    def close(self) -> None:
        """Give up the connection to the broker: it would be tried again for as long as this object lives."""
        self._admin = None

    def partitions(self, topics: list[str]) -> list[Partition]:
        """Return the partitions that the topics have now."""
        try:
            answers = self.client().describe_topics(TopicCollection(topics), request_timeout=self._answered_s)
            return [(topic, each.id) for topic, future in answers.items() for each in future.result().partitions]
        except KafkaException:
            self._drop_client()
            raise

    def first(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the first offset that the broker still has of each partition."""
        return self._ask(partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]

    def stable(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return up to where each partition is delivered now: to its end, or to the first open transaction."""
        return self._ask(partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]

    def true(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the end of each partition, whatever transactions are open in it."""
        return self._ask(partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)  # type: ignore[no-untyped-call]

    def spans(self, partitions: Iterable[Partition]) -> dict[Partition, Span]:
        """Return the span of each partition that the broker has; a partition whose topic is gone is left out."""
        wanted = list(partitions)
        first, stable, true = self.first(wanted), self.stable(wanted), self.true(wanted)
        return {each: Span(first[each], stable[each], true[each]) for each in wanted if each in first and each in true}

    def client(self) -> AdminClient:
        """Return the client, for other questions of the same moment."""
        if self._admin is None:
            self._admin = AdminClient(self._causes.config)
        return self._admin

    def why(self, error: KafkaException) -> str:
        """Return in a sentence why the broker did not answer."""
        if self._admin is not None:
            self._causes.listen(self._admin)
        return self._causes.why(error, right="DESCRIBE on the topics")

    def answered(self) -> None:
        """Note that the broker has answered: earlier lines about it no longer count."""
        self._causes.answered()

    def _drop_client(self) -> None:
        if self._admin is not None:
            self._causes.listen(self._admin)
        self._admin = None

    def _ask(self, partitions: Iterable[Partition], spec: Any, isolation: IsolationLevel) -> dict[Partition, int]:
        wanted = {TopicPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        offsets = {}
        try:
            answers = self.client().list_offsets(wanted, isolation_level=isolation, request_timeout=self._answered_s)
            for each, future in answers.items():
                error = future.exception()
                if error is None:
                    offsets[each.topic, each.partition] = int(future.result().offset)
                elif not is_unknown(error):
                    raise error
        except KafkaException:
            self._drop_client()
            raise
        return offsets


def is_unknown(error: BaseException) -> bool:
    """Whether the broker does not have the topic or the partition."""
    return isinstance(error, KafkaException) and error.args[0].code() in (
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001  confluent-kafka's public name for it begins so
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  as above
    )


def records_at(
    kafka: Mapping[str, str], offsets: Mapping[Partition, int], patience_s: float = PROBED_S
) -> dict[Partition, Any]:
    """Return the message at each offset, also of an open transaction; a partition that has none there is left out."""
    if not offsets:
        return {}
    settings = {
        **kafka, "group.id": "guerdon-probe", "enable.auto.commit": "false", "auto.offset.reset": "latest",
        "isolation.level": "read_uncommitted", "queued.max.messages.kbytes": "1024", "enable.partition.eof": "true",
    }  # fmt: skip
    settings.pop("group.instance.id", None)

    deadline = time.monotonic() + patience_s
    waiting = set(offsets)
    messages = {}
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(*partition, offset) for partition, offset in sorted(offsets.items())])
        while waiting and time.monotonic() < deadline:
            message = consumer.poll(_POLL_S)
            if message is None or message.topic() is None:
                continue
            partition: Partition = (message.topic(), message.partition())  # type: ignore[assignment]  # it has both
            if partition in waiting:
                waiting.discard(partition)
                if message.error() is None and message.offset() == offsets[partition]:
                    messages[partition] = message
    return messages


def opened_at(
    kafka: Mapping[str, str], stable: Mapping[Partition, int], patience_s: float = PROBED_S
) -> dict[Partition, int]:
    """Return when the open transaction at each offset of `stable` began, in ms, where its first record has a time."""
    times = {}
    for partition, message in records_at(kafka, stable, patience_s).items():
        _, at_ms = message.timestamp()
        if at_ms > 0:
            times[partition] = int(at_ms)
    return times
