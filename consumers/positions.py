"""Decide where each assigned partition is read from, and which must not be read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from consumers.database_time import DatabaseTime
from engine import ticks
from engine.store import generations, offsets
from engine.store.database import INFRASTRUCTURE, connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.source import Source
    from engine.batch import ClockMove, Partition

log = structlog.get_logger()


class Positions:
    """Read and set positions in PostgreSQL, on a connection of the polling thread's own."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection = connect(database_url, application="guerdon worker positions")
        self.time = DatabaseTime(self._now_ms)
        self.time.fresh_ms()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def reconnect(self) -> None:
        """Open the connection anew after PostgreSQL was away."""
        self._connection.close()
        self._connection = connect(self._database_url, application="guerdon worker positions")

    def starts(
        self, assigned: list[Partition], source: Source, ids: Mapping[str, str]
    ) -> dict[Partition, tuple[int, int]]:
        """Return (offset, highest occurred_at in ms) for each partition to read.

        A partition whose position the broker no longer has, or whose topic is another than before, is not read, nor is
        its number in the other topics, as their events belong together. It is recorded why, for `guerdon status`.
        """
        watermarks = {partition: source.watermarks(partition) for partition in assigned}
        with self._connection, self._connection.cursor() as cursor:
            offsets.add_partitions(cursor, {partition: low for partition, (low, _) in watermarks.items()})
            replaced = offsets.replaced_topics(cursor, ids)
            found = offsets.positions(cursor, assigned)
            stopped = {
                partition: why
                for partition in assigned
                if (why := _why_not(partition, found[partition][0], watermarks[partition], replaced))
            }
            for partition, why in stopped.items():
                offsets.stop(cursor, partition, why)
                log.error("partition stopped", topic=partition[0], partition=partition[1], why=why)
            offsets.clear_stops(cursor, sorted(set(assigned) - stopped.keys()))
        numbers = {number for _, number in stopped}
        return {partition: start for partition, start in found.items() if partition[1] not in numbers}

    def of(self, partitions: list[Partition]) -> dict[Partition, tuple[int, int]]:
        """Return what the table says of `partitions` now."""
        with self._connection, self._connection.cursor() as cursor:
            return offsets.positions(cursor, partitions)

    def consumed(self, partitions: list[Partition]) -> tuple[int, dict[Partition, tuple[int, int]]]:
        """Return PostgreSQL's time in ms, and what the table says of `partitions` now."""
        asked_s = time.monotonic()
        with self._connection, self._connection.cursor() as cursor:
            now_ms = generations.now_ms(cursor)
            self.time.note(now_ms, asked_s)
            return now_ms, offsets.positions(cursor, partitions)

    def _now_ms(self) -> int | None:
        """Return PostgreSQL's time in ms; None while it is away, of which others tell."""
        try:
            with self._connection, self._connection.cursor() as cursor:
                return generations.now_ms(cursor)
        except INFRASTRUCTURE:
            return None

    def is_any_due(self, move: ClockMove) -> bool:
        """Whether something is due to any member, or waits to be taken in by any shard."""
        with self._connection, self._connection.cursor() as cursor:
            return ticks.is_any_due(cursor, move)

    def behind(self, ends: Mapping[Partition, int]) -> tuple[list[Partition], dict[int, str]]:
        """Return the partitions not taken up to `ends`, and why numbers are stopped, a sentence each."""
        with self._connection, self._connection.cursor() as cursor:
            return offsets.behind(cursor, ends), offsets.stopped(cursor)

    def stop(self, partition: Partition, why: str) -> None:
        """Record why `partition` is no longer read."""
        with self._connection, self._connection.cursor() as cursor:
            offsets.stop(cursor, partition, why)
        log.error("partition stopped", topic=partition[0], partition=partition[1], why=why)


def _why_not(
    partition: Partition, position: int, watermarks: tuple[int, int], replaced: Mapping[str, str]
) -> str | None:
    topic, number = partition
    low, high = watermarks
    way_out = f"when you know what was lost, run `guerdon offsets reset {topic} --why TEXT`"
    if topic in replaced:
        return f"the topic {topic} was deleted and made again since it was last read; {way_out}"
    if position < low:
        return (
            f"{topic} partition {number}: offsets {position} to {low - 1} were deleted before they were read; {way_out}"
        )
    if position > high:
        return f"{topic} partition {number} ends at {high}, but {position} was read before; {way_out}"
    return None
