"""Workers that share a backlog keep together in event time, and always get on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.source.alignment import TRUSTED_S, UNREAD_S, Alignment
from consumers.source.lanes import Lanes
from engine.store.kafka.offsets import Frontier
from tests.consumers.source.test_lanes import NOW, event

if TYPE_CHECKING:
    from engine.intake.batch import Admitted, Partition

RANKS = {"signups": 0, "purchases": 1}
NUMBERS = (0, 1, 2)
PARTITIONS = [(topic, number) for topic in RANKS for number in NUMBERS]
ALIGNMENT_S = 10
WORKERS = 3
MINE, THEIRS = ("purchases", 0), ("purchases", 1)


class Table:
    """Stand in for the broker and PostgreSQL: what the partitions hold, and how far they are taken."""

    def __init__(self, ends: dict[Partition, int]) -> None:
        self.ends = ends
        self.rows: dict[Partition, Frontier] = {}

    def partitions(self, _topics: list[str]) -> list[Partition]:
        return list(self.ends)

    def stable(self, partitions: list[Partition]) -> dict[Partition, int]:
        return {each: self.ends[each] for each in partitions}

    def frontiers(self, _topics: list[str]) -> dict[Partition, Frontier]:
        return dict(self.rows)

    def row(
        self, partition: Partition, offset: int, at_ms: int, *, silent: bool = False, stopped: bool = False
    ) -> None:
        self.rows[partition] = Frontier(offset, at_ms, silent, stopped)


def alignment_on(table: Table) -> Alignment:
    asked: Any = table
    return Alignment(list(RANKS), asked, asked, ALIGNMENT_S)


class History:
    """Let workers with lanes of their own take one history, a turn at a time, and hold what each may take."""

    def __init__(self, contents: dict[Partition, list[int]], records_max: int) -> None:
        self.contents = {each: sorted(times) for each, times in contents.items()}
        self.table = Table({each: len(times) for each, times in self.contents.items()})
        self.records_max = records_max
        self.owners = {number: number % WORKERS for number in NUMBERS}
        self.lanes = [Lanes(RANKS) for _ in range(WORKERS)]
        self.alignments = [alignment_on(self.table) for _ in range(WORKERS)]
        self.high = dict.fromkeys(PARTITIONS, 0)
        self.now = NOW
        for number in NUMBERS:
            self.give(number, self.owners[number])

    def offset(self, partition: Partition) -> int:
        row = self.table.rows.get(partition)
        return 0 if row is None else row.offset

    def give(self, number: int, worker: int) -> None:
        """Let another worker read a number from where the table stands; what the one before had in hand is lost."""
        partitions = [(topic, number) for topic in RANKS]
        self.lanes[self.owners[number]].close(partitions)
        self.owners[number] = worker
        for each in partitions:
            if each not in self.table.rows:
                self.table.row(each, 0, 0)
            self.lanes[worker].open(each, self.offset(each), self.high[each], self.now)

    def turn(self, worker: int, count: int) -> bool:
        """Deliver a few records to a worker, and let it commit what it takes; return whether anything was taken."""
        self.now += 0.02
        lanes = self.lanes[worker]
        for each in lanes.partitions:
            start = lanes.positions[each]
            for offset, at_ms in enumerate(self.contents[each][start : start + count], start):
                lanes.add(each, offset, event(at_ms, each, offset), self.now)
            if lanes.positions[each] == len(self.contents[each]):
                lanes.reached_end(each, len(self.contents[each]), self.now)
        batch = self.alignments[worker].take(lanes, self.records_max, self.now)
        if batch is None:
            return False
        for record in batch.admitted:
            self.check(record, worker)
        for each, move in batch.moves.items():
            assert move.expected == self.offset(each)
            self.high[each] = max(self.high[each], move.high_ms)
            self.table.row(each, move.next, self.high[each] if move.ahead_ms is None else move.ahead_ms)
        return bool(batch.admitted)

    def check(self, record: Admitted, worker: int) -> None:
        """Hold that all of other workers that is earlier by more than the alignment is taken."""
        before_ms = record.event.occurred_at - ALIGNMENT_S * 1000
        for each, times in self.contents.items():
            if self.owners[each[1]] != worker:
                assert all(at_ms >= before_ms for at_ms in times[self.offset(each) :])


times = st.lists(st.integers(1, 200).map(lambda second: second * 1000), max_size=12)
turns = st.lists(
    st.tuples(st.just("turn"), st.integers(0, WORKERS - 1), st.integers(1, 5))
    | st.tuples(st.just("give"), st.sampled_from(NUMBERS), st.integers(0, WORKERS - 1)),
    max_size=40,
)


@settings(deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(PARTITIONS, times)), turns, st.integers(1, 6))
def test_nobody_runs_ahead_and_all_is_taken_whoever_has_a_turn_or_is_replaced(
    contents: dict[Partition, list[int]], moves: list[tuple[str, int, int]], records_max: int
) -> None:
    history = History(contents, records_max)
    for what, who, other in moves:
        if what == "turn":
            history.turn(who, other)
        else:
            history.give(who, other)
    left = sum(map(len, contents.values()))
    while any(history.turn(worker, 3) for _ in range(3) for worker in range(WORKERS)):
        left -= 1
        assert left >= -1, "a round in which somebody gets on takes at least one event"
    assert {each: history.offset(each) for each in PARTITIONS} == {each: len(contents[each]) for each in PARTITIONS}


def limit(table: Table, now: float = NOW) -> int | None:
    return alignment_on(table).limit_ms([MINE], 0, now)


def test_only_what_is_behind_its_end_and_read_by_others_is_waited_for() -> None:
    table = Table({MINE: 9, THEIRS: 9})
    table.row(MINE, 1, 1_000)
    table.row(THEIRS, 9, 50_000)
    assert limit(table) is None
    table.row(THEIRS, 8, 50_000)
    assert limit(table) == 60_000


def test_a_number_that_was_never_read_may_begin_with_the_earliest_event() -> None:
    assert limit(Table({MINE: 9, THEIRS: 1})) == ALIGNMENT_S * 1000


def test_a_number_that_is_stopped_or_silent_holds_nobody_in_any_topic() -> None:
    other = ("signups", 1)
    table = Table({MINE: 9, THEIRS: 9, other: 9})
    table.row(other, 1, 2_000)
    for resting in ({"silent": True}, {"stopped": True}):
        table.row(THEIRS, 8, 50_000, **resting)
        assert limit(table) is None
    table.row(THEIRS, 9, 50_000, silent=True)
    assert limit(table) == 12_000, "what it waited for in vain has come"


def test_one_that_nobody_reads_holds_the_others_for_a_while_and_then_the_next_one_does() -> None:
    third = ("purchases", 2)
    table = Table({MINE: 9, THEIRS: 9, third: 9})
    table.row(THEIRS, 1, 20_000)
    table.row(third, 1, 50_000)
    alignment = alignment_on(table)
    found = [alignment.limit_ms([MINE], 0, NOW + second) for second in (0.0, UNREAD_S / 2, UNREAD_S, UNREAD_S + 1)]
    assert found == [30_000, 30_000, 60_000, 60_000]
    table.row(THEIRS, 2, 21_000)
    assert alignment.limit_ms([MINE], 0, NOW + UNREAD_S + 1 + TRUSTED_S) == 31_000, "somebody reads it again"


def test_who_has_waited_for_ten_seconds_says_for_what(monkeypatch: Any) -> None:
    passed = [NOW]
    monkeypatch.setattr("time.monotonic", lambda: passed[0])
    table = Table({MINE: 9, THEIRS: 9})
    table.row(THEIRS, 1, 20_000)
    alignment, lanes = alignment_on(table), Lanes(RANKS)
    lanes.open(MINE, 0, 0, NOW)
    lanes.add(MINE, 0, event(70_000, MINE, 0), NOW)
    news: list[Any] = []
    monkeypatch.setattr("engine.store.session.voice.say", lambda what, sentence: news.append((what, sentence)))
    for _ in range(3):
        alignment.take(lanes, 10, passed[0])
        passed[0] += 5
    assert [what for what, _ in news] == ["worker waits"]
    assert "purchases partition 1 is behind, at 1970-01-01T00:00:20Z and offset 1 of 9" in news[0][1]


def test_a_lane_that_is_too_early_tells_where_it_stands_and_takes_nothing() -> None:
    lanes = Lanes(RANKS)
    lanes.open(MINE, 4, 1_000, NOW)
    lanes.add(MINE, 4, event(70_000, MINE, 4), NOW)
    news = lanes.take(10, NOW, 60_000)
    assert news is not None
    assert (news.admitted, lanes.is_ahead) == ([], True)
    move = news.moves[MINE]
    assert (move.expected, move.next, move.high_ms, move.ahead_ms) == (4, 4, 1_000, 70_000)
    assert lanes.take(10, NOW, 60_000) is None, "it is told once"
    taken = lanes.take(10, NOW, 70_000)
    assert taken is not None
    assert ([each.offset for each in taken.admitted], lanes.is_ahead) == ([4], False)
