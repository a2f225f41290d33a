"""Send events to Kafka: the settings of every producer of events, and one that answers for each event."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from operations.kafka.causes import KafkaCauses
from schemas.codec import Encoder
from schemas.errors import GuerdonError, InputError, ServiceUnreachable
from schemas.events import EVENT_TYPES, TOPIC_TYPES, Event, key_of
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

    from operations.settings import Settings

FIXED: dict[str, Any] = {
    "partitioner": "murmur2_random",  # the shard's own hash: a worker then holds only its own shards
    "enable.idempotence": True,
    "acks": "all",
}
"""Settings without which events would be lost, doubled, or out of order."""

TOPIC_OF = {EVENT_TYPES[name]: topic for topic, names in TOPIC_TYPES.items() for name in names}
"""The topic of each type of event, without the prefix."""

POLL_S = 0.1
CONNECTED_WITHIN_S = 5.0
TAKEN_WITHIN_MS = 5_000
"""How long the broker has to take an event before whoever sent it hears that Kafka is away."""

_TUNING: dict[str, Any] = {
    "linger.ms": 1,  # somebody waits for each
    "compression.type": "lz4",
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    "message.timeout.ms": TAKEN_WITHIN_MS,
    "log_level": 0,
}


class Place(NamedTuple):
    """Name the place where Kafka has an event."""

    topic: str
    partition: int
    offset: int


class Record(NamedTuple):
    """Hold an event with its message's value."""

    event: Event
    value: bytes


def new_producer(causes: KafkaCauses) -> Producer:
    """Return a producer with the settings that `causes` listens for.

    Raises:
        InputError: a setting cannot be used.
    """
    try:
        return Producer(causes.config)
    except (KafkaException, TypeError) as error:
        raise InputError(f"a Kafka setting cannot be used: {_words(error)}; correct KAFKA__… or [kafka]") from None


def encoder_for(registry_url: str | None) -> Encoder:
    """Return an encoder with the registry's schema ids, or without a registry with the committed ones."""
    if registry_url is None:
        return Encoder()
    from schemas.registry import registered_ids, registry_client  # noqa: PLC0415  0.15 s that few installations need

    return Encoder(registered_ids(registry_client(registry_url), registry_url))


class EventProducer:
    """Send events for many threads, and answer with their places once the broker has taken them.

    The connection is opened with the first event, and again after an error that ends a producer for good.

    Args:
        settings: name the brokers, the registry, and the topics.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = {kind: f"{settings.topic_prefix}{topic}" for kind, topic in TOPIC_OF.items()}
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._open: _Open | None = None
        self._is_closed = False

    def connect(self) -> None:
        """Connect before the first event comes, which would wait for it; where Kafka is away, nothing happens."""
        with suppress(GuerdonError, KafkaException):
            producer = self._opened().producer
            for topic in sorted(set(self._topics.values())):
                producer.list_topics(topic, timeout=CONNECTED_WITHIN_S)

    def record(self, event: Event) -> Record:
        """Return an event in the form in which it travels.

        Raises:
            Rejected: it is larger than `message_bytes_max`.
            ServiceUnreachable: the registry does not answer.
        """
        if self._encoder is None:
            self._encoder = encoder_for(self._settings.registry_url)
        value = self._encoder.encode(event)
        if len(value) > self._settings.message_bytes_max:
            raise Rejected(
                Reason.TOO_LARGE, f"it has {len(value):,} bytes and may have {self._settings.message_bytes_max:,}"
            )
        return Record(event, value)

    def send(self, records: Sequence[Record]) -> Future[list[Place]]:
        """Send records in their order; the future has their places, or ServiceUnreachable where one was not taken.

        The others may have been taken then. Sent again, each counts once.
        """
        sending = _Sending(len(records))
        try:
            opened = self._opened()
            for index, (event, value) in enumerate(records):
                opened.producer.produce(
                    self._topics[type(event)], value, key_of(event).encode(), on_delivery=sending.listener(index)
                )
        except BufferError:
            sending.fail("Kafka takes events more slowly than they come: send less at once, or later")
        except KafkaException as error:
            self._note(error.args[0])
            sending.fail(_words(error))
        except GuerdonError as error:
            sending.fail(str(error))
        return sending.future

    def _opened(self) -> _Open:
        with self._lock:
            if self._is_closed:
                raise InputError("this process is leaving: send it to another one")
            if self._open is None or self._open.has_failed:
                if self._open is not None:
                    self._open.close()
                self._open = _Open({**_TUNING, **self._settings.kafka_config(), **FIXED})
            return self._open

    def _note(self, error: KafkaError) -> None:
        if self._open is not None and error.fatal():
            self._open.has_failed = True

    def close(self) -> None:
        """Wait until the broker has taken what was sent, or for TAKEN_WITHIN_MS, and close the connection."""
        with self._lock:
            self._is_closed = True
            if self._open is not None:
                self._open.close()
                self._open = None


class _Open:
    """Hold an open producer, and the thread that hears what became of its messages."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self.has_failed = False
        self.producer = new_producer(KafkaCauses({**kafka, "error_cb": self._note}))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="event producer", daemon=True)
        self._thread.start()

    def _note(self, error: KafkaError) -> None:
        self.has_failed |= error.fatal()

    def _poll(self) -> None:
        while not self._stop.is_set():
            self.producer.poll(POLL_S)

    def close(self) -> None:
        if self.has_failed:
            self.producer.purge()  # whoever waits for one of its messages hears that it was not taken
        self.producer.flush(TAKEN_WITHIN_MS / 1000)
        self._stop.set()
        self._thread.join()


class _Sending:
    """Gather the places of a few events."""

    def __init__(self, count: int) -> None:
        self.future: Future[list[Place]] = Future()
        self._places: list[Place | None] = [None] * count
        self._left = count
        if not count:
            self.future.set_result([])

    def listener(self, index: int) -> Any:
        """Return what hears of the event with this index."""

        def hear(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.fail(error.str())
                return
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None and partition is not None and offset is not None  # noqa: PT018  it was taken
            self._places[index] = Place(topic, partition, offset)
            self._left -= 1
            if not self._left:
                with suppress(InvalidStateError):  # whoever waited has left
                    self.future.set_result([place for place in self._places if place is not None])

        return hear

    def fail(self, why: str) -> None:
        """Let the future say why not all was taken."""
        with suppress(InvalidStateError):  # one reason is enough
            self.future.set_exception(ServiceUnreachable(f"Kafka has not taken it: {why}"))


def _words(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str() if isinstance(cause, KafkaError) else cause)
