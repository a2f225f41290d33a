"""Notice offsets that wait behind a transaction which a producer has not ended, and say since when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import KafkaException

from operations.kafka.ends import opened_at
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.intake.batch import Partition
    from operations.kafka.ends import Ends

log = structlog.get_logger()

STANDS_S = 10.0
"""How long a partition must stand below its end before the broker is asked why: sound transactions are shorter."""

SAY_AGAIN_S = 60.0
ASKED_S = 2.0


class Blocked(NamedTuple):
    """Say that offsets of a partition wait behind an open transaction."""

    partition: Partition
    offset: int
    """The first one that waits."""

    offsets: int
    """How many wait."""

    since_ms: int | None
    """The time of the transaction's first record; None where it is not known."""

    def sentence(self) -> str:
        """Return it as a sentence for a person."""
        topic, number = self.partition
        since = "" if self.since_ms is None else f" since {iso_from_instant(self.since_ms)}"
        return (
            f"{topic} partition {number}: {self.offsets:,} offsets from {self.offset} on are held by a transaction "
            f"that is open{since}; let its producer end it, or abort it with Kafka's kafka-transactions.sh"
        )


class OpenTransactions:
    """Watch how far partitions are taken, and log which of them an open transaction blocks."""

    def __init__(self, kafka: Mapping[str, str], ends: Ends) -> None:
        self._kafka = kafka
        self._ends = ends
        self._standing: dict[Partition, tuple[int, float]] = {}
        self._times: dict[tuple[Partition, int], int] = {}
        self._said_at: dict[Partition, float] = {}

    def note(self, ends: Mapping[Partition, int], positions: Mapping[Partition, int]) -> None:
        """Note the true ends and how far each partition is taken; log those that are blocked for longer than STANDS_S.

        Raises:
            KafkaException: Kafka does not answer.
        """
        # since when does each partition stand below its end
        now = time.monotonic()
        standing: dict[Partition, tuple[int, float]] = {}
        for partition, end in ends.items():
            offset = positions.get(partition, 0)
            if offset < end:
                before, since = self._standing.get(partition, (offset, now))
                standing[partition] = (offset, since) if before == offset else (offset, now)
        self._standing = standing

        # ask the broker about those that have stood for a while
        due = {
            partition: offset
            for partition, (offset, since) in standing.items()
            if now - since >= STANDS_S and now >= self._said_at.get(partition, 0.0)
        }
        for partition in due:
            self._said_at[partition] = now + SAY_AGAIN_S
        for each in self.blocked(ends, due):
            log.warning(
                "open transaction", topic=each.partition[0], partition=each.partition[1], offset=each.offset,
                offsets=each.offsets, since=None if each.since_ms is None else iso_from_instant(each.since_ms),
                why="what lies behind it is not delivered until it ends, and ticks wait for it",
            )  # fmt: skip

    def blocked(self, ends: Mapping[Partition, int], positions: Mapping[Partition, int]) -> list[Blocked]:
        """Return which of `positions` have everything before an open transaction, and wait for its end.

        Raises:
            KafkaException: Kafka does not answer.
        """
        stable = self._ends.stable(positions)
        blocked = {each: offset for each, offset in stable.items() if positions[each] >= offset and offset < ends[each]}

        # when the transactions began is asked once for each
        unknown = {each: offset for each, offset in blocked.items() if (each, offset) not in self._times}
        try:
            times = opened_at(self._kafka, unknown, ASKED_S)
        except KafkaException:
            times = {}  # a missing time is no reason to be silent about the rest
        self._times |= {(partition, blocked[partition]): at_ms for partition, at_ms in times.items()}

        return [
            Blocked(partition, offset, ends[partition] - offset, self._times.get((partition, offset)))
            for partition, offset in sorted(blocked.items())
        ]
