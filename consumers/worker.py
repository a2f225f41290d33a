"""Run the worker: take each event from Kafka into the logs, the views, and the topic of reward events.

The path of an event, as `Worker.run` walks it over and over:

    receive     poll messages, decode and admit each             consumers/source/reader.py, consumers/intake.py
    write       merge the partitions into a batch                consumers/source/alignment.py, lanes.py
                append, evaluate and record it, then commit      consumers/writer.py, engine/live/transaction.py
    pass on     project its reward events into the views         projections/runner.py
                publish them to their topic                      consumers/output/publisher.py
                fold facts from the source log for reports       projections/facts/projection.py

Writing, projecting, publishing and facts have a thread each, so that the next messages are decoded meanwhile.
"""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from consumers.batch_size import BatchSize
from consumers.clock import Clock
from consumers.health.heartbeat import Heartbeat, PausingParts
from consumers.health.summary import Summary
from consumers.health.warned import warn
from consumers.health.watch import StepTimes, Watch
from consumers.intake import make_intake
from consumers.output.publisher import Publisher
from consumers.output.publisher import finish as finish_publishing
from consumers.source.alignment import Alignment
from consumers.source.catching_up import CatchingUp
from consumers.source.positions import Positions
from consumers.source.reader import IDLE_S, Reader
from consumers.source.source import topics_of
from consumers.writer import Stopped, TookTooLong, Writer
from engine.live.batch import Batch
from engine.live.tier_reports import report_again
from engine.store.database import INFRASTRUCTURE
from engine.store.kafka.offsets import Fenced
from engine.store.session.voice import Patience
from operations.kafka.ends import Ends
from operations.kafka.places import claim
from projections.projector import Projector
from projections.runner import finish
from schemas.errors import AnswerIsNo
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from consumers.clock import ClockName
    from engine.live.work import Outcome
    from operations.settings import Settings
    from schemas.codec import WriterSchemas

log = structlog.get_logger()

BATCH_INTERVAL_S = 0.02
"""Least time between the starts of two small batches: a transaction costs 5 ms however few events it has."""

FACTS_EVERY_S = 2.0
"""The wait before each fold of facts: reports need them within seconds, and a fold costs 20 ms beside its events."""

SETTLE_S = 3.0
CATCHING_UP = 4
"""A batch of more than this part of the largest is the sign of a backlog: then projections fold in larger steps."""


class UnderWay(NamedTuple):
    """Name the batch that is being written, and its future result."""

    batch: Batch
    future: Future[Outcome]


