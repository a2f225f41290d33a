"""Receive events: poll messages, decode and admit each, and keep it in the lane of its partition."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from consumers.health.reports import Reports
from consumers.source.lanes import SILENCE_S, Lanes
from consumers.source.losses import Losses
from consumers.source.retry import Retry
from consumers.source.schema_waits import SchemaWaits
from consumers.source.source import END_OF_PARTITION, OUT_OF_RANGE, Source, consumer_config, place_of, topics_of
from consumers.source.track import Track
from operations.intake.offsets import topic_ids
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import KafkaError, Message

    from consumers.health.watch import Watch
    from consumers.intake import Intake
    from consumers.source.positions import Positions
    from consumers.source.source import Begin, Place
    from engine.intake.batch import OffsetMove, Partition
    from engine.live.batch import Batch
    from operations.kafka.ends import Ends
    from operations.settings import Settings

log = structlog.get_logger()

POLL_MESSAGES_MAX = 2_000
IDLE_S = 0.1
BUSY_S = 0.002
"""How long to wait for the first message of a poll: while there is nothing else to do, and while there is."""

BUFFERED_BATCHES = 3
"""Records in memory at most, in multiples of the largest batch; beyond it the lanes that have records are paused."""

BUFFERED_BYTES_MAX = 48 << 20
"""The same bound in bytes of messages, for topics whose messages are large."""

ROOM_AGAIN = 0.5
"""Paused lanes are read on when less than this part of either bound is used."""


class Reader:
    """Fill the lanes with the records of this worker's partitions, and follow the group as it moves partitions.

    Args:
        settings: name the addresses and bounds.
        intake: decodes and admits a message.
        positions: says where the table stands; used by the thread that polls.
        ends: asks the broker where partitions end.
        watch: hears what is received, and which partitions come and go.
        stop: ends every wait.
        settle: lets the transaction under way end, so that the table says where the partitions stand.
    """

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        positions: Positions,
        ends: Ends,
        watch: Watch,
        stop: threading.Event,
        settle: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._topics = topics_of(settings)
        self._intake = intake
        self._positions = positions
        self._watch = watch
        self._settle = settle
        self.lanes = Lanes({topic: rank for rank, topic in enumerate(self._topics)})
        self._source = Source(
            consumer_config(settings.kafka_config(), settings.group_id, settings.group_protocol),
            self._topics,
            self._on_assigned,
            self._on_revoked,
        )
        self.known_end = self._source.known_end
        self.retry = Retry(positions, watch, stop, self._source.why)
        self._waits = SchemaWaits(self.lanes, self._source)
        self._losses = Losses(self.lanes, self._source, positions, ends, self.retry)
        self._track = Track(self.lanes, self._source, positions, self.retry, self._forget)
        self._reports = Reports(self.lanes, self._source)
        self._polled_at = time.monotonic()

    def receive(self, under_way: Batch | None) -> None:
        """Poll once, and decode and admit what has arrived; `under_way` is the batch that is being written."""
        self._track.find_back()
        self._keep_within_bounds()

        # a loop that was busy elsewhere has heard nothing: no lane is silent for that
        if time.monotonic() - self._polled_at > SILENCE_S / 2:
            self.lanes.listen(time.monotonic())

        self._waits.ask_again(time.monotonic())
        is_busy = under_way is not None or len(self.lanes) > 0
        messages = self._source.poll(POLL_MESSAGES_MAX, BUSY_S if is_busy else IDLE_S)
        self._watch.note_received(messages)

        now = self._polled_at = time.monotonic()
        for message in messages:
            partition, offset = place = place_of(message)
            error = message.error()
            if error is None:
                self._take(message, place, now)
            elif error.code() == END_OF_PARTITION:
                if self._losses.is_whole(partition, None, offset):
                    self.lanes.reached_end(partition, offset, now)
            else:
                self._on_error(partition, error)

        self._watch.look(self.lanes, self.known_end, under_way)

    def _keep_within_bounds(self) -> None:
        """Pause the lanes that have records while memory is full, and read them on when there is room again."""
        fullness = self.lanes.fullness(BUFFERED_BATCHES * self._settings.max_batch, BUFFERED_BYTES_MAX)
        self._source.pause(self.lanes.crowded if fullness > 1 else [])
        self._source.resume(self.lanes.empty if fullness > ROOM_AGAIN else self.lanes.partitions)

    def _take(self, message: Message, place: Place, now: float) -> None:
        """Decode and admit `message`; where its schema cannot be had now, it waits, as that is not its fault."""
        partition, offset = place
        if partition in self._waits or not self._losses.is_whole(partition, message):
            return

        try:
            is_let_pass = offset in self._positions.passing.get(partition, ())
            record = None if is_let_pass else self._intake.take(message, place)
        except ServiceUnreachable as error:
            self._waits.begin(message, place, str(error), now)
            return

        self._waits.over(partition)
        self.lanes.add(partition, offset, record, now, epoch=message.leader_epoch(), value=message.value())

    def _on_error(self, partition: Partition, error: KafkaError) -> None:
        if error.code() != OUT_OF_RANGE or partition not in self.lanes:
            log.warning("broker", why=self._source.why(error, partition[0]), code=error.name())
            self._source.note_refusal(error)
            return

        self._losses.cannot_read(partition, error)
        if partition not in self.lanes:
            self._waits.forget([partition])

    def lose(self, partitions: Iterable[Partition]) -> None:
        """Take nothing more of `partitions`, whose batch was not written, until they are read again from the table."""
        self._track.lose(partitions)

    def compare(self) -> None:
        """Compare this worker's positions with the table's, now and then; only while nothing is being written."""
        self._track.compare(time.monotonic())

    def committed(self, moves: Mapping[Partition, OffsetMove]) -> None:
        """Note that the offsets of a batch are committed, for the next report to Kafka."""
        self._reports.add({partition: move.next for partition, move in moves.items()})

    def report(self) -> None:
        """Tell Kafka how far this worker is, from time to time."""
        self._reports.send(time.monotonic())

    def close(self) -> None:
        """Leave the group."""
        self._source.close(self._reports.take())

    def _on_assigned(self, partitions: list[Partition]) -> dict[Partition, Begin]:
        """Open a lane for each partition where PostgreSQL says to begin, and return where to read from."""
        self._settle()
        kafka = self._settings.kafka_config()
        begins = self.retry(
            lambda: self._positions.starts(partitions, self._source, topic_ids(kafka, self._topics))
        ) or {}  # fmt: skip

        # earlier notes on these partitions no longer count
        now = time.monotonic()
        self._track.forget(partitions)
        self._waits.forget(partitions)
        self._losses.expect(begins)

        for partition, (offset, high_ms, _) in begins.items():
            self.lanes.open(partition, offset, high_ms, now)
        self._reports.add({partition: begin.offset for partition, begin in begins.items()})
        self._watch.note_assigned(begins)
        return begins

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._settle()
        self.lanes.close(partitions)
        self._forget(partitions)
        self._track.forget(partitions)
        self._watch.note_revoked(partitions, self.lanes)

    def _forget(self, partitions: list[Partition]) -> None:
        """Forget all notes on partitions that are read from the table's offsets again, or by another worker."""
        self._waits.forget(partitions)
        self._losses.forget(partitions)
