"""Publish events to Kafka as Avro: read JSON lines, refuse each bad line, and send the rest in their order."""

from __future__ import annotations

import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException

from operations.intake import producer
from operations.kafka.causes import KafkaCauses, is_about_access, refuse_hidden
from schemas.errors import GuerdonError, InputError, ServiceUnreachable
from schemas.events import Event, key_of
from schemas.json_events import decode_json
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from schemas.codec import Encoder

LINE_BYTES_MAX = 16 * 1024 * 1024
METADATA_TIMEOUT_S = 10
TOPIC_WAIT_S = 2
POLL_EVERY_EVENTS = 1_000
FLUSH_STEP_S = 0.5

_TUNING: dict[str, Any] = {
    "linger.ms": 20,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 200_000,
    "queue.buffering.max.kbytes": 65_536,
    "message.timeout.ms": 60_000,
    "log_level": 0,
}
_FIXED: dict[str, Any] = {
    **producer.FIXED,
    "delivery.report.only.error": True,  # a report for each event would cost as much as sending it
}


@dataclass(frozen=True, slots=True)
class BadLine:
    """Name a line that was not published, and why."""

    file: str
    line: int
    reason: Reason
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Published:
    """Count what was published; `interrupted` where Ctrl-C ended it early."""

    published: int
    failed: int
    first_failure: str | None
    interrupted: bool


@dataclass(slots=True)
class Reading:
    """Read events from files of JSON lines, or from standard input as `-`."""

    files: Sequence[str]
    on_bad: Callable[[BadLine], None]
    """Called with each bad line."""

    bad: int = 0
    """Bad lines so far."""

    bytes_read: int = 0
    bytes_total: int | None = field(init=False)
    """The size of the files; None where one of them is a stream."""

    def __post_init__(self) -> None:
        sizes = [_size_of(file) for file in self.files]
        self.bytes_total = None if None in sizes else sum(size or 0 for size in sizes)

    def events(self) -> Iterator[Event]:
        """Yield each good event in the order of the files; blank lines are passed over.

        Raises:
            InputError: a file cannot be read.
        """
        for file in self.files:
            try:
                if file == "-":
                    yield from self._events_of("standard input", sys.stdin.buffer)
                else:
                    with Path(file).open("rb") as handle:
                        yield from self._events_of(file, handle)
            except OSError as error:
                raise InputError(f"{file}: it cannot be read ({error.strerror}); name a file of JSON lines") from None

    def _events_of(self, name: str, handle: BinaryIO) -> Iterator[Event]:
        for number, line in enumerate(_lines(handle), 1):
            self.bytes_read += len(line)
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                event = _publishable(text)
            except Rejected as rejected:
                self.bad += 1
                self.on_bad(BadLine(name, number, rejected.reason, rejected.message))
            else:
                yield event


