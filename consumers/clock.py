"""Decide how far ticks may move the clocks of members: never ahead of events that are still to come."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumers.source.open_transactions import OpenTransactions
from consumers.source.source import place_of
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import INFRASTRUCTURE, transaction
from engine.store.generations import live_generation
from engine.store.session.failures import words_of
from operations.kafka.causes import KafkaCauses
from schemas.codec import Decoder
from schemas.errors import InputError, ServiceUnreachable
from schemas.rejection import Rejected
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from consumers.source.positions import Positions
    from engine.intake.batch import Partition
    from operations.kafka.ends import Ends
    from operations.settings import Settings
    from schemas.codec import WriterSchemas

log = structlog.get_logger()

ClockName = Literal["wall", "events"]

READ_EVERY_S = 2.0
"""How often the clock is read: a query and a request to the broker, a few ms together; a tick an hour is enough."""

READ_AGAIN_S = 10.0
"""The same after a service that did not answer: asking keeps the polling thread waiting."""

DAY_MS = 86_400_000
ANSWER_S = 30.0
ASK_AGAIN_S = 0.1


class Clock:
    """Read how far time is: the wall clock's or the events' own, and no later than the events that were consumed.

    Args:
        settings: name the addresses, and how late events may be.
        topics: the input topics; all their partitions count, those of other workers and those added later, too.
        ends: asks the broker where each partition ends.
        positions: asks the table where each partition stands; used by the thread that polls.
        name: `wall` or `events`.
    """

    def __init__(
        self, settings: Settings, topics: list[str], ends: Ends, positions: Positions, name: ClockName
    ) -> None:
        self._topics = topics
        self._ends = ends
        self._open = OpenTransactions(settings.kafka_config(), ends)
        self._waits_for_kafka = False
        self._positions = positions
        self._name = name
        self._lateness_ms = settings.lateness_s * 1000
        self._until_ms: int | None = None
        self._read_at = 0.0
        self._is_idle_due = False

    def read(self, now: float) -> None:
        """Read the clock again when it is time to; while a service is away it stands still, which is never wrong."""
        if now < self._read_at:
            return
        self._read_at = now + READ_EVERY_S
        self._is_idle_due = True

        try:
            time_ms = self._time_ms()
        except KafkaException as error:
            log.warning("worker waits for Kafka", why=self._ends.why(error), code=error.args[0].name())
            self._waits_for_kafka = True
            self._read_at = now + READ_AGAIN_S
            return
        except INFRASTRUCTURE as error:
            log.warning("clock pauses", why=words_of(error))
            self._read_at = now + READ_AGAIN_S
            with suppress(*INFRASTRUCTURE, ServiceUnreachable):
                self._positions.reconnect()
            return

        self._until_ms = None if time_ms is None else time_ms - self._lateness_ms
        if self._waits_for_kafka:
            self._waits_for_kafka = False
            self._ends.answered()
            log.info("worker has Kafka again")

    def move(self) -> ClockMove | None:
        """Return how far the clocks of a batch's shards may be moved before its events."""
        return None if self._until_ms is None else self._move(self._until_ms)

    def idle_batch(self) -> Batch | None:
        """Return a batch without events, for shards without traffic; None where none is due yet."""
        if not self._is_idle_due or self._until_ms is None:
            return None
        self._is_idle_due = False
        return Batch(clock=self._move(self._until_ms, everywhere=True))

    def _move(self, until_ms: int, *, everywhere: bool = False) -> ClockMove:
        return ClockMove(until_ms, everywhere=everywhere, reached_ms=until_ms + self._lateness_ms)

    def note_ticks(self, count: int) -> None:
        """Note how many ticks an idle batch had; after any tick more may be due, and the next batch follows at once."""
        self._is_idle_due = self._is_idle_due or count > 0

    def last_move(self, until_ms: int | None) -> ClockMove | None:
        """Return how far to move all clocks once everything is consumed; None where no time is known.

        That is as far as a tick may go. With `until_ms` it is that instant, or the latest event where that is later.

        Raises:
            KafkaException, psycopg2.Error: Kafka or PostgreSQL does not answer.
        """
        time_ms = self._time_ms()
        if until_ms is not None:
            time_ms = max(until_ms, time_ms or 0)
            return ClockMove(time_ms, everywhere=True, hourly=False, reached_ms=time_ms)
        if time_ms is None:
            return None
        return ClockMove(time_ms - self._lateness_ms, everywhere=True, hourly=False, reached_ms=time_ms)

    def _time_ms(self) -> int | None:
        """Return how far time is.

        Partitions are listed each time, and their ends are those behind open transactions: an event that spends points
        may lie in a partition that was added a moment ago, or wait for its producer to commit.
        """
        ends = self._ends.true(self._ends.partitions(self._topics))
        now_ms, consumed = self._positions.consumed(sorted(ends))
        self._open.note(ends, {partition: offset for partition, (offset, _) in consumed.items()})
        return time_of(None if self._name == "events" else now_ms, ends, consumed)


