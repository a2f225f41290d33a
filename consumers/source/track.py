"""Keep a worker's positions those of the table: lose track where it was fenced, and find back."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import structlog
from confluent_kafka import KafkaException

from engine.store.database import INFRASTRUCTURE
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from consumers.source.lanes import Lanes
    from consumers.source.positions import Positions
    from consumers.source.source import Source
    from engine.intake.batch import Partition

    T = TypeVar("T")

    class Patiently(Protocol):
        """Ask until PostgreSQL and Kafka answer."""

        def __call__(self, ask: Callable[[], T]) -> T | None:
            """Return the answer; None when told to stop first."""


log = structlog.get_logger()

COMPARE_S = 10.0
"""How often the positions of this worker are held against the table's: a query of a millisecond."""


class Track:
    """Close the lanes of partitions that the table says stand elsewhere, and open them again from there.

    Args:
        lanes: what the partitions have delivered.
        source: reads them.
        positions: asks the table.
        patiently: asks until there is an answer.
        forget: forgets what else was noted of partitions.
    """

    def __init__(
        self,
        lanes: Lanes,
        source: Source,
        positions: Positions,
        patiently: Patiently,
        forget: Callable[[list[Partition]], None],
    ) -> None:
        self._lanes = lanes
        self._source = source
        self._positions = positions
        self._patiently = patiently
        self._forget = forget
        self._astray: set[Partition] = set()
        self._compare_at = 0.0

    def lose(self, partitions: Iterable[Partition]) -> None:
        """Take nothing more of fenced partitions until the consumer reads them from where the table stands."""
        self._astray.update(partition for partition in partitions if partition in self._lanes)
        self._lanes.close(self._astray)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Look for partitions no more: they are read from the table's positions anew, or by another worker."""
        self._astray.difference_update(partitions)

    def compare(self, now: float) -> None:
        """Lose track where this worker believes to be elsewhere; to be asked while nothing is being written.

        A failover that lost commits takes the table back. The next batch of a partition would be fenced by it; but one
        to which nothing more is sent would keep what was lost waiting for that.
        """
        if now < self._compare_at:
            return
        self._compare_at = now + COMPARE_S
        written = self._lanes.written
        try:
            found = self._positions.of(list(written))
        except INFRASTRUCTURE:
            with suppress(*INFRASTRUCTURE, ServiceUnreachable):
                self._positions.reconnect()
            return
        behind = sorted(each for each, at in written.items() if each not in found or found[each][0] < at)
        if behind:
            topic, number = behind[0]
            says = found[behind[0]][0] if behind[0] in found else "nothing"
            log.warning(
                "positions went back",
                why=f"{topic} partition {number} was taken up to {written[behind[0]]}, and PostgreSQL says "
                f"{says}: it was restored, or a standby took its place; what it lacks is read again",
                partitions=len(behind),
            )
        self.lose([each for each, at in written.items() if each not in found or found[each][0] != at])

    def find_back(self) -> None:
        """Read fenced partitions on from where the table stands.

        A lane is opened only after its seek took effect: a lane that says one offset while the consumer delivers from
        a later one would pass over what lies between.
        """
        if not self._astray:
            return
        found = self._patiently(self._asked) or {}
        for partition, (offset, high_ms) in found.items():
            with suppress(KafkaException):  # assigned in this moment and not read yet: the next turn seeks again
                self._source.read_again(partition, offset)
                self._forget([partition])
                self._lanes.open(partition, offset, high_ms, time.monotonic())
                self._astray.discard(partition)

    def _asked(self) -> dict[Partition, tuple[int, int]]:
        """Return where the table stands; a partition that it went back before is begun anew."""
        found = self._positions.of(sorted(self._astray))
        unknown = sorted(self._astray.difference(found))
        if unknown:
            self._positions.add({each: self._source.watermarks(each)[0] for each in unknown})
            found |= self._positions.of(unknown)
        self._positions.are_read(sorted(found))
        return found
