"""Stop a partition, and its number, where the broker no longer holds the records read or the next ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from consumers.source.positions import Watermarks, lost_sentence
from consumers.source.tails import Tails
from operations.kafka.cleanup_policies import compacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka import KafkaError, Message

    from consumers.source.lanes import Lanes
    from consumers.source.positions import Positions
    from consumers.source.retry import Retry
    from consumers.source.source import Begin, Source
    from engine.intake.batch import Partition
    from operations.kafka.ends import Ends

UNKNOWN_LAST = "the record taken last was not kept yet, or is deleted; from the next batch on it is compared"


class Losses:
    """Compare the broker's records with those taken, when a partition is assigned and when it cannot be read."""

    def __init__(self, lanes: Lanes, source: Source, positions: Positions, ends: Ends, retry: Retry) -> None:
        self._lanes = lanes
        self._source = source
        self._positions = positions
        self._ends = ends
        self._retry = retry
        self._tails = Tails(self._compacts)

    def expect(self, begins: Mapping[Partition, Begin]) -> None:
        """Look at partitions that are read from now on."""
        self.forget(begins)
        self._tails.expect({partition: begin.last for partition, begin in begins.items() if begin.last is not None})
        unknown = [partition for partition, begin in begins.items() if begin.last is None and begin.high_ms]
        self._tails.report_unchecked(unknown, UNKNOWN_LAST)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions that another worker reads now, or that are read from the table's offset again."""
        self._tails.forget(partitions)

    def is_whole(self, partition: Partition, message: Message | None, end: int | None = None) -> bool:
        """Whether the broker still holds the records taken from `partition`; if not, the partition is stopped.

        `message` is the next of `partition`; None: the partition is at its `end`.
        """
        if partition not in self._tails:
            return True
        lost_at = self._tails.lost_at(partition, message, end)
        if lost_at is not None:
            self._stop(partition, lost_sentence(partition, lost_at), "")
        return lost_at is None

    def cannot_read(self, partition: Partition, error: KafkaError) -> None:
        """Stop `partition`, which librdkafka cannot read on, or read it on where only taken records are deleted."""
        span = self._retry(lambda: self._ends.spans([partition])[partition])
        loss = span and self._retry(lambda: self._positions.why_lost(partition, Watermarks(span.first, span.true)))
        if not loss:
            return  # the worker stops before there is an answer
        position, why = loss

        self.forget([partition])
        if why is None:  # the record taken last was deleted in this moment, and nothing behind it
            positions = self._lanes.positions | self._tails.offsets
            self._source.assign_again(partition, positions | {partition: position})
        else:
            self._stop(partition, why, error.str())

    def _stop(self, partition: Partition, why: str, error: str) -> None:
        if partition not in self._lanes:
            return  # revoked between the poll and now
        self._retry(lambda: self._positions.stop(partition, why, error))
        number = [each for each in self._lanes.partitions if each[1] == partition[1]]
        self._lanes.close(number)
        self.forget(number)
        self._source.leave_out(number)

    def _compacts(self, topic: str) -> bool | None:
        try:
            return bool(compacted(self._ends.client(), [topic]))
        except KafkaException:
            return None
