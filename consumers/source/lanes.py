"""Merge what the partitions deliver into one order, without waiting at the tip.

A lane is one partition of one topic. Within a lane the order is the partition's own; between lanes it is event time, so
that a backlog of several topics is judged as it happened. A lane that is behind its end and empty must be waited for,
as its next event may be earlier than anything here; a lane at its end is never waited for.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from engine.intake.batch import Admitted, LastRecord, OffsetMove, digest_of
from engine.live.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.intake.batch import Partition, SetAside

SILENCE_S = 1.0
"""A lane that is behind and delivers nothing for this long is left out, and its number in all topics with it."""

OPENING_S = 10.0
"""The same for a lane that has delivered nothing since it was opened: connecting and the first fetch take their time.
"""

_TIME_SHIFT = 20  # an order key: occurred_at in ms, then 4 bits of topic rank, then 16 bits of partition
_RANK_SHIFT = 16


class Notice(NamedTuple):
    """Say what other workers know of a lane: so they learn how long to wait for it."""

    written: int
    """The offset up to which its records were handed over to be written."""

    ahead_ms: int | None
    """A lower bound on the event times of all records from there on; None where it is not known."""

    is_silent: bool
    """Whether it is behind, and its records do not come."""


@dataclass(slots=True)
class Lane:
    """Hold the records that one partition has delivered and no transaction has taken yet."""

    partition: Partition
    rank: int
    """The topic's place among the topics: it orders events of one instant."""

    written: int
    """The offset up to which records were handed over to be written; it stands in the table when that is committed."""

    high_ms: int
    """The highest occurred_at so far: a late event is merged where the lane stands, never before earlier records."""

    position: int
    """The offset after the last record here."""

    heard_at: float
    """When it delivered something last, in seconds of the monotonic clock."""

    at_end: bool = False
    is_waiting: bool = False
    patience_s: float = OPENING_S
    """For how long it may be silent."""

    keys: list[int] = field(default_factory=list)
    """The order key of each record."""

    records: list[Admitted | SetAside] = field(default_factory=list)
    epochs: list[int | None] = field(default_factory=list)
    """The leader epoch of each record."""

    bytes: int = 0
    last_passed: LastRecord | None = None
    """The last record that was passed over, where none has come after it."""

    taken_ms: int = field(init=False)
    """The highest occurred_at among the records taken."""

    last_notice: Notice = field(init=False)
    """The last notice to other workers."""

    def __post_init__(self) -> None:
        self.taken_ms = self.high_ms
        self.last_notice = Notice(self.written, None, is_silent=False)

    def add(self, record: Admitted | SetAside, epoch: int | None) -> None:
        """Take in the next record of the partition, which its leader wrote under `epoch`."""
        if isinstance(record, Admitted) and record.event.occurred_at > self.high_ms:
            self.high_ms = record.event.occurred_at
        self.keys.append(self.key())
        self.records.append(record)
        self.epochs.append(epoch)
        self.last_passed = None
        self.bytes += len(record.payload)

    def take(self, count: int, *, is_silent: bool = False) -> OffsetMove:
        """Remove the first `count` records, and return how the partition's offset moves with them.

        A move of 0 records only carries a notice to other workers, unless offsets without a record were passed over.
        """
        is_all = count == len(self.records)
        if count:
            self.taken_ms = self.keys[count - 1] >> _TIME_SHIFT

        # where the offset moves to, and which record it leaves behind it
        following = self.position if is_all else self.records[count - 1].offset + 1 if count else self.written
        last = self.last_passed if is_all and self.last_passed is not None else self._last_of(count)
        skipped = following - self.written - count

        self.bytes -= sum([len(record.payload) for record in self.records[:count]])
        del self.keys[:count], self.records[:count], self.epochs[:count]
        if is_all:
            self.last_passed = None

        expected, self.written = self.written, following
        self.last_notice = self.make_notice(is_silent=is_silent)
        return OffsetMove(
            expected,
            following,
            self.taken_ms,
            passed=skipped,
            last=last,
            ahead_ms=self.last_notice.ahead_ms,
            is_silent=is_silent,
        )

    def make_notice(self, *, is_silent: bool) -> Notice:
        """Return the notice that other workers should have of the lane now."""
        return Notice(self.written, self.keys[0] >> _TIME_SHIFT if self.keys else None, is_silent)

    def _last_of(self, count: int) -> LastRecord | None:
        if not count:
            return None
        record = self.records[count - 1]
        return LastRecord(record.offset, self.epochs[count - 1], digest_of(record.payload))

    def key(self) -> int:
        """Return the order key of a record that comes now."""
        return self.high_ms << _TIME_SHIFT | self.rank << _RANK_SHIFT | self.partition[1]