def time_of(
    wall_ms: int | None, ends: Mapping[Partition, int], consumed: Mapping[Partition, tuple[int, int]]
) -> int | None:
    """Return how far time is, in ms; None where no event and no clock says it.

    Args:
        wall_ms: PostgreSQL's clock; None: the latest event counts instead.
        ends: the end offset of each partition, read before `consumed`.
        consumed: (next offset, highest occurred_at or 0) of each partition that was ever read.
    """
    # a partition that is behind its end holds time back at its latest event
    latest_ms = max((high_ms for _, high_ms in consumed.values()), default=0)
    times = [latest_ms if wall_ms is None else wall_ms]
    for partition, end in ends.items():
        next_offset, high_ms = consumed.get(partition, (0, 0))
        if next_offset < end:
            times.append(high_ms)
    return min(times) or None


def refuse_old_backlog(settings: Settings, topics: list[str], schemas: WriterSchemas) -> None:
    """Refuse to begin on a backlog of more than a day by the wall clock, where nobody asked for that clock.

    Raises:
        InputError: nothing was recorded yet, and the topics hold an event that happened more than a day ago.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    with transaction(settings.database_url) as cursor:
        (is_empty,) = one(cursor, "SELECT NOT EXISTS (SELECT FROM guerdon.source_event WHERE source <> 'guerdon')")
        now_ms = live_generation.now_ms(cursor)
    if not is_empty:
        return

    oldest_ms = _oldest_ms(settings, topics, Decoder(schemas, settings.message_bytes_max))
    if oldest_ms is not None and oldest_ms < now_ms - DAY_MS:
        raise InputError(
            f"nothing was recorded yet and the topics hold events since {iso_from_instant(oldest_ms)}, whose points "
            "would expire at once by the wall clock: name --clock events to let time go with the events, or "
            "--clock wall if that is what you want"
        )


def _oldest_ms(settings: Settings, topics: list[str], decoder: Decoder) -> int | None:
    """Return when the earliest of the partitions' first events occurred; None where no partition has one."""
    causes = KafkaCauses({**settings.kafka_config(), "group.id": settings.group_id, "enable.auto.commit": "false"})
    consumer = Consumer(causes.config)
    deadline = time.monotonic() + ANSWER_S
    try:
        # where the first record of each partition lies
        present = consumer.list_topics(timeout=ANSWER_S).topics
        waiting: dict[Partition, int] = {}
        for topic in topics:
            for number in present[topic].partitions if topic in present else ():
                low, high = _watermarks(consumer, TopicPartition(topic, number), deadline)
                if high > low:
                    waiting[topic, number] = low

        # read one record from each
        consumer.assign([TopicPartition(*partition, low) for partition, low in sorted(waiting.items())])
        times_ms: list[int] = []
        while waiting and time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is not None and not message.error() and waiting.pop(place_of(message)[0], None) is not None:
                times_ms += _occurred(message, decoder, len(settings.topic_prefix))
        return min(times_ms, default=None)
    except KafkaException as error:
        causes.listen(consumer)
        raise ServiceUnreachable(causes.why(error)) from error
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, partition: TopicPartition, deadline: float) -> tuple[int, int]:
    """Return the first and the end offset; ask again, as a topic that was made a moment ago has no leader yet."""
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=ANSWER_S)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(ASK_AGAIN_S)
        else:
            return int(low), int(high)


def _occurred(message: Message, decoder: Decoder, prefix_length: int) -> list[int]:
    """Return when the message's event occurred, in a list; empty where the worker would set the message aside."""
    try:
        _, event = decoder.decode((message.topic() or "")[prefix_length:], message.value() or b"")
    except Rejected:
        return []
    return [event.occurred_at]
