"""However a batch is divided, its parts move each partition step by step, to where the batch would have moved it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.intake.batch import Admitted, OffsetMove, SetAside
from engine.live.batch import Batch
from engine.live.safety_net import Moves, merged
from engine.store.logs.forwards import Forwarding
from schemas.rejection import Reason
from tests.system.batches import admitted, purchase
from tests.system.load import START_MS

PARTITIONS = [("t.purchases", 0), ("t.purchases", 1), ("t.shares", 0)]
HOLE, EVENT, BAD = range(3)


def batch_of(offsets: list[tuple[int, int]]) -> Batch:
    """Return a batch whose partitions hold, one offset after another, an event, a bad record, or nothing."""
    made, at = Batch(), dict.fromkeys(PARTITIONS, 100)
    passed = dict.fromkeys(PARTITIONS, 0)
    for number, (which, what) in enumerate(offsets):
        (topic, partition), offset = PARTITIONS[which], at[PARTITIONS[which]]
        at[topic, partition] += 1
        if what == EVENT:
            event = admitted(purchase(number))
            event.topic, event.partition, event.offset = topic, partition, offset
            made.admitted.append(event)
        elif what == BAD:
            made.set_aside.append(SetAside("decode", Reason.UNDECODABLE, "bad", topic, partition, offset, b""))
        else:
            passed[topic, partition] += 1
    made.moves = {
        place: OffsetMove(100, end, START_MS + len(offsets), passed[place]) for place, end in at.items() if end > 100
    }
    return made


@given(
    offsets=st.lists(st.tuples(st.integers(0, 2), st.integers(HOLE, BAD)), max_size=30),
    turns=st.lists(st.integers(START_MS - 1, START_MS + 31), max_size=5),
    cuts=st.sets(st.integers(0, 40), max_size=8),
)
def test_the_moves_of_the_parts_add_up_to_those_of_the_batch(
    offsets: list[tuple[int, int]], turns: list[int], cuts: set[int]
) -> None:
    batch = batch_of(offsets)
    rows = [Forwarding(turn, 1, 2, number, 0, b"") for number, turn in enumerate(sorted(turns))]
    items = merged(batch, rows)
    assert sorted(map(id, items)) == sorted(map(id, [*batch.admitted, *batch.set_aside, *rows]))
    assert [item for item in items if isinstance(item, Admitted)] == batch.admitted
    assert [item for item in items if isinstance(item, Forwarding)] == rows
    moves = Moves(batch, items)
    at = {place: move.expected for place, move in batch.moves.items()}
    passed = dict.fromkeys(at, 0)
    bounds = sorted({0, len(items), *(cut for cut in cuts if cut < len(items))})
    parts = []
    for start, stop in pairwise(bounds):
        parts.append((moves.of(start, stop), items[start:stop]))
        moves.take(start, stop)
    for part, taken in [*parts, (moves.rest(), [])]:
        for place, move in part.items():
            here = [item.offset for item in taken if isinstance(item, Admitted | SetAside) and place_of(item) == place]
            assert move.expected == at[place]
            assert all(move.expected <= offset < move.next for offset in here)
            assert move.passed == move.next - move.expected - len(here) >= 0
            at[place] = move.next
            passed[place] += move.passed
    assert at == {place: move.next for place, move in batch.moves.items()}
    assert passed == {place: move.passed for place, move in batch.moves.items()}


def place_of(item: Admitted | SetAside) -> tuple[str, int]:
    return item.topic or "", item.partition