class Lanes:
    """Hold the lanes of the partitions that this worker is assigned.

    `is_ahead` says that at the last `take` everything in hand was later than it may be.
    """

    def __init__(self, ranks: dict[str, int]) -> None:
        self._ranks = ranks
        self._lanes: dict[Partition, Lane] = {}
        self.is_ahead = False

    def __contains__(self, partition: Partition) -> bool:
        """Return whether `partition` is assigned."""
        return partition in self._lanes

    def __len__(self) -> int:
        """Return how many records wait in memory."""
        return sum(len(lane.records) for lane in self._lanes.values())

    @property
    def partitions(self) -> list[Partition]:
        """List the assigned partitions."""
        return sorted(self._lanes)

    @property
    def written(self) -> dict[Partition, int]:
        """Return up to where each partition was handed over to be written."""
        return {lane.partition: lane.written for lane in self._lanes.values()}

    @property
    def positions(self) -> dict[Partition, int]:
        """Return the next offset that each assigned partition is to deliver."""
        return {lane.partition: lane.position for lane in self._lanes.values()}

    @property
    def latest_ms(self) -> int:
        """Return the latest event time in hand."""
        return max((lane.high_ms for lane in self._lanes.values() if lane.records), default=0)

    @property
    def empty(self) -> list[Partition]:
        """List the lanes without records: each of them may be waited for, so none of them may stay paused."""
        return [lane.partition for lane in self._lanes.values() if not lane.records]

    def open(self, partition: Partition, written: int, high_ms: int, now: float) -> None:
        """Begin to read `partition` at the offset that the table says."""
        rank = self._ranks[partition[0]]
        self._lanes[partition] = Lane(partition, rank, written, high_ms, position=written, heard_at=now)

    def close(self, partitions: Iterable[Partition]) -> None:
        """Forget partitions: another worker takes their records that were not taken here."""
        for partition in partitions:
            self._lanes.pop(partition, None)

    def add(
        self,
        partition: Partition,
        offset: int,
        record: Admitted | SetAside | None,
        now: float,
        epoch: int | None = None,
        value: bytes | None = None,
    ) -> None:
        """Take in the record at `offset`; None where it is passed over, by policy or by an operator.

        The `value` of a record that is passed over serves to recognise it later.
        """
        lane = self._lanes.get(partition)
        if lane is None or offset < lane.position:
            return  # revoked between the poll and now; or taken before, where reading began at the last record taken

        lane.heard_at, lane.patience_s = now, SILENCE_S
        lane.at_end = False
        lane.position = offset + 1
        if record is None:
            lane.last_passed = LastRecord(offset, epoch, digest_of(value))
        else:
            lane.add(record, epoch)

    def hold(self, partition: Partition) -> None:
        """Let `partition` wait where it stands, and its number in all topics with it, however much lies behind it."""
        lane = self._lanes.get(partition)
        if lane is not None:
            lane.is_waiting = True
            lane.at_end = False

    def let_go(self, partition: Partition, now: float) -> int | None:
        """End the wait of `partition`, and return the offset to read on from; None where it is another worker's now."""
        lane = self._lanes.get(partition)
        if lane is None:
            return None
        lane.is_waiting = False
        lane.heard_at = now
        return lane.position

    def reached_end(self, partition: Partition, end: int, now: float) -> None:
        """Note that `partition` has delivered everything up to `end`, offsets without a record included."""
        lane = self._lanes.get(partition)
        if lane is not None and not lane.is_waiting:
            lane.heard_at, lane.patience_s = now, SILENCE_S
            lane.at_end = True
            lane.position = max(lane.position, end)

    def note_ends(self, known_end: Callable[[Partition], int | None]) -> None:
        """Note which lanes have delivered all that is known to be there.

        Kafka says so by itself only when a fetch comes back empty, a tenth of a second later: under a steady load the
        tip would move in steps of that length.
        """
        for lane in self._lanes.values():
            if not lane.at_end and not lane.is_waiting:
                end = known_end(lane.partition)
                lane.at_end = end is not None and lane.position >= end

    def listen(self, now: float) -> None:
        """Let every lane's silence begin now, as nobody polled for a while."""
        for lane in self._lanes.values():
            lane.heard_at = now

    def fullness(self, records_max: int, bytes_max: int) -> float:
        """Return the part of the bounds that is used; above 1 the lanes in `crowded` must be paused."""
        return max(len(self) / records_max, sum(lane.bytes for lane in self._lanes.values()) / bytes_max)

    @property
    def crowded(self) -> list[Partition]:
        """List the lanes to pause while memory is full: those with records, as an empty one may be waited for."""
        return [lane.partition for lane in self._lanes.values() if lane.records]

    def take(self, records_max: int, now: float, limit_ms: int | None = None) -> Batch | None:
        """Return the next records in merged order; None where there is nothing to do or a lane must be waited for.

        Nothing later than `limit_ms` is taken (None: anything may be). Where all records are later, and where a lane
        falls silent or speaks again, the batch only tells other workers how the lanes stand.
        """
        # a number that is silent in one topic is left out in all topics
        silent = self._silent(now)
        numbers = {number for _, number in silent}
        lanes = [lane for lane in self._lanes.values() if lane.partition[1] not in numbers]

        # nothing may be taken that the next record of a lane behind its end could still precede
        waited_for = [lane for lane in lanes if not lane.at_end]
        self.is_ahead = False
        batch = Batch()
        if all(lane.records for lane in waited_for):
            limits = [lane.keys[-1] for lane in waited_for]
            limits += [] if limit_ms is None else [((limit_ms + 1) << _TIME_SHIFT) - 1]  # that millisecond's last key
            self._fill(batch, lanes, min(limits, default=None), records_max, now=now)
            self.is_ahead = not batch.moves and any(lane.records for lane in lanes)

        # lanes that give no record may need a new notice: a move of 0 records carries it
        for lane in self._lanes.values():
            is_silent = lane.partition in silent
            may_be_new = bool(lane.records) and (bool(batch.moves) or self.is_ahead)
            if lane.partition in batch.moves or not (may_be_new or is_silent != lane.last_notice.is_silent):
                continue
            if lane.make_notice(is_silent=is_silent) != lane.last_notice:
                batch.moves[lane.partition] = lane.take(0, is_silent=is_silent)
        return batch if batch.moves else None

    def _fill(self, batch: Batch, lanes: list[Lane], frontier: int | None, records_max: int, *, now: float) -> None:
        """Move records from the lanes into a batch: `records_max` at most, and none whose key is above the frontier."""
        # the sort is stable: records of one lane stay in its order
        merged: list[tuple[int, int, Admitted | SetAside]] = []
        for index, lane in enumerate(lanes):
            count = len(lane.keys) if frontier is None else bisect_right(lane.keys, frontier)
            merged += zip(lane.keys[:count], repeat(index), lane.records, strict=False)
        merged.sort(key=itemgetter(0))

        counts = [0] * len(lanes)
        for _, index, record in merged[:records_max]:
            counts[index] += 1
            if isinstance(record, Admitted):
                batch.admitted.append(record)
            else:
                batch.set_aside.append(record)

        # an empty lane moves, too, where it has passed over offsets without a record
        for lane, count in zip(lanes, counts, strict=True):
            if count or (not lane.records and lane.position > lane.written):
                batch.moves[lane.partition] = lane.take(count)
                if not lane.records:
                    lane.heard_at = now  # it was not asked for more while it was full: only now does its silence begin

    def _silent(self, now: float) -> set[Partition]:
        """Return the partitions that are behind and silent."""
        return {
            lane.partition
            for lane in self._lanes.values()
            if not lane.at_end and not lane.records and (lane.is_waiting or now - lane.heard_at >= lane.patience_s)
        }
