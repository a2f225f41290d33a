"""Whatever becomes of the database and the topic, who follows as the guide says ends with the log: random histories."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.output.comparison import LOST, WENT_BACK, Last, Stand, Tail, finding_of
from tests.consumers.output.follower import guide

SHARDS = 2
Row = tuple[int, str, int]


class Sent(NamedTuple):
    """Hold a message as a follower reads it, by the names of the client library."""

    shard: int
    edition: tuple[str, int]
    pos: int
    row: Row | None

    def headers(self) -> list[tuple[str, bytes]]:
        incarnation, generation = self.edition
        numbers = [("generation", generation), ("shard", self.shard), ("pos", self.pos)]
        return [("incarnation", incarnation.encode()), ("ce_type", b"text"), *((n, b"%d" % v) for n, v in numbers)]

    def value(self) -> bytes | None:
        return None if self.row is None else b"\0\0\0\0\1" + repr(self.row).encode()


@dataclass
class Database:
    """Hold what goes back with a database: the log, how far the topic is, and which incarnation is in force."""

    incarnation: str = ""
    generation: int = 1
    topic_id: int = 0
    log: list[list[Row]] = field(default_factory=lambda: [[] for _ in range(SHARDS)])
    cursors: dict[int, tuple[int, str]] = field(default_factory=lambda: dict.fromkeys(range(SHARDS), (0, "")))


class World:
    """Let one publisher, one follower who goes on, and what befalls them take turns."""

    def __init__(self) -> None:
        self.database = Database()
        self.topic: list[Sent] = []
        self.is_whole = True
        self.kept: dict[int, Any] = {}
        self.names = self.rows = self.read_upto = self.topic_id = 0
        self.take = guide()["take"]
        self.take.__globals__["schemaless_reader"] = lambda stream, *_: stream.getvalue()
        self.agree()
        # not before: where neither the topic nor the database has anything left of what was sent, nobody can know of it
        self.backups = [copy.deepcopy(self.database)]

    def append(self, shard: int) -> None:
        self.rows += 1
        self.database.log[shard].append((self.rows, f"k{self.rows % 3}", self.rows))

    def publish(self, shard: int, *, noted: bool = True) -> None:
        database = self.database
        pos, begun = database.cursors[shard]
        edition = database.incarnation, database.generation
        if begun != database.incarnation:
            self.topic.append(Sent(shard, edition, pos, None))
        for at, row in enumerate(database.log[shard][pos:], pos + 1):
            self.topic.append(Sent(shard, edition, at, row))
        if noted:
            database.cursors[shard] = len(database.log[shard]), database.incarnation

    def follow(self) -> None:
        for message in self.topic[self.read_upto :]:
            self.take(message, self.kept)
        self.read_upto = len(self.topic)

    def back_up(self) -> None:
        self.backups.append(copy.deepcopy(self.database))

    def restore(self, which: int, *, is_told: bool) -> None:
        self.follow()
        self.database = copy.deepcopy(self.backups[which % len(self.backups)])
        self.agree(moved=is_told)

    def lose_end(self, messages: int) -> None:
        self.follow()
        if self.is_whole and messages:
            del self.topic[-messages:]
            self.read_upto = len(self.topic)
        self.agree()

    def make_topic_anew(self) -> None:
        self.follow()
        self.topic, self.is_whole, self.read_upto = [], True, 0
        self.topic_id += 1
        self.agree()

    def promote(self) -> None:
        """Let the same history be judged again, with one reward event less in each shard."""
        self.database.generation += 1
        self.database.log = [rows[1:] for rows in self.database.log]
        self.database.cursors = dict.fromkeys(range(SHARDS), (0, ""))
        self.agree()

    def agree(self, *, moved: bool = False) -> None:
        """Do what a worker does when it begins to publish."""
        database = self.database
        last: dict[int, Last] = {}
        for message in self.topic:
            found = Last(*message.edition, message.pos, message.row)
            if message.shard not in last or found[:3] >= last[message.shard][:3]:
                last[message.shard] = found
        rows = {s: database.log[s][e.pos - 1] for s, e in last.items() if 0 < e.pos <= len(database.log[s])}
        stand = Stand(database.incarnation, database.generation, database.cursors)
        finding = finding_of(stand, Tail(last, self.is_whole), rows)
        begins = None if finding is None else finding.begins
        if database.topic_id != self.topic_id:
            begins = dict.fromkeys(range(SHARDS), 0)
        elif begins is None and moved:
            begins = {shard: pos for shard, (pos, _) in database.cursors.items()}
        if begins is None and database.incarnation:
            return
        self.names += 1
        database.topic_id = self.topic_id
        database.incarnation = f"{self.names:025}"
        for shard, (pos, _) in database.cursors.items():
            begun = database.incarnation if begins is None else database.cursors[shard][1]
            database.cursors[shard] = pos if begins is None else begins[shard], begun
        if begins is not None:
            for shard in range(SHARDS):  # its next round: where nothing tells of it, nobody can know
                self.publish(shard)

    def holds(self) -> None:
        self.agree()
        for shard in range(SHARDS):
            self.publish(shard)
        self.follow()
        self._compare(self.kept)
        if self.is_whole:
            fresh: dict[int, Any] = {}
            for message in self.topic:
                self.take(message, fresh)
            self._compare(fresh)

    def _compare(self, kept: dict[int, Any]) -> None:
        for shard, rows in enumerate(self.database.log):
            _, events = kept.get(shard, ((), {}))
            assert events == {pos: repr(row).encode() for pos, row in enumerate(rows, 1)}, f"shard {shard}"


shards = st.integers(0, SHARDS - 1)
steps = st.one_of(
    st.tuples(st.just("append"), shards),
    st.tuples(st.just("append"), shards),
    st.tuples(st.just("publish"), shards),
    st.tuples(st.just("publish"), shards),
    st.tuples(st.just("crash"), shards),
    st.tuples(st.just("follow"), st.just(0)),
    st.tuples(st.just("back_up"), st.just(0)),
    st.tuples(st.just("restore"), st.integers(0, 3)),
    st.tuples(st.just("put back"), st.integers(0, 3)),
    st.tuples(st.just("lose_end"), st.integers(1, 6)),
    st.tuples(st.just("make_topic_anew"), st.just(0)),
    st.tuples(st.just("promote"), st.just(0)),
)


@settings(max_examples=400)
@given(st.lists(steps, min_size=6, max_size=40))
@example([("append", 0), ("publish", 0), ("restore", 0), ("append", 0)])
@example([("append", 0), ("append", 1), ("publish", 0), ("put back", 0), ("append", 1)])
@example([("append", 0), ("publish", 0), ("append", 0), ("publish", 0), ("lose_end", 1)])
@example([("append", 0), ("append", 0), ("append", 0), ("make_topic_anew", 0), ("restore", 0), ("lose_end", 2)])
@example([("append", 0), ("append", 0), ("publish", 0), ("restore", 0), ("lose_end", 1), ("lose_end", 1)])
@example([("append", 0), ("append", 1), ("publish", 0), ("promote", 0), ("publish", 0), ("lose_end", 1)])
def test_a_follower_ends_with_the_log_whatever_happens(history: list[tuple[str, int]]) -> None:
    world, has_lost = World(), False
    for step, number in history:
        # a topic that lost what said so, and a database that forgot it: both at once leave nothing to find it by
        if has_lost and step in {"restore", "put back"}:
            continue
        has_lost = has_lost or step == "lose_end"
        match step:
            case "append":
                world.append(number)
            case "publish":
                world.publish(number)
            case "crash":
                world.publish(number, noted=False)
                world.agree()
            case "restore":
                world.restore(number, is_told=True)
            case "put back":
                world.restore(number, is_told=False)
            case "lose_end":
                world.lose_end(number)
            case _:
                getattr(world, step)()
    world.holds()


ROW = (7, "key", 70)
OTHER = (8, "key", 80)


@pytest.mark.parametrize(
    ("cursor", "last", "row", "whole", "wanted"),
    [
        ((5, "b"), Last("b", 1, 5, ROW), ROW, False, None),
        ((5, "b"), Last("b", 1, 7, ROW), ROW, False, None),  # sent, and killed before it was noted
        ((5, "b"), Last("b", 1, 7, None), ROW, False, None),  # by another schema: not compared
        ((5, "b"), None, None, False, None),  # retention has removed it, or it stands further back
        ((5, "b"), None, None, True, (LOST, 0)),
        ((0, ""), None, None, True, None),
        ((5, "b"), Last("b", 1, 7, OTHER), ROW, False, (WENT_BACK, 5)),
        ((5, "b"), Last("b", 1, 7, ROW), None, False, (WENT_BACK, 5)),
        ((5, "b"), Last("b", 1, 4, OTHER), ROW, False, (WENT_BACK, 0)),
        ((5, "b"), Last("b", 1, 4, ROW), ROW, False, (LOST, 4)),
        ((5, "b"), Last("a", 1, 9, OTHER), None, False, None),  # of an edition that followers have left behind
        ((5, "a"), Last("a", 1, 9, ROW), None, True, None),  # the incarnation began, and of this shard nothing is sent
        ((5, "b"), Last("a", 1, 9, ROW), None, True, (LOST, 0)),
        ((5, "b"), Last("", 1, 5, ROW), ROW, True, None),  # the first incarnation: for it nothing is sent again
        ((5, "b"), Last("", 1, 5, None), ROW, True, None),
        ((5, "b"), Last("", 1, 4, ROW), ROW, True, (LOST, 0)),
        ((5, "b"), Last("a", 1, 5, OTHER), ROW, True, (LOST, 0)),
        ((0, "b"), Last("a", 1, 5, ROW), None, True, (LOST, 0)),  # where this incarnation begins was lost
        ((0, "a"), Last("a", 1, 5, ROW), None, True, None),
        ((0, "b"), None, None, True, None),
        ((5, "b"), Last("c", 1, 5, ROW), ROW, False, (WENT_BACK, 5)),
        ((5, "b"), Last("c", 2, 5, ROW), ROW, False, (WENT_BACK, 0)),
        ((5, "b"), Last("b", 2, 3, ROW), ROW, False, (WENT_BACK, 0)),
    ],
)
def test_what_the_end_of_the_topic_says(
    cursor: tuple[int, str], last: Last | None, row: Row | None, whole: Any, wanted: tuple[str, int] | None
) -> None:
    tail = Tail({} if last is None else {3: last}, is_whole=whole)
    found = finding_of(Stand("b", 1, {3: cursor}), tail, {} if row is None else {3: row})
    assert (found and (found.why, found.begins[3])) == wanted


def test_a_generation_that_has_sent_nothing_yet_is_not_behind_the_one_before() -> None:
    tail = Tail({3: Last("b", 1, 9, ROW)}, is_whole=True)
    assert finding_of(Stand("b", 2, {3: (0, "")}), tail, {}) is None
    assert finding_of(Stand("b", 2, {3: (4, "b")}), tail, {}) is not None


def test_where_the_topic_lost_its_end_a_shard_that_was_not_found_is_sent_again_whole() -> None:
    cursors = {3: (5, "b"), 4: (9, "b"), 5: (0, "")}
    lost = Tail({3: Last("b", 1, 4, ROW)}, is_whole=False)
    assert finding_of(Stand("b", 1, cursors), lost, {3: ROW}) == (LOST, {3: 4, 4: 0, 5: 0})
    back = Tail({3: Last("b", 1, 7, ROW)}, is_whole=False)
    assert finding_of(Stand("b", 1, cursors), back, {}) == (WENT_BACK, {3: 5, 4: 9, 5: 0})