def publish_events(
    producer_config: Mapping[str, Any],
    encoder: Encoder,
    events: Iterable[Event],
    *,
    topic_prefix: str = "guerdon.",
    rate_per_s: float | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Published:
    """Send `events` in their order to the topics of their types, and return once the broker has taken them all.

    The key is the member and the partitioner Kafka's own, so that a member's events stay in order. Ctrl-C stops the
    reading, and the events read so far are still sent. `on_progress` is called now and then with the number sent.

    Raises:
        InputError: a topic does not exist, or a Kafka setting cannot be used.
        ServiceUnreachable: no broker answers.
    """
    sending = _Sending(producer_config, encoder, topic_prefix)
    try:
        return sending.send(events, rate_per_s, on_progress)
    except (KafkaException, SystemError) as error:  # fatal for the producer; SystemError where it meets a report
        if isinstance(error.__context__, GuerdonError):  # an event was refused, and then the flush could not end
            raise error.__context__ from None
        raise sending.refusal(error) from None


class _Sending:
    """Hold one producer, and count its events."""

    def __init__(self, producer_config: Mapping[str, Any], encoder: Encoder, topic_prefix: str) -> None:
        self._causes = KafkaCauses({**_TUNING, **producer_config, **_FIXED})
        self._producer = producer.new_producer(self._causes)
        self._encoder = encoder
        self._topics = {kind: f"{topic_prefix}{topic}" for kind, topic in producer.TOPIC_OF.items()}
        self._present = self._topics_present()
        self._topic = ""
        self._sent = 0
        self._failed = 0
        self._first_failure: str | None = None
        self._hopeless = False

    def send(
        self, events: Iterable[Event], rate_per_s: float | None, on_progress: Callable[[int], None] | None
    ) -> Published:
        interrupted = False
        every = POLL_EVERY_EVENTS if rate_per_s is None else max(1, min(POLL_EVERY_EVENTS, int(rate_per_s)))

        # whatever ends the loop, the broker gets the events that were read
        try:
            for event in events if rate_per_s is None else self._paced(events, rate_per_s):
                self._send_one(event)
                if self._sent % every == 0:
                    self._producer.poll(0)
                    if on_progress:
                        on_progress(self._sent)
                if self._hopeless:
                    break
        except KeyboardInterrupt:
            interrupted = True
        finally:
            self._flush()

        if on_progress:
            on_progress(self._sent)
        return Published(self._sent - self._failed, self._failed, self._first_failure, interrupted)

    def _send_one(self, event: Event) -> None:
        topic = self._topics.get(type(event))
        if topic is None:
            raise InputError(f"no topic carries a {type(event).__name__.lower()}; operators decide by commands")
        self._topic = topic
        if topic not in self._present:
            self._wait_for_topic(topic)

        # a full queue is waited for
        value, key = self._encoder.encode(event), key_of(event).encode()
        self._sent += 1
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._on_failure)
            except BufferError:
                self._producer.poll(0.01)
            except KafkaException as error:
                self._note_failure(error.args[0], f"event {event.event_id}", topic)
                return
            else:
                return

    def _wait_for_topic(self, topic: str) -> None:
        """Wait a moment for a topic that was just created: the broker may not know it yet."""
        refuse_hidden(self._producer, self._causes, [topic], "WRITE and DESCRIBE on the topic")
        deadline_s = monotonic() + TOPIC_WAIT_S
        while topic not in self._present:
            if monotonic() > deadline_s:
                raise InputError(f"the topic {topic} does not exist; run `guerdon init`")
            self._producer.poll(0.1)
            self._present = self._topics_present()

    def refusal(self, error: Exception) -> ServiceUnreachable:
        """Return the error that says why Kafka takes nothing any more."""
        return ServiceUnreachable(self._causes.why(error, self._topic, "WRITE and DESCRIBE on the topic"))

    def _topics_present(self) -> set[str]:
        try:
            return set(self._producer.list_topics(timeout=METADATA_TIMEOUT_S).topics)
        except KafkaException as error:
            self._causes.listen(self._producer)
            raise ServiceUnreachable(self._causes.why(error)) from None

    def _paced(self, events: Iterable[Event], rate_per_s: float) -> Iterator[Event]:
        started_s = monotonic()
        for index, event in enumerate(events):
            wait_s = started_s + index / rate_per_s - monotonic()
            while wait_s > 0:
                self._producer.poll(min(wait_s, 0.1))
                wait_s = started_s + index / rate_per_s - monotonic()
            yield event

    def _on_failure(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._note_failure(error, f"key {message.key()!r} of {message.topic()}", message.topic())

    def _note_failure(self, error: KafkaError, place: str, topic: str = "") -> None:
        self._failed += 1
        words = error.str()
        if is_about_access(error):
            words = self._causes.why(error, topic, "WRITE and DESCRIBE on the topic")
        self._first_failure = self._first_failure or f"{place}: {words}"

        # a message that is too large says nothing about the next one; any other failure the next one would share
        self._hopeless |= error.code() != KafkaError.MSG_SIZE_TOO_LARGE

    def _flush(self) -> None:
        """Wait until each message was taken or has failed, which takes message.timeout.ms at most."""
        while self._producer.flush(FLUSH_STEP_S):
            if self._hopeless:
                self._producer.purge()


def _publishable(line: bytes) -> Event:
    if len(line) > LINE_BYTES_MAX:
        raise Rejected(Reason.TOO_LARGE, f"the line is longer than {LINE_BYTES_MAX:,} bytes")
    return publishable(decode_json(line))


def publishable(event: Event) -> Event:
    """Return an event that a topic carries.

    Raises:
        Rejected: none does.
    """
    if type(event) not in producer.TOPIC_OF:
        raise Rejected(
            Reason.WRONG_TYPE,
            "type: no topic carries a decision; operators decide by commands such as `guerdon adjust`",
        )
    return event


def _lines(handle: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, a line beyond the limit cut there, so that memory stays bounded."""
    while line := handle.readline(LINE_BYTES_MAX + 1):
        rest = line
        while len(rest) > LINE_BYTES_MAX and not rest.endswith(b"\n"):
            rest = handle.readline(LINE_BYTES_MAX + 1)
        yield line


def _size_of(file: str) -> int | None:
    """Return the size of a file in bytes, None where it is a stream.

    Raises:
        InputError: there is no such file.
    """
    if file == "-":
        return None
    try:
        status = Path(file).stat()
    except OSError as error:
        raise InputError(f"{file}: it cannot be read ({error.strerror}); name a file of JSON lines") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{file}: it is a folder; name a file of JSON lines, or - for standard input")
    return status.st_size if stat.S_ISREG(status.st_mode) else None
