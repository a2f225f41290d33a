"""Keep a worker's positions those of the table: lose track where it was fenced, and find back."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from engine.store.database import INFRASTRUCTURE
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from consumers.source.lanes import Lanes
    from consumers.source.positions import Positions
    from consumers.source.retry import Retry
    from consumers.source.source import Source
    from engine.intake.batch import Partition

log = structlog.get_logger()

COMPARE_S = 10.0
"""How often the positions of this worker are compared with the table's: a query of a millisecond."""


class Track:
    """Close the lanes of partitions that stand elsewhere by the table, and open them again from there.

    Args:
        lanes: the delivered records of the partitions.
        source: reads them.
        positions: asks the table.
        retry: asks until there is an answer.
        forget: drops all other notes on partitions.
    """

    def __init__(
        self,
        lanes: Lanes,
        source: Source,
        positions: Positions,
        retry: Retry,
        forget: Callable[[list[Partition]], None],
    ) -> None:
        self._lanes = lanes
        self._source = source
        self._positions = positions
        self._retry = retry
        self._forget = forget
        self._astray: set[Partition] = set()
        self._compare_at = 0.0

    def lose(self, partitions: Iterable[Partition]) -> None:
        """Take nothing more of fenced partitions until the consumer reads them from where the table stands."""
        self._astray.update(partition for partition in partitions if partition in self._lanes)
        self._lanes.close(self._astray)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Stop looking for partitions: they are read from the table's positions again, or by another worker."""
        self._astray.difference_update(partitions)

    def compare(self, now: float) -> None:
        """Lose partitions whose position differs from the table's; call it only while nothing is being written.

        A failover that lost commits takes the table back. The next batch of a partition would then be fenced; but a
        partition that gets no more messages has no next batch, and the lost records would never be read again.
        """
        if now < self._compare_at:
            return
        self._compare_at = now + COMPARE_S

        written = self._lanes.written
        try:
            positions = self._positions.of(list(written))
        except INFRASTRUCTURE:
            with suppress(*INFRASTRUCTURE, ServiceUnreachable):
                self._positions.reconnect()
            return

        # behind means that commits were lost; ahead, that another worker reads the partition
        behind = sorted(each for each, at in written.items() if each not in positions or positions[each][0] < at)
        if behind:
            topic, number = behind[0]
            says = positions[behind[0]][0] if behind[0] in positions else "nothing"
            log.warning(
                "positions went back",
                why=f"{topic} partition {number} was taken up to {written[behind[0]]}, and PostgreSQL says "
                f"{says}: it was restored, or a standby took its place; what it lacks is read again",
                partitions=len(behind),
            )
        self.lose([each for each, at in written.items() if each not in positions or positions[each][0] != at])

    def find_back(self) -> None:
        """Read fenced partitions on from where the table stands.

        A lane is opened only after its seek took effect: a lane that begins at one offset while the consumer delivers
        from a later one would pass over the records in between.
        """
        if not self._astray:
            return
        positions = self._retry(self._table_positions) or {}
        for partition, (offset, high_ms) in positions.items():
            with suppress(KafkaException):  # assigned in this moment and not read yet: the next turn seeks again
                self._source.read_again(partition, offset)
                self._forget([partition])
                self._lanes.open(partition, offset, high_ms, time.monotonic())
                self._astray.discard(partition)

    def _table_positions(self) -> dict[Partition, tuple[int, int]]:
        """Return where the table stands; a partition that it does not know any more begins again."""
        positions = self._positions.of(sorted(self._astray))
        unknown = sorted(self._astray.difference(positions))
        if unknown:
            self._positions.add({each: self._source.watermarks(each)[0] for each in unknown})
            positions |= self._positions.of(unknown)
        self._positions.note_read(sorted(positions))
        return positions
