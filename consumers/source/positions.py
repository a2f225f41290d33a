"""Decide where each assigned partition is read from, and which must not be read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from consumers.database_time import DatabaseTime
from consumers.source.source import Begin
from engine.live import ticks
from engine.store.database import INFRASTRUCTURE, connect
from engine.store.generations import live_generation
from engine.store.kafka import offsets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumers.source.source import Source
    from engine.intake.batch import ClockMove, LastRecord, Partition
    from engine.store.cursor import Cursor
    from engine.store.kafka.offsets import Frontier

log = structlog.get_logger()

APPLICATION = "guerdon worker positions"


class Watermarks(NamedTuple):
    """Name the first offset that the broker still has of a partition, and the one after the last."""

    low: int
    high: int


class Positions:
    """Read and set positions in PostgreSQL, on a connection of the polling thread's own.

    `passing` holds the offsets that operators let pass, as of the last time that the partitions' positions were read.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection = connect(database_url, application=APPLICATION)
        self.passing: dict[Partition, frozenset[int]] = {}
        self.time = DatabaseTime(self._now_ms)
        self.time.fresh_ms()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def reconnect(self) -> None:
        """Open the connection again after PostgreSQL was away."""
        self._connection.close()
        self._connection = connect(self._database_url, application=APPLICATION)

    def starts(self, assigned: list[Partition], source: Source, ids: Mapping[str, str]) -> dict[Partition, Begin]:
        """Return where to begin, for each partition that may be read.

        A partition is not read where the broker no longer has its position, or where its topic is another than before;
        nor is its number in the other topics, as their events belong together. The reason is recorded for `guerdon
        status`, and the partition stays stopped until an operator decides: a broker that lost its tail looks whole
        again once producers have sent more.
        """
        # ask the broker, then the table
        watermarks = {partition: Watermarks(*source.watermarks(partition)) for partition in assigned}
        with self._connection, self._connection.cursor() as cursor:
            offsets.add_partitions(cursor, {partition: low for partition, (low, _) in watermarks.items()})
            replaced = offsets.replaced_topics(cursor, ids)
            positions = offsets.positions(cursor, assigned)
            last = offsets.last_taken(cursor, assigned)
            stopped = offsets.stops(cursor, assigned)

        # stop what cannot be read on
        for partition in assigned:
            why = _why_not(partition, positions[partition][0], watermarks[partition], replaced)
            if partition not in stopped and why:
                stopped[partition] = why
        with self._connection, self._connection.cursor() as cursor:
            for partition, why in stopped.items():
                offsets.stop(cursor, partition, why)
                log.error("partition stopped", topic=partition[0], partition=partition[1], why=why)
            offsets.note_read(cursor, assigned)
            self._note_passing(cursor, assigned)

        numbers = {number for _, number in stopped}
        return {
            partition: Begin(*positions[partition], _still_there(last.get(partition), watermarks[partition]))
            for partition in assigned
            if partition[1] not in numbers
        }

    def of(self, partitions: list[Partition]) -> dict[Partition, tuple[int, int]]:
        """Return what the table says of `partitions` now."""
        with self._connection, self._connection.cursor() as cursor:
            self._note_passing(cursor, partitions)
            return offsets.positions(cursor, partitions)

    def note_read(self, partitions: list[Partition]) -> None:
        """Note that `partitions` are read from where the table stands: whether they are silent is not known yet."""
        with self._connection, self._connection.cursor() as cursor:
            offsets.note_read(cursor, partitions)

    def frontiers(self, topics: list[str]) -> dict[Partition, Frontier]:
        """Return where each partition of `topics` stands in event time, other workers' too."""
        with self._connection, self._connection.cursor() as cursor:
            return offsets.frontiers(cursor, topics)

    def add(self, first_offsets: Mapping[Partition, int]) -> None:
        """Begin partitions that the table does not know, at the first offset that the broker still has."""
        with self._connection, self._connection.cursor() as cursor:
            offsets.add_partitions(cursor, first_offsets)

    def _note_passing(self, cursor: Cursor, partitions: list[Partition]) -> None:
        """Note which offsets are let pass now: a reset takes them back, as other records may stand there then."""
        passing = offsets.passing(cursor, partitions)
        self.passing |= {partition: passing.get(partition, frozenset()) for partition in partitions}

    def consumed(self, partitions: list[Partition]) -> tuple[int, dict[Partition, tuple[int, int]]]:
        """Return PostgreSQL's time in ms, and the table's positions of `partitions` now."""
        asked_s = time.monotonic()
        with self._connection, self._connection.cursor() as cursor:
            now_ms = live_generation.now_ms(cursor)
            self.time.note(now_ms, asked_s)
            return now_ms, offsets.positions(cursor, partitions)

    def _now_ms(self) -> int | None:
        """Return PostgreSQL's time in ms; None while it is away, which the other threads report."""
        try:
            with self._connection, self._connection.cursor() as cursor:
                return live_generation.now_ms(cursor)
        except INFRASTRUCTURE:
            return None

    def is_any_due(self, move: ClockMove) -> bool:
        """Whether something is due to any member, or waits to be taken in by any shard."""
        with self._connection, self._connection.cursor() as cursor:
            return ticks.is_any_due(cursor, move)

    def behind(self, ends: Mapping[Partition, int], topics: list[str]) -> tuple[dict[Partition, int], dict[int, str]]:
        """Return the offset of each partition that is not taken up to `ends`, and by number why some are stopped."""
        with self._connection, self._connection.cursor() as cursor:
            return offsets.behind(cursor, ends), offsets.stopped(cursor, topics)

    def why_lost(self, partition: Partition, watermarks: Watermarks) -> tuple[int, str | None]:
        """Return where `partition` stands, and why it cannot be read on there; None: it can be."""
        with self._connection, self._connection.cursor() as cursor:
            position, _ = offsets.positions(cursor, [partition])[partition]
            last = offsets.last_taken(cursor, [partition]).get(partition)
        why = _why_not(partition, position, watermarks, {})
        if why is None and (last is None or last.offset >= watermarks.low):
            why = lost_sentence(partition, position - 1 if last is None else last.offset)
        return position, why

    def stop(self, partition: Partition, why: str, error: str) -> None:
        """Record why `partition` is no longer read; `error` is librdkafka's sentence, for the log."""
        with self._connection, self._connection.cursor() as cursor:
            offsets.stop(cursor, partition, why)
        log.error("partition stopped", topic=partition[0], partition=partition[1], why=why, told=error)


