"""Lanes merge what partitions deliver into one order, and wait only for what they know to be coming."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.source.lanes import OPENING_S, SILENCE_S, Lanes
from engine.intake.batch import Admitted, SetAside
from schemas.events import Share
from schemas.rejection import Reason
from tests.system.batches import admitted

if TYPE_CHECKING:
    from engine.intake.batch import Partition
    from engine.live.batch import Batch

RANKS = {"signups": 0, "shares": 1, "purchases": 2}
PARTITIONS: list[Partition] = [(topic, number) for topic in RANKS for number in range(2)]
NOW = 100.0

Record = Admitted | SetAside


def event(at_ms: int, partition: Partition, offset: int) -> Admitted:
    name = f"{partition[0]}-{partition[1]}-{offset}"
    record = admitted(Share(event_id=name, member_id="m1", occurred_at=at_ms, object="o", channel="link"))
    record.topic, record.partition, record.offset = *partition, offset
    return record


def bad(partition: Partition, offset: int) -> SetAside:
    return SetAside("decode", Reason.UNDECODABLE, "bad", *partition, offset, b"")


def lanes_of(*partitions: Partition, now: float = NOW) -> Lanes:
    lanes = Lanes(RANKS)
    for partition in partitions:
        lanes.open(partition, 0, 0, now)
    return lanes


def deliver(lanes: Lanes, partition: Partition, times: list[int], first: int = 0, now: float = NOW) -> None:
    for offset, at_ms in enumerate(times, first):
        lanes.add(partition, offset, event(at_ms, partition, offset), now)


def times_of(batch: Batch | None) -> list[int]:
    return [] if batch is None else [record.event.occurred_at for record in batch.admitted]


def drain(lanes: Lanes, records_max: int = 1_000, now: float = NOW) -> list[Batch]:
    batches = []
    while (batch := lanes.take(records_max, now)) is not None:
        batches.append(batch)
    return batches


A, B, OTHER = ("signups", 0), ("purchases", 0), ("signups", 1)


def test_what_lies_in_several_partitions_comes_in_the_order_in_which_it_happened() -> None:
    lanes = lanes_of(A, B)
    deliver(lanes, A, [1, 4, 6])
    deliver(lanes, B, [2, 3, 7])
    for partition in (A, B):
        lanes.reached_end(partition, 3, NOW)
    assert times_of(lanes.take(10, NOW)) == [1, 2, 3, 4, 6, 7]
    assert lanes.take(10, NOW) is None


def test_at_one_instant_a_signup_goes_before_a_purchase_and_a_lower_partition_before_a_higher() -> None:
    lanes = lanes_of(B, OTHER, A)
    for partition in (B, OTHER, A):
        deliver(lanes, partition, [5])
        lanes.reached_end(partition, 1, NOW)
    batch = lanes.take(10, NOW)
    assert batch is not None
    assert [(record.topic, record.partition) for record in batch.admitted] == [A, OTHER, B]


def test_a_late_event_never_goes_before_what_its_own_partition_delivered_first() -> None:
    lanes = lanes_of(A, B)
    deliver(lanes, A, [10, 1])
    deliver(lanes, B, [5, 20])
    for partition in (A, B):
        lanes.reached_end(partition, 2, NOW)
    assert times_of(lanes.take(10, NOW)) == [5, 10, 1, 20]


def test_a_lane_that_is_behind_its_end_is_waited_for_and_nothing_later_than_its_last_event_goes() -> None:
    lanes = lanes_of(A, B)
    deliver(lanes, A, [1, 9])
    assert lanes.take(10, NOW) is None, "the other lane may still bring what happened before"
    deliver(lanes, B, [2, 5])
    assert times_of(lanes.take(10, NOW)) == [1, 2, 5]
    assert lanes.take(10, NOW) is None
    lanes.reached_end(B, 2, NOW)
    assert times_of(lanes.take(10, NOW)) == [9]


def test_a_lane_at_its_end_is_never_waited_for() -> None:
    lanes = lanes_of(A, B)
    lanes.reached_end(B, 0, NOW)
    deliver(lanes, A, [1, 2])
    assert times_of(lanes.take(10, NOW)) == [1, 2]


def test_a_silent_lanes_number_is_left_out_in_all_topics_and_taken_back_when_it_delivers() -> None:
    lanes = lanes_of(A, B, OTHER)
    later = NOW + OPENING_S
    deliver(lanes, A, [1])
    deliver(lanes, OTHER, [2], now=later)
    assert lanes.take(10, later - 0.01) is None
    assert times_of(lanes.take(10, later)) == [2], "number 0 is left out, as purchases 0 says nothing"
    deliver(lanes, B, [3], now=later)
    lanes.reached_end(OTHER, 1, later)
    assert times_of(lanes.take(10, later)) == [1]


def test_a_silence_begins_when_a_lane_is_asked_for_more_not_when_it_last_delivered() -> None:
    """While memory is full a lane is paused; it cannot speak, and its number must not be passed over for that."""
    lanes = lanes_of(A, OTHER)
    deliver(lanes, A, [1])
    deliver(lanes, OTHER, [2, 3])
    later = NOW + 10 * SILENCE_S
    assert times_of(lanes.take(10, later)) == [1]
    assert lanes.take(10, later + SILENCE_S / 2) is None, "A has had half a second to go on"
    lanes.listen(later + SILENCE_S)
    assert lanes.take(10, later + 1.5 * SILENCE_S) is None, "nobody polled meanwhile"
    assert times_of(lanes.take(10, later + 3 * SILENCE_S)) == [2, 3]


def test_a_lane_that_stands_at_the_end_that_a_fetch_told_is_not_waited_for() -> None:
    lanes = lanes_of(A, B)
    deliver(lanes, A, [5])
    assert lanes.take(10, NOW) is None, "B may have something earlier"
    lanes.note_ends({A: 1, B: None}.get)
    assert lanes.take(10, NOW) is None, "no fetch has told yet where B ends"
    lanes.note_ends({A: 1, B: 0}.get)
    assert times_of(lanes.take(10, NOW)) == [5]


def test_large_messages_fill_the_memory_by_their_bytes_and_leave_it_when_taken() -> None:
    lanes = lanes_of(A)
    for offset in range(3):
        record = SetAside("decode", Reason.TOO_LARGE, "large", *A, offset, bytes(1_000))
        lanes.add(A, offset, record, NOW)
    assert lanes.fullness(records_max=1_000, bytes_max=2_000) == 1.5
    lanes.reached_end(A, 3, NOW)
    lanes.take(2, NOW)
    assert lanes.fullness(records_max=1_000, bytes_max=2_000) == 0.5


def test_the_lanes_that_are_full_are_paused_and_no_empty_one_stays_so() -> None:
    lanes = lanes_of(A, B)
    deliver(lanes, A, [1, 2, 3])
    assert lanes.fullness(records_max=6, bytes_max=1 << 20) == 0.5
    assert lanes.crowded == [A]
    assert lanes.empty == [B]
    assert len(lanes) == 3


def test_offsets_move_over_holes_and_over_what_is_passed() -> None:
    lanes = lanes_of(A)
    lanes.add(A, 3, event(7, A, 3), NOW)
    lanes.add(A, 4, None, NOW)
    lanes.add(A, 6, bad(A, 6), NOW)
    lanes.reached_end(A, 9, NOW)
    batch = lanes.take(10, NOW)
    assert batch is not None
    move = batch.moves[A]
    assert (move.expected, move.next, move.high_ms, move.passed) == (0, 9, 7, 7)
    assert (len(batch.admitted), len(batch.set_aside)) == (1, 1)
    lanes.reached_end(A, 11, NOW)
    (only_markers,) = drain(lanes)
    assert (only_markers.moves[A].expected, only_markers.moves[A].next, only_markers.moves[A].passed) == (9, 11, 2)


def test_what_is_delivered_after_a_partition_was_revoked_is_nobodys() -> None:
    lanes = lanes_of(A, B)
    deliver(lanes, A, [1])
    lanes.close([A])
    deliver(lanes, A, [2])
    lanes.reached_end(A, 2, NOW)
    assert (A in lanes, lanes.partitions, len(lanes)) == (False, [B], 0)


contents = st.fixed_dictionaries(
    {partition: st.lists(st.none() | st.integers(0, 12), max_size=8) for partition in PARTITIONS}
)
polls = st.lists(st.tuples(st.integers(0, len(PARTITIONS) - 1), st.integers(1, 5)), max_size=40)


def record_of(partition: Partition, offset: int, at_ms: int | None) -> Record:
    return bad(partition, offset) if at_ms is None else event(at_ms, partition, offset)


def run(contents_: dict[Partition, list[int | None]], polls_: list[tuple[int, int]], records_max: int) -> list[Batch]:
    """Deliver `contents_` in the turns that `polls_` names, what is left in the end, and take whatever can be taken."""
    lanes = lanes_of(*PARTITIONS)
    delivered = dict.fromkeys(PARTITIONS, 0)
    batches: list[Batch] = []
    everything = [(index, 8) for index in range(len(PARTITIONS))]
    for index, count in [*polls_, *everything]:
        partition = PARTITIONS[index]
        start = delivered[partition]
        for offset, at_ms in enumerate(contents_[partition][start : start + count], start):
            lanes.add(partition, offset, record_of(partition, offset, at_ms), NOW)
        delivered[partition] = min(start + count, len(contents_[partition]))
        if delivered[partition] == len(contents_[partition]):
            lanes.reached_end(partition, delivered[partition], NOW)
        batches += drain(lanes, records_max)
    return batches


def order_of(batches: list[Batch]) -> list[str]:
    return [record.event.event_id for batch in batches for record in batch.admitted]


@settings(deadline=None)
@given(contents_=contents, polls_=polls, records_max=st.integers(1, 9))
def test_neither_polls_nor_batches_change_the_order_nor_lose_anything(
    contents_: dict[Partition, list[int | None]], polls_: list[tuple[int, int]], records_max: int
) -> None:
    batches = run(contents_, polls_, records_max)
    assert order_of(batches) == order_of(run(contents_, [], 1_000))
    for partition, given_ in contents_.items():
        ours = [each for each in order_of(batches) if each.startswith(f"{partition[0]}-{partition[1]}-")]
        kept = [offset for offset, at_ms in enumerate(given_) if at_ms is not None]
        assert ours == [f"{partition[0]}-{partition[1]}-{offset}" for offset in kept], "its own order"
        set_aside = [each.offset for batch in batches for each in batch.set_aside if place(each) == partition]
        assert set_aside == [offset for offset, at_ms in enumerate(given_) if at_ms is None]
        moves = [batch.moves[partition] for batch in batches if partition in batch.moves]
        assert all(before.next == after.expected for before, after in pairwise(moves))
        assert (moves[-1].next if moves else 0) == len(given_)
    assert all(len(batch.admitted) + len(batch.set_aside) <= records_max for batch in batches)


def place(record: SetAside) -> Partition:
    assert record.topic is not None
    return record.topic, record.partition


@settings(deadline=None)
@given(contents_=contents)
def test_where_times_rise_in_each_partition_they_rise_in_the_merge(
    contents_: dict[Partition, list[int | None]],
) -> None:
    rising = {partition: sorted(at_ms or 0 for at_ms in times) for partition, times in contents_.items()}
    merged = [time for batch in run(dict(rising), [], 5) for time in times_of(batch)]  # type: ignore[arg-type]
    assert merged == sorted(merged)


def test_a_lane_goes_on_after_a_restart_where_its_order_stood() -> None:
    lanes = Lanes(RANKS)
    lanes.open(A, 5, 50, NOW)
    lanes.open(B, 0, 0, NOW)
    deliver(lanes, A, [10], first=5)
    deliver(lanes, B, [40])
    for partition, end in ((A, 6), (B, 1)):
        lanes.reached_end(partition, end, NOW)
    assert times_of(lanes.take(10, NOW)) == [40, 10], "it is late: its partition stood at 50 before"


@pytest.mark.parametrize("records_max", [1, 2, 3])
def test_a_batch_holds_no_more_than_asked_for(records_max: int) -> None:
    lanes = lanes_of(A)
    deliver(lanes, A, [1, 2, 3])
    lanes.reached_end(A, 3, NOW)
    assert len(times_of(lanes.take(records_max, NOW))) == records_max