class Worker:
    """Take events from Kafka into the logs and the views until `stop`.

    Args:
        settings: name the addresses and bounds.
        writer_schemas: knows the schemas of messages.
        until_caught_up: stop when the end offsets seen at start are taken, all due work is done, and all of it is
            projected and published.
        clock: which time moves members without events: the wall's, or that of the latest event.
        until_ms: with `until_caught_up`, where the clock of events is moved on to at the end.
        observe: called with the name of each step's start and end in a transaction.
        watch: reports on this worker; it has metrics where somebody can ask for them.

    Raises:
        AnswerIsNo: no programme is active, or (with `until_caught_up`) it was stopped before, or a partition
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
        self._settings = settings
        self._until_caught_up = until_caught_up
        self._until_ms = until_ms
        self._observe = observe or (lambda _point: None)
        self._stop = threading.Event()
        topics = topics_of(settings)

        # what it reports of itself
        self.summary = Summary()
        self._watch = watch or Watch(settings)
        self._steps = StepTimes(observe)
        self._patience = Patience("worker")
        self._batches_seen = 0

        # receive
        self._positions = Positions(settings.database_url)
        self._watch.now_ms = self._positions.time.now_ms
        try:
            intake = make_intake(settings, writer_schemas, self._positions.time)
            self._ends = Ends(settings.kafka_config())
            claim(settings, self._ends)
        except BaseException:
            self._positions.close()  # a session that stays would look like a worker's
            raise
        self._reader = Reader(
            settings, intake, self._positions, self._ends, watch=self._watch, stop=self._stop, settle=self._settle
        )
        self._lanes = self._reader.lanes
        self._retry = self._reader.retry
        self._catching_up = CatchingUp(settings.kafka_config(), topics, self._ends, self._positions)

        # write
        self._alignment = Alignment(topics, self._ends, self._positions, settings.alignment_s)
        self._clock = Clock(settings, topics, self._ends, self._positions, clock)
        self._waits_with_ticks = until_caught_up and clock == "events"
        self._batch_size = BatchSize(settings.max_batch)
        self._writer = Writer(settings.database_url, writer_schemas.lookup, self._stop, self._steps)
        self._under_way: UnderWay | None = None
        self._begin_at = time.monotonic()

        # pass on
        self._projector = Projector(settings.database_url, observe=self._observe, folded=self._watch.note_fold)
        self._publisher = Publisher(settings, observe=self._observe) if settings.publish_rewards else None
        self._facts = self._make_facts() if settings.facts else None
        self.heartbeat = Heartbeat(
            settings, self._watch, PausingParts(self._writer, self._projector, self._publisher, self._facts)
        )

    def _make_facts(self) -> Projector:
        return Projector(
            self._settings.database_url, log="source", idle_s=FACTS_EVERY_S,
            waits_for=partial(self._watch.backlog, self._settings.max_batch // CATCHING_UP), observe=self._observe,
        )  # fmt: skip

    def stop(self) -> None:
        """Finish the batch under way and leave; safe to call from a signal handler."""
        self._watch.is_draining = True
        self._stop.set()

    def run(self) -> Summary:
        """Work until `stop`, or until caught up, and return what was done."""
        begun_s = time.monotonic()
        self._start()
        try:
            warn(self._settings, self._ends.client(), topics_of(self._settings))
            if self._until_caught_up:
                self._retry(self._catching_up.begin)

            while not self._stop.is_set():
                # poll, decode, admit
                self._reader.receive(self._under_way and self._under_way.batch)

                # let the last batch be projected and published
                self._finish_batch()
                if self._under_way is None:
                    self._reader.compare()

                # append, evaluate, record the next one
                self._begin_batch()
                self._reader.report()

                if self._until_caught_up and self._is_caught_up():
                    self._move_on()
                    break
        except Stopped:
            log.info("told to stop while a service was away")
        finally:
            left = self._leave()

        if self._until_caught_up and not self._stop.is_set():
            self._finish_passing_on(begun_s)
        if self._until_caught_up and self._stop.is_set():
            raise AnswerIsNo(f"told to stop before it had caught up: {left}; {self.summary.accepted:,} were accepted")
        return self.summary

    def _finish_passing_on(self, begun_s: float) -> None:
        """Project and publish the rest, then fold the rest of the facts, and note how long both took."""
        finish(self._settings.database_url, self._stop, ["reward"], self._observe)
        if self._publisher is not None:
            finish_publishing(self._settings, self._stop, self._observe)
        live_s = time.monotonic()
        self.summary.live_s = live_s - begun_s

        if self._facts is not None:
            finish(self._settings.database_url, self._stop, ["source"], self._observe)
            self.summary.facts_s = time.monotonic() - live_s

    def _begin_batch(self) -> None:
        """Merge what has arrived into a batch, and begin to append, evaluate and record it.

        The next batch begins at once when the worker is idle, every BATCH_INTERVAL_S under load, and as soon as there
        is enough for a large one when it is behind.
        """
        now = time.monotonic()
        is_early = now < self._begin_at and len(self._lanes) < self._settings.max_batch // CATCHING_UP
        if self._under_way is not None or (is_early and not self._alignment.holds_back):
            return

        self._lanes.note_ends(self._reader.known_end)
        batch = self._alignment.take(self._lanes, self._batch_size.now(), now)

        # ticks go along with the batch, or by themselves where shards have no traffic
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
        self._steps.begin()
        self._under_way = UnderWay(batch, self._writer.begin(batch))

    def _finish_batch(self) -> None:
        """Take note of the batch whose transaction has ended, and pass on its records.

        A batch that was not written is read again from where the table stands.
        """
        if self._under_way is None or not self._under_way.future.done():
            return
        batch, future = self._under_way
        self._under_way = None

        try:
            outcome = future.result()
        except Fenced as fenced:
            log.warning("batch fenced", why=str(fenced))
            self._reader.lose(batch.moves)
            return
        except TookTooLong as ended:
            size = self._batch_size.shrink(len(batch.admitted))
            log.warning("batch took too long", why=str(ended), max_batch=size)
            self._reader.lose(batch.moves)
            return
        except Stopped:
            return

        self.summary.add(outcome)
        if batch.clock is not None and batch.clock.everywhere:
            self._pass_on_ticks(outcome)
        else:
            self._pass_on(batch, outcome)

    def _pass_on(self, batch: Batch, outcome: Outcome) -> None:
        """Let the reward events of a committed batch be projected and published, and report the batch."""
        self.summary.batches += 1
        is_behind = len(batch.admitted) > self._settings.max_batch // CATCHING_UP
        pause_ms = self._settings.projection_pause_behind_ms if is_behind else self._settings.projection_pause_ms
        self._projector.pause_s = pause_ms / 1000
        self._projector.wake()
        if self._publisher is not None:
            self._publisher.wake(behind=is_behind)

        self._watch.note_batch(batch, outcome, self._steps, self._reader.known_end, len(self._lanes))
        self._reader.committed(batch.moves)

    def _pass_on_ticks(self, outcome: Outcome) -> None:
        """Do the same after a transaction that moved the clocks of shards without traffic."""
        self._clock.note_ticks(outcome.ticks)
        if outcome.ticks:
            self._watch.note_ticks(outcome)
            self._projector.wake()
            if self._publisher is not None:
                self._publisher.wake()

    def _settle(self) -> None:
        """Let the transaction under way end before partitions move: records missing in the table are read twice."""
        if self._under_way is not None:
            wait([self._under_way.future], SETTLE_S)
            self._finish_batch()

    def _is_caught_up(self) -> bool:
        if self._under_way is not None:
            return False
        if self._retry(self._catching_up.is_done) is True:
            return True

        # say what is left where no batch comes any more
        if self.summary.batches != self._batches_seen:
            self._patience.over()
            self._batches_seen = self.summary.batches
        else:
            self._patience.wait(lambda: f"{self._retry(self._catching_up.left)}; they may be another worker's")
        return False

    def _move_on(self) -> None:
        """Perform all due work in all shards, as nothing is left to consume, by a time that all workers agree on."""
        move = self._retry(lambda: self._clock.last_move(self._until_ms))
        while move is not None and not self._stop.is_set():
            ticks_before = self.summary.ticks
            self._write(Batch(clock=move))
            wait([] if self._under_way is None else [self._under_way.future])
            self._finish_batch()

            # no tick: all is done, or another worker is doing the rest
            if self.summary.ticks == ticks_before:
                if not self._retry(lambda: self._positions.is_any_due(move)):
                    break
                self._patience.wait(lambda: "another worker has the shards in which something is still due")
                self._stop.wait(IDLE_S)
            else:
                self._patience.over()

        if move is not None and self._until_ms is not None:
            for shard in range(SHARDS):
                self._retry(lambda shard=shard: report_again(self._settings.database_url, shard, move.until_ms))  # type: ignore[misc]

    def _start(self) -> None:
        _calm_garbage_collector()
        self.heartbeat.start()
        self._projector.start()
        if self._publisher is not None:
            self._publisher.start()
        if self._facts is not None:
            self._facts.start()

    def _leave(self) -> str:
        """End all threads and sessions, and say how much is left to catch up with, if that was the aim."""
        self.heartbeat.leave()
        try:
            self._stop_writing()
        finally:  # whatever ends the worker: others are to have its partitions at once
            left = self._close()
        return left

    def _stop_writing(self) -> None:
        """Wait for the batch under way; when the worker stops, cancel it after SETTLE_S."""
        if self._under_way is not None:
            future = self._under_way.future
            wait([future], SETTLE_S)
            if not future.done():
                self._stop.set()
                while not future.done():  # between two statements there is none to cancel
                    self._writer.cancel()
                    wait([future], SETTLE_S)
            self._finish_batch()
        self._writer.close()

    def _close(self) -> str:
        if self._facts is not None:
            self._facts.stop()
        self._projector.stop()
        if self._publisher is not None:
            self._publisher.stop()
        self._reader.close()
        self._ends.close()

        left = "how much is left is not known, as PostgreSQL does not answer"
        with suppress(*INFRASTRUCTURE):
            left = self._catching_up.left()
        self._positions.close()
        self.heartbeat.stop()
        return left


def _calm_garbage_collector() -> None:
    """Collect rarely: a batch makes a hundred thousand objects and no cycles, and each collection walks them all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
