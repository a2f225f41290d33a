"""Read the end of the topic of reward events: the last message that followers have of each shard."""

from __future__ import annotations

import json
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from fastavro import parse_schema, schemaless_reader

from consumers.output.comparison import Last, Tail
from engine.store.kafka.incarnations import NONE, is_name
from schemas.errors import ServiceUnreachable
from schemas.partitioning import SHARDS
from schemas.writer_schemas import AVRO_FOLDER

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message

    from consumers.output.comparison import LogRow

MESSAGES_MAX = 500
"""Messages that are read of each partition at most; the tail says nothing of a shard that is not among them."""

WITHIN_S = 8.0
STEP_S = 0.2
_FRAME_BYTES = 5
_TAIL_BASE = -2_000  # _TAIL_BASE - N is librdkafka's offset of the Nth message before the end
_DENIED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
_END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001  confluent-kafka's public name for it begins so

_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "fetch.wait.max.ms": 10,  # how late a broker says that a partition is at its end
    "log_level": 0,
}


class NotAllowed(Exception):
    """Say that the brokers do not let this user read the topic that it writes."""


class Newest(NamedTuple):
    """Hold the furthest message of a shard so far, with its value, which is decoded when all are read."""

    last: Last
    value: bytes | None


class TailReader:
    """Read the end of a topic, each time that it is asked to.

    Args:
        kafka: settings of librdkafka.
        group_id: the workers' group; nothing is ever committed to it.
        topic: the topic's full name.
        frame: the first bytes of messages by the present schema.
    """

    def __init__(self, kafka: Mapping[str, Any], group_id: str, topic: str, frame: bytes) -> None:
        self._config = {**kafka, **_FIXED, "group.id": group_id}
        self._topic = topic
        self._frame = frame
        schema = json.loads((AVRO_FOLDER / "reward_event.avsc").read_text(encoding="utf-8"))
        self._schema = parse_schema(schema)

    def read(self, partitions: int, stop: threading.Event, meanwhile: Callable[[], None]) -> Tail:
        """Return the end of the topic, which has `partitions` partitions; `meanwhile` is called while it waits.

        Raises:
            NotAllowed: the user of the settings may not read the topic.
            ServiceUnreachable: the brokers did not deliver it in time, or this process is stopping.
        """
        consumer = Consumer(self._config)
        try:
            numbers = range(partitions)
            consumer.assign([TopicPartition(self._topic, each, _TAIL_BASE - MESSAGES_MAX) for each in numbers])
            return self._read(consumer, set(numbers), stop, meanwhile)
        except KafkaException as error:
            raise ServiceUnreachable(f"Kafka does not answer ({error.args[0].str()})") from error
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, left: set[int], stop: threading.Event, meanwhile: Callable[[], None]) -> Tail:
        """Poll until each partition in `left` has said that it is at its end."""
        deadline = time.monotonic() + WITHIN_S
        first_offsets: dict[int, int] = {}
        newest: dict[int, Newest] = {}
        while left:
            if stop.is_set() or time.monotonic() > deadline:
                raise ServiceUnreachable(f"Kafka did not deliver the end of {self._topic} within {WITHIN_S:.0f} s")
            meanwhile()

            first = consumer.poll(STEP_S)
            for message in [] if first is None else [first, *consumer.consume(MESSAGES_MAX, 0)]:
                partition, error = message.partition() or 0, message.error()
                if error is None:
                    self._note(message, newest)
                elif error.code() in _DENIED:
                    raise NotAllowed(error.str())
                elif error.code() == _END_OF_PARTITION:
                    left.discard(partition)
                else:
                    continue  # an error of the whole cluster: librdkafka tries again
                first_offsets.setdefault(partition, message.offset() or 0)

        # what begins at offset 0 everywhere is the whole topic
        last = {shard: each.last._replace(row=self._row(each.value)) for shard, each in newest.items()}
        return Tail(last, is_whole=not any(first_offsets.values()))

    @staticmethod
    def _note(message: Message, newest: dict[int, Newest]) -> None:
        """Keep a message that is the furthest of its shard's newest edition; pass over messages of another sender."""
        headers: dict[str, Any] = dict(message.headers() or [])
        try:
            shard, generation, pos = (int(headers[name] or b"") for name in ("shard", "generation", "pos"))
        except (KeyError, ValueError):
            return
        name = (headers.get("incarnation") or b"").decode("ascii", "replace")
        last = Last(name if is_name(name) else NONE, generation, pos)
        if 0 <= shard < SHARDS and (shard not in newest or last[:3] >= newest[shard].last[:3]):
            newest[shard] = Newest(last, message.value())

    def _row(self, value: bytes | None) -> LogRow | None:
        """Return the row of the log that a message with `value` carries; None for none, or by another schema."""
        if value is None or value[:_FRAME_BYTES] != self._frame:
            return None
        event: Any = schemaless_reader(BytesIO(value[_FRAME_BYTES:]), self._schema, None)
        return event["seq"], event["reward_key"], round(event["recorded_at"].timestamp() * 1000)
