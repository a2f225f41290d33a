"""Run the worker: poll, decode, admit, merge; then append, evaluate, record in one transaction; then project."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog
from confluent_kafka import KafkaException

from consumers.clock import Clock
from consumers.intake import Intake
from consumers.lanes import SILENCE_S, Lanes
from consumers.positions import Positions
from consumers.publisher import Publisher
from consumers.publisher import finish as finish_publishing
from consumers.source import END_OF_PARTITION, OUT_OF_RANGE, Source, consumer_config, place_of
from consumers.writer import Stopped, Writer
from engine.batch import Batch
from engine.standings import retell
from engine.store.database import INFRASTRUCTURE, one, transaction
from engine.store.generations import refuse_restored
from engine.store.offsets import Fenced
from engine.store.programmes import active
from engine.store.voice import Patience
from operations.offsets import topic_ids
from projections.runner import Projector, finish
from schemas.codec import Decoder
from schemas.errors import AnswerIsNo, ServiceUnreachable
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from confluent_kafka import KafkaError, Message

    from consumers.clock import ClockName
    from consumers.database_time import DatabaseTime
    from engine.batch import Admitted, Partition, SetAside
    from engine.work import Outcome
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

REPORT_S = 5.0
SETTLE_S = 3.0
CATCHING_UP = 4
"""A batch of more than this part of the largest says that there is a backlog: then projections fold in larger steps."""

BUFFERED_BATCHES = 3
"""Records kept in memory, in multiples of the largest batch; beyond it the lanes that have records are paused."""

BUFFERED_BYTES_MAX = 48 << 20
"""The same in bytes of messages, for topics whose messages are large."""

ROOM_AGAIN = 0.5
"""Paused lanes are read on when less than this part of either bound is used."""


@dataclass(slots=True)
class Summary:
    """Count what a run came to, in events; `ticks` are those of Guerdon's own, `retried` transactions."""

    accepted: int = 0
    duplicate: int = 0
    quarantined: int = 0
    rewards: int = 0
    batches: int = 0
    ticks: int = 0
    retried: int = 0

    def add(self, outcome: Outcome) -> None:
        """Take in a committed batch."""
        self.accepted += outcome.accepted
        self.duplicate += outcome.duplicate
        self.quarantined += outcome.quarantined
        self.rewards += outcome.rewards
        self.ticks += outcome.ticks
        self.retried += outcome.retried


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

    Raises:
        AnswerIsNo: no programme is active, or (with `until_caught_up`) a partition cannot be read on.
        ServiceUnreachable: Kafka or PostgreSQL does not answer at start.
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
    ) -> None:
        self.summary = Summary()
        self._settings = settings
        self._until_caught_up = until_caught_up
        self._stop = threading.Event()
        self._topics = topics_of(settings)
        self._positions = Positions(settings.database_url)
        self._intake = _make_intake(settings, writer_schemas, self._positions.time)
        self._lanes = Lanes({topic: rank for rank, topic in enumerate(self._topics)})
        self._source = Source(
            consumer_config(settings.kafka_config(), settings.group_id, settings.group_protocol),
            self._topics,
            self._on_assigned,
            self._on_revoked,
        )
        self._clock = Clock(settings, self._source.partitions, self._positions, clock)
        self._waits_with_ticks = until_caught_up and clock == "events"
        self._until_ms = until_ms
        self._writer = Writer(settings.database_url, writer_schemas.lookup, self._stop, observe)
        self._observe = observe or (lambda _point: None)
        self._projector = Projector(settings.database_url, observe=self._observe)
        self._publisher = Publisher(settings, observe=self._observe) if settings.publish_rewards else None
        self._writing: Future[Outcome] | None = None
        self._written: Batch | None = None
        self._astray: set[Partition] = set()
        self._reported: dict[Partition, int] = {}
        self._patience = Patience("worker")
        self._batches_seen = 0
        self._report_at = self._look_at = self._polled_at = self._begin_at = time.monotonic()

    def stop(self) -> None:
        """Finish the batch under way and leave; safe to call from a signal handler."""
        self._stop.set()

    def run(self) -> Summary:
        """Work until `stop`, or until caught up, and return what was done."""
        ends = self._patiently(self._source.ends) or {} if self._until_caught_up else {}
        _calm_garbage_collector()
        self._projector.start()
        if self._publisher is not None:
            self._publisher.start()
        try:
            while not self._stop.is_set():
                self._find_back()
                self._receive()
                self._finish_writing()
                self._begin_writing()
                if self._until_caught_up and self._is_caught_up(ends):
                    self._move_on()
                    break
        except Stopped:
            log.info("told to stop while a service was away")
        finally:
            self._leave()
        if self._until_caught_up and not self._stop.is_set():
            finish(self._settings.database_url, self._stop)
            if self._publisher is not None:
                finish_publishing(self._settings, self._stop, self._observe)
        return self.summary

    def _receive(self) -> None:
        """Poll, decode and admit what has arrived, and keep what is in memory within bounds."""
        fullness = self._lanes.fullness(BUFFERED_BATCHES * self._settings.max_batch, BUFFERED_BYTES_MAX)
        self._source.pause(self._lanes.crowded if fullness > 1 else [])
        self._source.resume(self._lanes.empty if fullness > ROOM_AGAIN else self._lanes.partitions)
        waiting = self._writing is not None or len(self._lanes) > 0
        if time.monotonic() - self._polled_at > SILENCE_S / 2:
            self._lanes.listen(time.monotonic())
        messages = self._source.poll(POLL_MESSAGES_MAX, BUSY_S if waiting else IDLE_S)
        now = self._polled_at = time.monotonic()
        for message in messages:
            partition, offset = place = place_of(message)
            error = message.error()
            if error is None:
                self._lanes.add(partition, offset, self._take(message, place), now)
            elif error.code() == END_OF_PARTITION:
                self._lanes.reached_end(partition, offset, now)
            else:
                self._on_error(partition, error)

    def _begin_writing(self) -> None:
        """Hand over the next batch: at once when idle, every BATCH_INTERVAL_S under load, by size when behind."""
        now = time.monotonic()
        early = now < self._begin_at and len(self._lanes) < self._settings.max_batch // CATCHING_UP
        if self._writing is not None or early:
            return
        self._lanes.note_ends(self._source.known_end)
        batch = self._lanes.take(self._settings.max_batch, now)
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
            self._lose_track(batch.moves)
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
        log.info(
            "batch", accepted=outcome.accepted, duplicate=outcome.duplicate, quarantined=outcome.quarantined,
            rewards=outcome.rewards, buffered=len(self._lanes), retried=outcome.retried,
        )  # fmt: skip
        self._report(batch)

    def _finish_idle(self, outcome: Outcome) -> None:
        """Take note of a transaction that moved the clocks of shards without traffic."""
        self._clock.ticked(outcome.ticks)
        if outcome.ticks:
            self._projector.wake()
            if self._publisher is not None:
                self._publisher.wake()
            log.info("ticks", shards=outcome.ticks, rewards=outcome.rewards)

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

    def _report(self, batch: Batch) -> None:
        self._reported.update({partition: move.next for partition, move in batch.moves.items()})
        if time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + REPORT_S
            self._source.report({each: at for each, at in self._reported.items() if each in self._lanes})
            self._reported.clear()

    def _take(self, message: Message, place: tuple[Partition, int]) -> Admitted | SetAside | None:
        """Decode and admit `message`, however long the Schema Registry is away: it is not the message's fault."""
        retry_s = RETRY_S
        while True:
            try:
                return self._intake.take(message, place)
            except ServiceUnreachable as error:
                log.warning("decode pauses", why=str(error), retry_s=retry_s)
                if self._stop.wait(retry_s):
                    raise Stopped from error
                retry_s = min(2 * retry_s, RETRY_S_MAX)

    def _on_error(self, partition: Partition, error: KafkaError) -> None:
        if error.code() != OUT_OF_RANGE or partition not in self._lanes:
            log.warning("broker", why=self._source.why(error, partition[0]), code=error.name())
            self._source.refused(error)
            return
        why = f"the broker no longer has what comes next ({error.str()}); see `guerdon offsets --help`"
        self._patiently(lambda: self._positions.stop(partition, why))
        number = [each for each in self._lanes.partitions if each[1] == partition[1]]
        self._lanes.close(number)
        self._source.leave_out(number)

    def _on_assigned(self, partitions: list[Partition]) -> dict[Partition, int]:
        """Open a lane for each partition where PostgreSQL says to begin, and return those offsets."""
        self._settle()
        found = self._patiently(
            lambda: self._positions.starts(
                partitions, self._source, topic_ids(self._settings.kafka_config(), self._topics)
            )
        )
        now = time.monotonic()
        self._astray.difference_update(partitions)
        for partition, (offset, high_ms) in (found or {}).items():
            self._lanes.open(partition, offset, high_ms, now)
        log.info("assigned", partitions=len(found or {}))
        return {partition: offset for partition, (offset, _) in (found or {}).items()}

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._settle()
        self._lanes.close(partitions)
        self._astray.difference_update(partitions)
        log.info("revoked", partitions=len(partitions))

    def _settle(self) -> None:
        """Let the transaction under way end, so that the table speaks of it; without, more would be repeated."""
        if self._writing is not None:
            wait([self._writing], SETTLE_S)
            self._finish_writing()

    def _lose_track(self, partitions: Iterable[Partition]) -> None:
        """Take nothing more of fenced partitions until the consumer reads them from where the table stands."""
        self._astray.update(partition for partition in partitions if partition in self._lanes)
        self._lanes.close(self._astray)

    def _find_back(self) -> None:
        """Read fenced partitions on from where the table stands.

        A lane is opened only after its seek took effect: a lane that says one offset while the consumer delivers from
        a later one would pass over what lies between.
        """
        if not self._astray:
            return
        found = self._patiently(lambda: self._positions.of(sorted(self._astray))) or {}
        for partition, (offset, high_ms) in found.items():
            with suppress(KafkaException):  # assigned in this moment and not read yet: the next turn seeks again
                self._source.seek(partition, offset)
                self._lanes.open(partition, offset, high_ms, time.monotonic())
                self._astray.discard(partition)

    def _patiently(self, ask: Callable[[], T]) -> T | None:
        """Ask until PostgreSQL and Kafka answer; None when told to stop first."""
        while not self._stop.is_set():
            try:
                return ask()
            except (*INFRASTRUCTURE, ServiceUnreachable, KafkaException) as error:
                why = self._source.why(error) if isinstance(error, KafkaException) else str(error).strip()
                log.warning("worker pauses", why=why)
                self._stop.wait(RETRY_S)
                with suppress(*INFRASTRUCTURE, ServiceUnreachable):
                    self._positions.reconnect()
        return None

    def _is_caught_up(self, ends: dict[Partition, int]) -> bool:
        if self._writing is not None or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + IDLE_S
        left = self._patiently(lambda: self._positions.behind(ends))
        if left is None:
            return False
        behind, stopped = left
        if behind and all(number in stopped for _, number in behind):
            raise AnswerIsNo(f"cannot catch up: {stopped[behind[0][1]]}")
        if self.summary.batches != self._batches_seen:
            self._patience.over()
            self._batches_seen = self.summary.batches
        elif behind:
            named = ", ".join(f"{topic} {number}" for topic, number in behind[:3])
            self._patience.wait(lambda: f"nothing comes of {len(behind)} partitions, such as {named}")
        return not behind

    def _leave(self) -> None:
        self._stop_writing()
        self._projector.stop()
        if self._publisher is not None:
            self._publisher.stop()
        self._source.close()
        self._clock.close()
        self._positions.close()

    def _stop_writing(self) -> None:
        """Wait for the batch under way; when told to stop, no longer than PostgreSQL deserves."""
        if self._writing is not None:
            wait([self._writing], SETTLE_S)
            if not self._writing.done():
                self._stop.set()
                self._writer.cancel()
                wait([self._writing])
            self._finish_writing()
        self._writer.close()


def topics_of(settings: Settings) -> list[str]:
    """Return the full names of the input topics, in the order of TOPICS_IN_RANK."""
    return [settings.topic_prefix + topic for topic in TOPICS_IN_RANK]


def _make_intake(settings: Settings, writer_schemas: WriterSchemas, time: DatabaseTime) -> Intake:
    with transaction(settings.database_url) as cursor:
        refuse_restored(cursor)
        programme = active(cursor)
        (secret,) = one(cursor, "SELECT value FROM guerdon.setting WHERE name = 'digest_secret'")
    if programme is None:
        raise AnswerIsNo(
            "no programme is active, so nothing can be judged; run `guerdon programme activate FILE` first"
        )
    return Intake(
        Decoder(writer_schemas, settings.message_bytes_max),
        topic_prefix=settings.topic_prefix,
        currency=programme.currency,
        secret=bytes(secret),
        future_tolerance_ms=settings.future_tolerance_s * 1000,
        tombstones=settings.tombstones,
        time=time,
    )


def _calm_garbage_collector() -> None:
    """Collect rarely: a batch makes a hundred thousand objects and no cycles, and each collection walks them all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
