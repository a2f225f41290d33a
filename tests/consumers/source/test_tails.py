"""What is kept of each partition's last record is right whatever is taken when, and tells another record from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumers.source.tails import Tails
from engine.intake.batch import LastRecord, digest_of
from tests.consumers.source.test_lanes import NOW, PARTITIONS, A, B, bad, deliver, event, lanes_of, times_of

if TYPE_CHECKING:
    from confluent_kafka import Message

    from engine.intake.batch import Admitted, SetAside

PLACE = ("purchases", 0)


class Delivered(NamedTuple):
    """Stand for a message of Kafka's, which only its library can make."""

    at: int
    epoch: int | None
    content: bytes | None

    def offset(self) -> int:
        return self.at

    def leader_epoch(self) -> int | None:
        return self.epoch

    def value(self) -> bytes | None:
        return self.content


def lost_at(record: LastRecord, delivered: Delivered | None, *, compacts: bool | None = False) -> int | None:
    tails = Tails(lambda _topic: compacts)
    tails.expect({PLACE: record})
    assert PLACE in tails
    found = tails.lost_at(PLACE, cast("Message | None", delivered))
    assert PLACE not in tails
    return found


TAKEN = LastRecord(9, 3, digest_of(b"bought"))


@pytest.mark.parametrize(
    ("record", "delivered", "is_lost"),
    [
        (TAKEN, Delivered(9, 3, b"bought"), False),
        (TAKEN, Delivered(9, 5, b"bought"), True),
        (TAKEN, Delivered(9, 3, b"sold"), True),
        (TAKEN, Delivered(9, None, b"bought"), False),
        (LastRecord(9, None, digest_of(b"bought")), Delivered(9, 5, b"bought"), False),
        (LastRecord(9, None, digest_of(b"bought")), Delivered(9, None, b"sold"), True),
        (LastRecord(9, 3, None), Delivered(9, 3, b"anything"), False),
        (LastRecord(9, 3, digest_of(None)), Delivered(9, 3, None), False),
        (TAKEN, Delivered(10, 3, b"bought"), True),
        (TAKEN, None, True),
    ],
)
def test_a_record_is_the_one_that_was_taken_by_epoch_and_digest_where_both_are_known(
    record: LastRecord, delivered: Delivered | None, *, is_lost: bool
) -> None:
    assert lost_at(record, delivered) == (9 if is_lost else None)


def test_a_record_that_compaction_may_have_taken_says_nothing_and_where_nobody_knows_it_is_told_once() -> None:
    assert lost_at(TAKEN, None, compacts=True) is None
    tails = Tails(lambda _topic: None)
    with capture_logs() as said:
        for _ in range(2):
            tails.expect({PLACE: TAKEN})
            assert tails.lost_at(PLACE, None) is None
    assert [each["event"] for each in said] == ["positions unchecked"]


def test_an_end_before_the_record_leaves_it_open_until_something_comes() -> None:
    tails = Tails(lambda _topic: False)
    tails.expect({PLACE: TAKEN})
    assert tails.lost_at(PLACE, None, TAKEN.offset) is None
    assert PLACE in tails
    assert tails.lost_at(PLACE, None, TAKEN.offset + 1) == TAKEN.offset


def test_a_partition_that_another_worker_has_now_is_not_looked_at() -> None:
    tails = Tails(lambda _topic: False)
    tails.expect({PLACE: TAKEN})
    tails.forget([PLACE, ("shares", 1)])
    assert PLACE not in tails


KINDS = ("event", "bad", "tombstone", "let pass", "hole")


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), max_size=30),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_with_every_batch_the_last_record_taken_is_known(records: list[tuple[str, int]], sizes: list[int]) -> None:
    lanes = lanes_of(A)
    expected: dict[int, LastRecord] = {}
    epoch = 0
    for offset, (kind, step) in enumerate(records):
        epoch += step
        record: Admitted | SetAside | None = None
        if kind == "event":
            record = event(offset, A, offset)
        elif kind == "bad":
            record = bad(A, offset)
        if kind != "hole":
            value = b"something" if kind == "let pass" else record.payload if record else None
            lanes.add(A, offset, record, NOW, epoch, value)
            expected[offset] = LastRecord(offset, epoch, digest_of(value))
    lanes.reached_end(A, len(records), NOW)
    turn = 0
    while (batch := lanes.take(sizes[turn % len(sizes)], NOW)) is not None:
        turn += 1
        move = batch.moves[A]
        taken = [offset for offset in expected if move.expected <= offset < move.next]
        assert move.last == (expected[taken[-1]] if taken else None)


def test_a_lane_that_is_held_lets_go_what_lies_before_and_is_waited_for_by_its_own_number_alone() -> None:
    other = ("purchases", 1)
    lanes = lanes_of(A, B, other)
    deliver(lanes, A, [1])
    deliver(lanes, B, [2, 9])
    deliver(lanes, other, [3])
    lanes.hold(A)
    for partition, end in ((A, 5), (B, 2), (other, 1)):
        lanes.reached_end(partition, end, NOW)
    assert times_of(lanes.take(10, NOW)) == [1]
    assert times_of(lanes.take(10, NOW)) == [3], "number 0 waits with its held lane, number 1 does not"
    lanes.note_ends(lambda _partition: 1)
    assert lanes.take(10, NOW) is None
    assert lanes.let_go(A, NOW) == 1
    deliver(lanes, A, [4, 5], first=1)
    lanes.reached_end(A, 3, NOW)
    assert times_of(lanes.take(10, NOW)) == [2, 4, 5, 9]


def test_what_is_delivered_again_from_the_last_record_on_is_passed_over() -> None:
    lanes = lanes_of(*PARTITIONS)
    lanes.open(A, 5, 0, NOW)
    deliver(lanes, A, [1, 2, 3], first=4)
    assert len(lanes) == 2
    for partition in PARTITIONS:
        lanes.reached_end(partition, 7 if partition == A else 0, NOW)
    batch = lanes.take(10, NOW)
    assert batch is not None
    assert (batch.moves[A].expected, batch.moves[A].next, batch.moves[A].passed) == (5, 7, 0)