def _still_there(last: LastRecord | None, watermarks: Watermarks) -> LastRecord | None:
    return None if last is None or last.offset < watermarks.low else last


def way_out(topic: str) -> str:
    """Say how an operator goes on after a loss."""
    return f"when you know what was lost, run `guerdon offsets reset {topic} --why TEXT`"


def lost_sentence(partition: Partition, offset: int) -> str:
    """Say that the broker holds other records than those that were read."""
    topic, number = partition
    return (
        f"{topic} partition {number} was read up to offset {offset}, and no longer holds what was read there: the "
        f"broker lost its tail and has other events in its place; {way_out(topic)}"
    )


def _why_not(partition: Partition, position: int, watermarks: Watermarks, replaced: Mapping[str, str]) -> str | None:
    """Return in a sentence why `partition` must not be read on at `position`, or None."""
    topic, number = partition
    low, high = watermarks
    if topic in replaced:
        return f"the topic {topic} was deleted and made again since it was last read; {way_out(topic)}"
    if position < low:
        deleted = f"offsets {position} to {low - 1} were deleted before they were read"
        return f"{topic} partition {number}: {deleted}; {way_out(topic)}"
    if position > high:
        return f"{topic} partition {number} ends at {high}, but {position} was read before; {way_out(topic)}"
    return None
