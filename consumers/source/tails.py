"""Compare the first record that a partition delivers with the last one that was taken from it.

A broker that lost the tail of its log looks whole again as soon as producers have sent more: offsets alone show
nothing. So each partition is read from the last record that was taken, not from behind it. librdkafka asks the broker
about a leader's epoch, too, but only when the leader changes while it reads; this module looks at the record itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from engine.intake.batch import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka import Message

    from engine.intake.batch import LastRecord, Partition

log = structlog.get_logger()


class Tails:
    """Know which partitions must still be compared with their last record.

    `compacts` returns whether Kafka may delete single records of a topic; None: that is not known.
    """

    def __init__(self, compacts: Callable[[str], bool | None]) -> None:
        self._compacts = compacts
        self._expected: dict[Partition, LastRecord] = {}
        self._is_unchecked_reported = False

    def __contains__(self, partition: Partition) -> bool:
        """Whether `partition` must still be compared."""
        return partition in self._expected

    @property
    def offsets(self) -> dict[Partition, int]:
        """Return where to read from, for each partition that must still be compared."""
        return {partition: record.offset for partition, record in self._expected.items()}

    def expect(self, records: Mapping[Partition, LastRecord]) -> None:
        """Compare these partitions, each of them read from the record that was taken last."""
        self._expected |= records

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions that another worker reads now, or that are read from elsewhere."""
        for partition in partitions:
            self._expected.pop(partition, None)

    def lost_at(self, partition: Partition, message: Message | None, end: int | None = None) -> int | None:
        """Return the offset at which the broker holds another record than was taken; None where all is well.

        `message` is the first one of `partition`, None where the partition ends at `end` without one. An end before
        the record proves nothing yet: a replica that is a little behind has one, and the next message is compared.
        """
        record = self._expected[partition]
        if message is None and end is not None and end <= record.offset:
            return None
        del self._expected[partition]

        if message is not None and message.offset() == record.offset:
            epoch = message.leader_epoch()
            is_same = record.digest in (None, digest_of(message.value())) and (
                record.leader_epoch is None or epoch is None or epoch == record.leader_epoch
            )
            return None if is_same else record.offset

        # the record is gone: lost, unless Kafka deletes single records
        compacts = self._compacts(partition[0])
        if compacts is False:
            return record.offset
        if compacts is None:
            self.report_unchecked([partition], "the record taken last is gone, and whether Kafka compacts is not known")
        return None

    def report_unchecked(self, partitions: Iterable[Partition], why: str) -> None:
        """Log once that some partitions cannot be compared with the records that were taken from them."""
        count = len(list(partitions))
        if count and not self._is_unchecked_reported:
            self._is_unchecked_reported = True
            log.info("positions unchecked", partitions=count, why=why)
