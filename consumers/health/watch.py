"""Watch one worker for its log, its row and its metrics: its positions, its delay, and the cost of its batches.

Everything is counted by batch or by poll, never by event.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaException

from consumers.database_time import DatabaseTime
from engine.store.kafka.short_form import compact
from projections.runner import POSITIONS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka import Message

    from consumers.health.metrics import Metrics
    from consumers.source.lanes import Lanes
    from engine.intake.batch import Partition
    from engine.live.batch import Batch
    from engine.live.work import Outcome
    from operations.settings import Settings

log = structlog.get_logger()

LOOK_S = 1.0
"""How often the lag of the partitions is measured, while the loop goes round every 2 ms."""

TURNS_WITHIN_S = 30.0
"""A loop that has not gone round for this long stands still."""

SAMPLES_MAX = 4_096
HOST_LETTERS_MAX = 40


class Sample(NamedTuple):
    """Hold the first or the last record of a poll, to represent the others, with the time at which it was produced."""

    partition: Partition
    offset: int
    produced_ms: int


class StepTimes:
    """Measure how long each step of the live transaction takes, and pass its points on to `observe`."""

    def __init__(self, observe: Callable[[str], None] | None = None) -> None:
        self._observe = observe
        self.begin()

    def begin(self) -> None:
        """Begin to measure a batch."""
        self._begun_at = self._ended_at = time.perf_counter()
        self._at: dict[str, float] = {}
        self._took_s: dict[str, float] = defaultdict(float)

    def __call__(self, point: str) -> None:
        """Note a point that the transaction passes."""
        when, _, step = point.partition(" ")
        now = time.perf_counter()
        if when == "before":
            self._at[step] = now
        else:
            self._took_s[step] += now - self._at.get(step, now)
            self._ended_at = now
        if self._observe is not None:
            self._observe(point)

    @property
    def seconds(self) -> float:
        """Return how long the batch has taken, with all its attempts, up to its last step."""
        return self._ended_at - self._begun_at

    def slowest(self) -> tuple[str, float]:
        """Return the step that took longest, and its seconds."""
        return max(self._took_s.items(), key=lambda item: item[1], default=("", 0.0))


class Watch:
    """Know how one worker is; the worker's loop, its projector and HTTP requests call it from threads of their own.

    Args:
        settings: name the group and the topics' prefix.
        name: the worker's name; `worker_name` makes one.
        metrics: counts what this watch sees; None where nobody can ask for it.
    """

    def __init__(self, settings: Settings, name: str | None = None, metrics: Metrics | None = None) -> None:
        self.name = name or worker_name()
        self.metrics = metrics
        self.now_ms = DatabaseTime(lambda: None).now_ms
        """PostgreSQL's clock; this machine's until the worker has asked for it."""
        self.started_at = self.turned_at = time.monotonic()
        self.last_batch_at: float | None = None
        self.lags: Mapping[Partition, int] = {}
        self.partitions: Sequence[Partition] = ()
        self.is_draining = False
        self.has_joined = False
        self._prefix = settings.topic_prefix
        self._look_at = 0.0
        self._stands_since: dict[Partition, tuple[int, float]] = {}
        """Of partitions that are behind: the offset, and since when they stand there."""
        self._waiting: deque[Sample] = deque()
        """Samples that are not committed."""
        self._unseen: deque[tuple[float, Sample]] = deque()
        """Samples that no view shows yet, each with the time of its commit."""
        self._lock = threading.Lock()
        if metrics is not None:
            metrics.report_lags_of(self)

    def turn(self) -> None:
        """Note that the loop goes round, or asks again a service that did not answer."""
        self.turned_at = time.monotonic()

    def look(self, lanes: Lanes, known_end: Callable[[Partition], int | None], under_way: Batch | None) -> None:
        """Note that the loop goes round and, once a second, how far each partition is behind."""
        self.turned_at = now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._measure(lanes, known_end, under_way, now)

    def _measure(
        self, lanes: Lanes, known_end: Callable[[Partition], int | None], under_way: Batch | None, now: float
    ) -> None:
        # the offsets of the batch under way are not committed yet
        moves = {} if under_way is None else under_way.moves
        committed = lanes.written
        committed |= {partition: move.expected for partition, move in moves.items() if partition in committed}
        lags = _behind(committed, known_end)

        # since when does each partition that is behind stand still
        stands_since = {}
        for partition, lag in lags.items():
            at, since = self._stands_since.get(partition, (-1, now))
            if lag:
                stands_since[partition] = (committed[partition], since if at == committed[partition] else now)

        with self._lock:
            self.lags, self.partitions, self._stands_since = lags, sorted(committed), stands_since
            self._waiting = deque(sample for sample in self._waiting if sample.partition in committed)

    def note_assigned(self, partitions: Iterable[Partition]) -> None:
        """Note that the group has given this worker partitions, or has none for it."""
        self.has_joined = True
        log.info("assigned", **self._named(partitions))

    def note_revoked(self, partitions: Iterable[Partition], lanes: Lanes) -> None:
        """Note that the group has taken partitions away."""
        self.has_joined = bool(lanes.partitions)
        log.info("revoked", **self._named(partitions))

    def _named(self, partitions: Iterable[Partition]) -> dict[str, object]:
        named = list(partitions)
        return {"count": len(named), "partitions": compact(named, self._prefix)}

    def note_received(self, messages: Sequence[Message]) -> None:
        """Remember when the first and the last record of a poll were produced."""
        if self.metrics is None or not messages or len(self._waiting) >= SAMPLES_MAX:
            return
        for message in (messages[0], messages[-1])[: len(messages)]:
            kind, produced_ms = message.timestamp()
            topic, number, offset = message.topic(), message.partition(), message.offset()
            if message.error() is None and kind != TIMESTAMP_NOT_AVAILABLE and None not in (topic, number, offset):
                with self._lock:
                    self._waiting.append(Sample((topic, number), offset, produced_ms))  # type: ignore[arg-type]

    def note_batch(
        self,
        batch: Batch,
        outcome: Outcome,
        steps: StepTimes,
        known_end: Callable[[Partition], int | None],
        buffered: int,
    ) -> None:
        """Take note of a committed batch, and write its line to the log."""
        self.last_batch_at = time.monotonic()
        self.lags = {**self.lags, **_behind({each: move.next for each, move in batch.moves.items()}, known_end)}

        step, took_s = steps.slowest()
        write = log.warning if outcome.quarantined else log.info
        reasons = {"reasons": dict(outcome.detail.reasons)} if outcome.detail.reasons else {}
        write(
            "batch", accepted=outcome.accepted, duplicate=outcome.duplicate, quarantined=outcome.quarantined, **reasons,
            rewards=outcome.rewards, partitions=compact(batch.moves, self._prefix), lag=sum(self.lags.values()),
            buffered=buffered, retried=outcome.retried, duration_ms=round(steps.seconds * 1000, 1), slowest=step,
            slowest_ms=round(took_s * 1000, 1),
        )  # fmt: skip

        if self.metrics is not None:
            self.metrics.count(batch, outcome, steps.seconds)
            self._await_view(batch)

    def note_ticks(self, outcome: Outcome) -> None:
        """Take note of a transaction that moved the clocks of shards without traffic."""
        log.info("ticks", shards=outcome.ticks, rewards=outcome.rewards)
        if self.metrics is not None:
            self.metrics.count_rewards(outcome)

    def _await_view(self, batch: Batch) -> None:
        """Let the samples of a committed batch wait for the projector."""
        waiting: deque[Sample] = deque()
        with self._lock:
            for sample in self._waiting:
                move = batch.moves.get(sample.partition)
                if move is None or sample.offset >= move.next:
                    waiting.append(sample)
                elif len(self._unseen) < SAMPLES_MAX:
                    self._unseen.append((time.monotonic(), sample))
            self._waiting = waiting

    def note_fold(self, begun_at: float, positions: int) -> None:
        """Take note of a fold: unless it was cut short, the views show all batches that were committed before it."""
        if self.metrics is None or positions >= POSITIONS_MAX or not self._unseen:
            return

        now_ms = self.now_ms()
        samples = []
        with self._lock:
            while self._unseen and self._unseen[0][0] <= begun_at:
                samples.append(self._unseen.popleft()[1])
        for sample in samples:
            self.metrics.visible.observe(max(0.0, now_ms - sample.produced_ms) / 1000)

    def lag_seconds(self) -> float:
        """Return in seconds how long the oldest record received and not committed has waited, as far as is known.

        Where a partition that is behind has stood still for longer, that time counts.
        """
        now, now_ms = time.monotonic(), self.now_ms()
        with self._lock:
            received = max((now_ms - sample.produced_ms for sample in self._waiting), default=0.0) / 1000
            stood = max((now - since for _, since in self._stands_since.values()), default=0.0)
        return max(received, stood, 0.0)

    def backlog(self, least: int) -> str | None:
        """Return in a sentence how many events wait to be taken, where they are more than `least`; else None."""
        lag = sum(self.lags.values())
        return f"they wait until {lag:,} events are taken" if lag > least else None

    def shown_partitions(self) -> str:
        """Return the partitions that this worker reads, in short form."""
        return compact(self.partitions, self._prefix)

    def stands_still(self) -> str | None:
        """Return a sentence where the loop no longer goes round, else None."""
        silence_s = time.monotonic() - self.turned_at
        if self.is_draining or silence_s < TURNS_WITHIN_S:
            return None
        return f"the worker's loop has not gone round for {silence_s:.0f} s"


def _behind(positions: Mapping[Partition, int], known_end: Callable[[Partition], int | None]) -> dict[Partition, int]:
    """Return by how many offsets each partition is behind its end, as of its last fetch."""
    lags = {}
    for partition, at in positions.items():
        with suppress(KafkaException):  # it was taken away in this moment
            end = known_end(partition)
            if end is not None:
                lags[partition] = max(0, end - at)
    return lags


def worker_name() -> str:
    """Return a name of its own for a worker: host, process and a few letters, as every container's process is 1."""
    return f"{socket.gethostname()[:HOST_LETTERS_MAX]}-{os.getpid()}-{secrets.token_hex(2)}"
