"""Run the worker: poll, decode, admit, merge; then append, evaluate, record in one transaction; then project."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import structlog
from confluent_kafka import KafkaException

from consumers.batch_size import BatchSize
from consumers.clock import Clock
from consumers.health.heartbeat import Heartbeat
from consumers.health.reports import Reports
from consumers.health.summary import Summary
from consumers.health.warned import warn
from consumers.health.watch import StepTimes, Watch
from consumers.intake import make_intake
from consumers.output.publisher import Publisher
from consumers.output.publisher import finish as finish_publishing
from consumers.source.alignment import Alignment
from consumers.source.catching_up import CatchingUp
from consumers.source.lanes import SILENCE_S, Lanes
from consumers.source.losses import Losses
from consumers.source.positions import Positions
from consumers.source.schema_waits import SchemaWaits
from consumers.source.source import END_OF_PARTITION, OUT_OF_RANGE, Source, consumer_config, place_of
from consumers.source.track import Track
from consumers.writer import Stopped, TookTooLong, Writer
from engine.live.batch import Batch
from engine.live.tier_reports import retell
from engine.store.database import INFRASTRUCTURE
from engine.store.kafka.offsets import Fenced
from engine.store.session.failures import words_of
from engine.store.session.voice import Patience
from operations.intake.offsets import topic_ids
from operations.kafka.ends import Ends
from operations.kafka.places import claim
from projections.runner import Projector, finish
from schemas.errors import AnswerIsNo, ServiceUnreachable
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from confluent_kafka import KafkaError, Message

    from consumers.clock import ClockName
    from consumers.source.source import Begin
    from engine.intake.batch import Partition
    from engine.live.work import Outcome
    from operations.settings import Settings
    from schemas.codec import WriterSchemas

log = structlog.get_logger()

T = TypeVar("T")

TOPICS_IN_RANK = ("signups", "shares", "purchases", "activities", "redemptions")
"""At one instant, events are judged in this order."""

POLL_MESSAGES_MAX = 2_000
IDLE_S = 0.1
BUSY_S = 0.002
RETRY_S = 0.5
RETRY_S_MAX = 5.0
BATCH_INTERVAL_S = 0.02
"""Least time between the starts of two small batches: a transaction costs 5 ms however few events it has."""

SETTLE_S = 3.0
CATCHING_UP = 4
"""A batch of more than this part of the largest says that there is a backlog: then projections fold in larger steps."""

BUFFERED_BATCHES = 3
"""Records kept in memory, in multiples of the largest batch; beyond it the lanes that have records are paused."""

BUFFERED_BYTES_MAX = 48 << 20
"""The same in bytes of messages, for topics whose messages are large."""

ROOM_AGAIN = 0.5
"""Paused lanes are read on when less than this part of either bound is used."""


class Worker:
    """Take events from Kafka into the logs and the views until told to stop.

    Args:
        settings: addresses and bounds.
        writer_schemas: where schemas of messages are looked up.
        until_caught_up: stop when the end offsets seen at start are taken, what is due is done, and all of it is
            projected and published.
        clock: which time moves members without events: the wall's, or that of the latest event.
        until_ms: with `until_caught_up`, where the clock of events is moved on to at the end.
        observe: called with the name of each step's start and end in a transaction.
        watch: what this worker tells of itself; one with metrics where somebody can ask for them.

    Raises:
        AnswerIsNo: no programme is active, or (with `until_caught_up`) it was told to stop before, or a partition
            cannot be read on.
        InputError: the settings name other topics, or another Kafka cluster, than the database reads.
        ServiceUnreachable: Kafka or PostgreSQL does not answer at start; Kafka has given this worker up.
    """

    def __init__(
        self,
        settings: Settings,
        writer_schemas: WriterSchemas,
        *,
        until_caught_up: bool = False,
        clock: ClockName = "wall",
        until_ms: int | None = None,
        observe: Callable[[str], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.summary = Summary()
        self._watch = watch or Watch(settings)
        self._steps = StepTimes(observe)
        self._settings = settings
        self._until_caught_up = until_caught_up
        self._stop = threading.Event()
        self._topics = topics_of(settings)
        self._lanes = Lanes({topic: rank for rank, topic in enumerate(self._topics)})
        self._positions = Positions(settings.database_url)
        self._watch.now_ms = self._positions.time.now_ms
        try:
            self._intake = make_intake(settings, writer_schemas, self._positions.time)
            self._ends = Ends(settings.kafka_config())
            claim(settings, self._ends)
        except BaseException:
            self._positions.close()  # a session that stays would look like a worker's
            raise
        self._source = Source(
            consumer_config(settings.kafka_config(), settings.group_id, settings.group_protocol),
            self._topics,
            self._on_assigned,
            self._on_revoked,
        )
        self._waits = SchemaWaits(self._lanes, self._source)
        self._losses = Losses(self._lanes, self._source, self._positions, self._ends, self._patiently)
        self._reports = Reports(self._lanes, self._source)
        self._catching_up = CatchingUp(settings.kafka_config(), self._topics, self._ends, self._positions)
        self._clock = Clock(settings, self._topics, self._ends, self._positions, clock)
        self._alignment = Alignment(self._topics, self._ends, self._positions, settings.alignment_s)
        self._waits_with_ticks = until_caught_up and clock == "events"
        self._until_ms = until_ms
        self._writer = Writer(settings.database_url, writer_schemas.lookup, self._stop, self._steps)
        self._observe = observe or (lambda _point: None)
        self._projector = Projector(settings.database_url, observe=self._observe, folded=self._watch.folded)
        self._publisher = Publisher(settings, observe=self._observe) if settings.publish_rewards else None
        self.heartbeat = Heartbeat(settings, self._watch, (self._writer, self._projector, self._publisher))
        self._batch_size = BatchSize(settings.max_batch)
        self._writing: Future[Outcome] | None = None
        self._written: Batch | None = None
        self._track = Track(self._lanes, self._source, self._positions, self._patiently, self._forget)
        self._patience = Patience("worker")
        self._batches_seen = 0
        self._polled_at = self._begin_at = time.monotonic()

    def stop(self) -> None:
        """Finish the batch under way and leave; safe to call from a signal handler."""
        self._watch.is_draining = True
        self._stop.set()

    def run(self) -> Summary:
        """Work until `stop`, or until caught up, and return what was done."""
        _calm_garbage_collector()
        self.heartbeat.start()
        self._projector.start()
        if self._publisher is not None:
            self._publisher.start()
        try:
            warn(self._settings, self._ends.client(), self._topics)
            if self._until_caught_up:
                self._patiently(self._catching_up.begin)
            while not self._stop.is_set():
                self._track.find_back()
                self._receive()
                self._finish_writing()
                if self._writing is None:
                    self._track.compare(time.monotonic())
                self._begin_writing()
                self._reports.send(time.monotonic())
                if self._until_caught_up and self._is_caught_up():
                    self._move_on()
                    break
        except Stopped:
            log.info("told to stop while a service was away")
        finally:
            left = self._leave()
        if self._until_caught_up and not self._stop.is_set():
            finish(self._settings.database_url, self._stop)
            if self._publisher is not None:
                finish_publishing(self._settings, self._stop, self._observe)
        if self._until_caught_up and self._stop.is_set():
            raise AnswerIsNo(f"told to stop before it had caught up: {left}; {self.summary.accepted:,} were accepted")
        return self.summary

    def _receive(self) -> None:
        """Poll, decode and admit what has arrived, and keep what is in memory within bounds."""
        fullness = self._lanes.fullness(BUFFERED_BATCHES * self._settings.max_batch, BUFFERED_BYTES_MAX)
        self._source.pause(self._lanes.crowded if fullness > 1 else [])
        self._source.resume(self._lanes.empty if fullness > ROOM_AGAIN else self._lanes.partitions)
        waiting = self._writing is not None or len(self._lanes) > 0
        if time.monotonic() - self._polled_at > SILENCE_S / 2:
            self._lanes.listen(time.monotonic())
        self._waits.ask_again(time.monotonic())
        messages = self._source.poll(POLL_MESSAGES_MAX, BUSY_S if waiting else IDLE_S)
        self._watch.received(messages)
        now = self._polled_at = time.monotonic()
        for message in messages:
            partition, offset = place = place_of(message)
            error = message.error()
            if error is None:
                self._take(message, place, now)
            elif error.code() == END_OF_PARTITION:
                if self._losses.is_whole(partition, None, offset):
                    self._lanes.reached_end(partition, offset, now)
            else:
                self._on_error(partition, error)
        self._watch.look(self._lanes, self._source.known_end, self._written)

    def _begin_writing(self) -> None:
        """Hand over the next batch: at once when idle, every BATCH_INTERVAL_S under load, by size when behind."""
        now = time.monotonic()
        early = now < self._begin_at and len(self._lanes) < self._settings.max_batch // CATCHING_UP
        if self._writing is not None or (early and not self._alignment.holds_back):
            return
        self._lanes.note_ends(self._source.known_end)
        batch = self._alignment.take(self._lanes, self._batch_size.now(), now)
        if not self._waits_with_ticks:
            self._clock.read(now)
            if batch is None:
                batch = self._clock.idle_batch()
            else:
                batch.clock = self._clock.move()
        if batch is not None:
            self._begin_at = now + BATCH_INTERVAL_S
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        self._written = batch
        self._steps.begin()
        self._writing = self._writer.begin(batch)

    def _finish_writing(self) -> None:
        """Take note of the transaction that has ended; where it was fenced, read on from where the table stands."""
        if self._writing is None or not self._writing.done():
            return
        writing, batch = self._writing, self._written
        self._writing = self._written = None
        assert batch is not None  # noqa: S101  set together with the future
        try:
            outcome = writing.result()
        except Fenced as fenced:
            log.warning("batch fenced", why=str(fenced))
            self._track.lose(batch.moves)
            return
        except TookTooLong as ended:
            size = self._batch_size.took_too_long(len(batch.admitted))
            log.warning("batch took too long", why=str(ended), max_batch=size)
            self._track.lose(batch.moves)
            return
        except Stopped:
            return
        self.summary.add(outcome)
        if batch.clock is not None and batch.clock.everywhere:
            self._finish_idle(outcome)
            return
        self.summary.batches += 1
        behind = len(batch.admitted) > self._settings.max_batch // CATCHING_UP
        pause_ms = self._settings.projection_pause_behind_ms if behind else self._settings.projection_pause_ms
        self._projector.pause_s = pause_ms / 1000
        self._projector.wake()
        if self._publisher is not None:
            self._publisher.wake(behind=behind)
        self._watch.committed(batch, outcome, self._steps, self._source.known_end, len(self._lanes))
        self._reports.add({partition: move.next for partition, move in batch.moves.items()})

    def _finish_idle(self, outcome: Outcome) -> None:
        """Take note of a transaction that moved the clocks of shards without traffic."""
        self._clock.ticked(outcome.ticks)
        if outcome.ticks:
            self._watch.ticked(outcome)
            self._projector.wake()
            if self._publisher is not None:
                self._publisher.wake()

    def _move_on(self) -> None:
        """Perform what is due in all shards, by a time that all workers agree on, as nothing is left to consume."""
        move = self._patiently(lambda: self._clock.last_move(self._until_ms))
        while move is not None and not self._stop.is_set():
            ticks_before = self.summary.ticks
            self._write(Batch(clock=move))
            wait([] if self._writing is None else [self._writing])
            self._finish_writing()
            if self.summary.ticks == ticks_before:
                if not self._patiently(lambda: self._positions.is_any_due(move)):
                    break
                self._patience.wait(lambda: "another worker has the shards in which something is still due")
                self._stop.wait(IDLE_S)
            else:
                self._patience.over()
        if move is not None and self._until_ms is not None:
            for shard in range(SHARDS):
                self._patiently(lambda shard=shard: retell(self._settings.database_url, shard, move.until_ms))  # type: ignore[misc]

    def _take(self, message: Message, place: tuple[Partition, int], now: float) -> None:
        """Decode and admit `message`, or let it wait while its schema cannot be had: it is not the message's fault."""
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
        self._lanes.add(partition, offset, record, now, message.leader_epoch(), message.value())

    def _on_error(self, partition: Partition, error: KafkaError) -> None:
        if error.code() != OUT_OF_RANGE or partition not in self._lanes:
            log.warning("broker", why=self._source.why(error, partition[0]), code=error.name())
            self._source.refused(error)
            return
        self._losses.cannot_read(partition, error)
        if partition not in self._lanes:
            self._waits.forget([partition])

    def _on_assigned(self, partitions: list[Partition]) -> dict[Partition, Begin]:
        """Open a lane for each partition where PostgreSQL says to begin, and return where to read from."""
        self._settle()
        found = (
            self._patiently(
                lambda: self._positions.starts(
                    partitions, self._source, topic_ids(self._settings.kafka_config(), self._topics)
                )
            )
            or {}
        )
        now = time.monotonic()
        self._track.forget(partitions)
        self._waits.forget(partitions)
        self._losses.expect(found)
        for partition, (offset, high_ms, _) in found.items():
            self._lanes.open(partition, offset, high_ms, now)
        self._reports.add({partition: begin.offset for partition, begin in found.items()})
        self._watch.joined(found)
        return found

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._settle()
        self._lanes.close(partitions)
        self._forget(partitions)
        self._track.forget(partitions)
        self._watch.left(partitions, self._lanes)

    def _forget(self, partitions: list[Partition]) -> None:
        """Forget what was noted of partitions that are read anew, or by another worker."""
        self._waits.forget(partitions)
        self._losses.forget(partitions)

    def _settle(self) -> None:
        """Let the transaction under way end, so that the table speaks of it; without, more would be repeated."""
        if self._writing is not None:
            wait([self._writing], SETTLE_S)
            self._finish_writing()

    def _patiently(self, ask: Callable[[], T]) -> T | None:
        """Ask until PostgreSQL and Kafka answer; None when told to stop first."""
        while not self._stop.is_set():
            try:
                return ask()
            except (*INFRASTRUCTURE, ServiceUnreachable, KafkaException) as error:
                self._watch.turn()
                why = self._source.why(error) if isinstance(error, KafkaException) else words_of(error)
                log.warning("worker pauses", why=why)
                self._stop.wait(RETRY_S)
                with suppress(*INFRASTRUCTURE, ServiceUnreachable):
                    self._positions.reconnect()
        return None

    def _is_caught_up(self) -> bool:
        if self._writing is not None:
            return False
        if self._patiently(self._catching_up.is_done) is True:
            return True
        if self.summary.batches != self._batches_seen:
            self._patience.over()
            self._batches_seen = self.summary.batches
        else:
            self._patience.wait(lambda: f"{self._patiently(self._catching_up.left)}; they may be another worker's")
        return False

    def _leave(self) -> str:
        """End all that was begun, and return what is left to catch up with, if that was the aim."""
        self.heartbeat.leave()
        try:
            self._stop_writing()
        finally:  # whatever ends the worker: others are to have its partitions at once
            left = self._close()
        return left

    def _close(self) -> str:
        self._projector.stop()
        if self._publisher is not None:
            self._publisher.stop()
        self._source.close(self._reports.take())
        self._ends.close()
        left = "how much is left is not known, as PostgreSQL does not answer"
        with suppress(*INFRASTRUCTURE):
            left = self._catching_up.left()
        self._positions.close()
        self.heartbeat.stop()
        return left

    def _stop_writing(self) -> None:
        """Wait for the batch under way; when told to stop, no longer than PostgreSQL deserves."""
        if self._writing is not None:
            wait([self._writing], SETTLE_S)
            if not self._writing.done():
                self._stop.set()
                while not self._writing.done():  # between two statements there is none to cancel
                    self._writer.cancel()
                    wait([self._writing], SETTLE_S)
            self._finish_writing()
        self._writer.close()


def topics_of(settings: Settings) -> list[str]:
    """Return the full names of the input topics, in the order of TOPICS_IN_RANK."""
    return [settings.topic_prefix + topic for topic in TOPICS_IN_RANK]


def _calm_garbage_collector() -> None:
    """Collect rarely: a batch makes a hundred thousand objects and no cycles, and each collection walks them all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
