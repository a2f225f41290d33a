"""Keep partition numbers together in event time while some are behind, whichever worker reads them.

Several workers that share a backlog would otherwise judge it in another order than it happened in: a referee would
sign up and buy before the referrer, whose partition another worker reads. Each worker merges its own partitions by
time; from the table of offsets it learns how far the others are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from engine.store.database import INFRASTRUCTURE
from engine.store.kafka.offsets import Frontier
from engine.store.session.voice import Patience
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from consumers.source.lanes import Lanes
    from consumers.source.positions import Positions
    from engine.intake.batch import Partition
    from engine.live.batch import Batch
    from operations.kafka.ends import Ends

log = structlog.get_logger()

ENDS_S = 2.0
"""How often the broker is asked which partitions there are and where they end."""

LOOK_S = 0.005
"""How often the table is read at most while this worker has more than it may take: a look-up of half a millisecond."""

TRUSTED_S = 0.5
"""How long a look at the table counts that lets this worker take everything it has."""

UNREAD_S = 60.0
"""How long others wait for a partition that nobody reads: its worker died, and Kafka has given it to no other yet."""

UNKNOWN = Frontier(0, 0, is_silent=False, is_stopped=False)


class Alignment:
    """Decide up to which event time this worker may take the records that it has.

    Args:
        topics: the input topics; all their partitions count.
        ends: asks the broker how far each partition is delivered.
        positions: asks the table how far each partition is taken; used by the thread that polls.
        alignment_s: how far a worker may be ahead of the partitions that are behind, in seconds of event time.
    """

    def __init__(self, topics: list[str], ends: Ends, positions: Positions, alignment_s: int) -> None:
        self._topics = topics
        self._ends = ends
        self._positions = positions
        self._alignment_ms = alignment_s * 1000
        self._end_of: dict[Partition, int] = {}
        self._ask_at = self._looked_at = 0.0
        self._limit_ms: int | None = None
        self._mine: frozenset[Partition] = frozenset()
        self._furthest: tuple[Partition, Frontier] | None = None
        self._furthest_since = 0.0
        self._unread: dict[Partition, Frontier] = {}
        self._patience = Patience("worker")
        self.holds_back = False
        """Whether this worker had more records than it might take: no batch grows by waiting then."""

    def take(self, lanes: Lanes, records_max: int, now: float) -> Batch | None:
        """Return the next records that may be taken; a worker that has records and may take none says so after 10 s."""
        limit_ms = self.limit_ms(lanes.partitions, lanes.latest_ms, now) if len(lanes) else None
        self.holds_back = limit_ms is not None and lanes.latest_ms > limit_ms
        batch = lanes.take(records_max, now, limit_ms)
        if lanes.is_ahead:
            self._patience.wait(self._why)
        else:
            self._patience.over()
        return batch

    def limit_ms(self, mine: Collection[Partition], latest_ms: int, now: float) -> int | None:
        """Return the latest event time that may be taken; None: any.

        Args:
            mine: the partitions that this worker reads, and merges by itself.
            latest_ms: the latest event time among its records.
            now: seconds of the monotonic clock.
        """
        # other partitions than before: ask at once what the rest are
        if self._mine != frozenset(mine):
            self._mine, self._ask_at = frozenset(mine), 0.0
        self._ask(now)

        wants_more = self._limit_ms is not None and latest_ms > self._limit_ms
        if now >= self._looked_at + (LOOK_S if wants_more else TRUSTED_S):
            self._looked_at = now
            self._look(now)
        return self._limit_ms

    def _ask(self, now: float) -> None:
        """Ask the broker again when it is time to; while it is away, its last answer counts."""
        if now < self._ask_at:
            return
        self._ask_at = now + ENDS_S
        try:
            others = [each for each in self._ends.partitions(self._topics) if each not in self._mine]
            self._end_of = self._ends.stable(others)
        except KafkaException as error:
            log.info("alignment keeps what it knows", why=self._ends.why(error))
        self._looked_at = 0.0

    def _look(self, now: float) -> None:
        """Read in the table where the others stand, and set the limit by the one that is furthest behind."""
        others = {partition: end for partition, end in self._end_of.items() if partition not in self._mine}
        try:
            frontiers = self._positions.frontiers(self._topics) if others else {}
        except INFRASTRUCTURE:
            return  # nothing can be written now, either
        behind = _behind(others, frontiers)

        # a partition that has moved is read again
        self._unread = {each: at for each, at in self._unread.items() if behind.get(each) == at}
        furthest = self._find_furthest(behind, now)
        self._limit_ms = None if furthest is None else furthest.at_ms + self._alignment_ms

    def _find_furthest(self, behind: Mapping[Partition, Frontier], now: float) -> Frontier | None:
        """Return where the partition stands that is furthest behind; one that nobody reads counts for UNREAD_S only."""
        while True:
            left = {each: at for each, at in behind.items() if each not in self._unread}
            if not left:
                self._furthest = None
                return None

            partition = min(left, key=lambda each: (left[each].at_ms, each))
            furthest = (partition, left[partition])
            if furthest != self._furthest:
                self._furthest, self._furthest_since = furthest, now
            if now - self._furthest_since < UNREAD_S:
                return left[partition]

            # it has not moved for a while: wait for the next one instead
            self._unread[partition] = left[partition]
            log.warning(
                "partition left behind", why=f"{self._why()}, and nobody reads it: others no longer wait for it"
            )

    def _why(self) -> str:
        if self._furthest is None:
            return "what it waited for has come"
        (topic, number), at = self._furthest
        where = iso_from_instant(at.at_ms) if at.at_ms else "its first event"
        end = self._end_of.get((topic, number), 0)
        return (
            f"another worker's {topic} partition {number} is behind, at {where} and offset {at.offset:,} of {end:,}; "
            f"nobody goes more than {self._alignment_ms // 1000} s ahead of it"
        )


def _behind(ends: Mapping[Partition, int], frontiers: Mapping[Partition, Frontier]) -> dict[Partition, Frontier]:
    """Return where those partitions stand that others wait for: behind their end, and neither stopped nor silent.

    A number is left out in all topics together, as its worker leaves it out. A partition that no worker was ever given
    counts from the beginning of time: it may hold the earliest event of all.
    """
    behind = {each: at for each, end in ends.items() if (at := frontiers.get(each, UNKNOWN)).offset < end}
    resting = {number for (_, number), at in frontiers.items() if at.is_stopped}
    resting |= {number for (_, number), at in behind.items() if at.is_silent}
    return {each: at for each, at in behind.items() if each[1] not in resting}
