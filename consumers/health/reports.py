"""Tell Kafka from time to time how far this worker is: for lag dashboards, nothing reads it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.source.lanes import Lanes
    from consumers.source.source import Source
    from engine.intake.batch import Partition

REPORT_S = 5.0


class Reports:
    """Gather committed positions, and report them every REPORT_S, whether or not more come."""

    def __init__(self, lanes: Lanes, source: Source) -> None:
        self._lanes = lanes
        self._source = source
        self._positions: dict[Partition, int] = {}
        self._report_at = 0.0

    def add(self, positions: Mapping[Partition, int]) -> None:
        """Note how far partitions are committed."""
        self._positions.update(positions)

    def send(self, now: float) -> None:
        """Report the positions that have come since the last time, when it is time to."""
        if self._positions and now >= self._report_at:
            self._report_at = now + REPORT_S
            self._source.report(self.take())

    def take(self) -> dict[Partition, int]:
        """Remove and return the unreported positions of the partitions that are still this worker's."""
        unreported = {partition: offset for partition, offset in self._positions.items() if partition in self._lanes}
        self._positions.clear()
        return unreported
