"""Fold the source log again into a generation that is not live: in memory, and written down chunk by chunk.

Each chunk is one transaction: reward events, states, parts, facts and heads, all or nothing. So a replay that is killed
at any point goes on where its last chunk ended, and ends with the same bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from heapq import merge
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple

import psycopg2

from engine.history.log_fold import Failed, LogFold
from engine.ledger.ranks import report_of
from engine.store.campaigns import contests
from engine.store.generations import adjustments, live_generation, shadow_states
from engine.store.generations.replay_books import ReplayBooks
from engine.store.generations.replay_facts import WON, Facts, copy_facts, read_facts, read_redeemed
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.reward_log import PostingFields, RewardRows
from engine.store.logs.whole_log import MERGED_PAGE_ROWS, WholeLog, place
from engine.store.members import member_states
from engine.store.members.erased_members import Copied, read_copied
from engine.store.programmes import load_judge
from schemas.events import INT64_MAX
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Connection, Cursor
    from engine.store.generations.generation import Generation
    from engine.store.generations.shadow_states import Shard
    from engine.store.logs.history import Logged
    from engine.store.members.member_states import Member
    from schemas.rewards import RewardEvent


_REDEEMING = frozenset(("redemption", "release"))
"""Source events at which a redemption may be decided: its own, or the release of its member."""


class _Moved(Exception):  # caught in this module
    """Say that a generation's heads are not where this process left them."""


class Stretch(NamedTuple):
    """Say how far to fold."""

    upto: Mapping[int, int]
    """By shard, the last seq."""
    events_max: int
    before_ms: int = INT64_MAX
    """Events that were recorded then, or later, are left for another time."""


class Replay(LogFold):
    """Fold some shards into a generation, on a connection that nobody else uses.

    Args:
        connection: a connection as the writer, prepared by `member_states.prepare`.
        generation: takes the reward events and states.
        shards: the shards to fold; several whose members share something are merged by (recorded_at, shard, seq).
        observe: called with the name of each step.
    """

    def __init__(
        self,
        connection: Connection,
        generation: Generation,
        shards: Sequence[int],
        observe: Callable[[str], None] = lambda _point: None,
    ) -> None:
        super().__init__(connection.cursor(), generation)
        self._connection = connection
        self._numbers = sorted(shards)
        self._observe = observe
        self._ahead: dict[int, list[Logged]] = defaultdict(list)
        self._postings = PostingFields()
        self._log = WholeLog(self._cursor)
        self._rewards: RewardRows
        self._books: ReplayBooks = ReplayBooks(generation, self._judge)

    def advance(self, stretch: Stretch) -> int:
        """Fold at most `events_max` source events in one transaction, and return the number of events folded.

        Raises:
            AnswerIsNo: a repetition decides something differently from its base.
        """
        while True:
            try:
                return self._attempt(stretch)
            except Failed as failed:
                self._forget()
                self._failures[failed.at] = failed.error
            except _Moved:
                self._forget()
            except BaseException:
                self._forget()
                raise

    def _forget(self) -> None:
        """Roll back, and forget what was folded in memory."""
        with suppress(psycopg2.Error):  # a broken connection has nothing left to roll back
            self._connection.rollback()
        self._shards.clear()
        self._ahead.clear()
        self._books.forget()

    def _attempt(self, stretch: Stretch) -> int:
        """Fold one chunk, and commit it."""
        self._take_heads()
        rows = self._read(stretch)
        if rows:
            # read what was decided elsewhere about these rows
            self._observe("before fold")
            before = {number: shard.head.seq for number, shard in self._shards.items()}
            self._facts = self._facts_of(rows, before)
            self._copied = self._copied_of(rows, before)
            self.counted = adjustments.counted_in(self._cursor, self._generation)
            self._may_suspend = bool(self._facts.held or self._failures)

            # fold them
            self._books.begin(self._cursor, self._facts)
            self._rewards = RewardRows(self._generation.number, self._postings)
            self._suspensions, self._won = [], []
            self._winners.clear()
            for row in rows:
                self._fold(row)
            self._observe("after fold")

            # write it all down
            self._write(before)
            self._observe("before commit")
        self._connection.commit()
        self._observe("after commit")
        return len(rows)

    def _take_heads(self) -> None:
        """Lock the heads, and load shards that are not in memory.

        Raises:
            _Moved: somebody else has folded meanwhile, so the states in memory are worthless.
        """
        heads = shadow_states.lock_heads(self._cursor, self._generation, self._numbers)
        for number, head in heads.items():
            shard = self._shards.get(number)
            if shard is None:
                self._shards[number] = shadow_states.load(self._cursor, self._generation, head)
            elif (shard.head.seq, shard.head.pos) != (head.seq, head.pos):
                raise _Moved
            else:
                shadow_states.reload_schedule(self._cursor, self._generation, shard)

    def _read(self, stretch: Stretch) -> list[Logged]:
        """Return the next rows in their order."""
        # of one shard
        if len(self._numbers) == 1:
            (number,) = self._numbers
            shard = self._shards[number]
            return self._log.page(number, shard.head.seq, stretch.upto[number], stretch.events_max)

        # of several shards, merged from pages that are read ahead
        merged = merge(*(self._stream(number, stretch.upto[number]) for number in self._numbers), key=place)
        early = takewhile(lambda row: row.recorded.occurrence.recorded_at_ms < stretch.before_ms, merged)
        rows = _with_whole_closings(early, stretch.events_max)

        # what is read ahead begins after them now
        for number, count in Counter(row.shard for row in rows).items():
            del self._ahead[number][:count]
        return rows

    def _stream(self, number: int, upto_seq: int) -> Iterator[Logged]:
        """Yield a shard's next rows, and keep them read ahead."""
        ahead, index = self._ahead[number], 0
        while True:
            if index == len(ahead):
                last = ahead[-1].recorded.occurrence.seq if ahead else self._shards[number].head.seq
                ahead += self._log.page(number, last, upto_seq, MERGED_PAGE_ROWS)
                if index == len(ahead):
                    return
            yield ahead[index]
            index += 1

    def _facts_of(self, rows: list[Logged], before: dict[int, int]) -> Facts:
        """Read the base's decisions on some rows, for a repetition; else only the outcomes of redemptions in them."""
        if not self._generation.repeats or self._generation.base is None:
            spans = {
                row.shard: (before[row.shard], row.recorded.occurrence.seq)
                for row in rows
                if row.recorded.kind in _REDEEMING
            }
            return read_redeemed(self._cursor, live_generation.live(self._cursor), spans)

        first, last = rows[0].recorded.occurrence.seq, rows[-1].recorded.occurrence.seq
        return read_facts(self._cursor, self._generation.base, rows[0].shard, first - 1, last)

    def _copied_of(self, rows: list[Logged], before: dict[int, int]) -> dict[int, Copied]:
        """Return by shard what to copy of members who were erased since: from the base's log, or else the live one.

        This generation may have judged a member before their erasure. Then they have lots of their own here, which
        copied reward events would not move, so they are judged on. A repetition has no lots but the base's.
        """
        base = self._generation.base or live_generation.live(self._cursor)
        ends = {row.shard: row.recorded.occurrence.seq for row in rows}
        copies = {shard: read_copied(self._cursor, base, shard, before[shard], upto) for shard, upto in ends.items()}
        if self._generation.repeats:
            return copies
        return {shard: copied._replace(members=self._never_judged(shard, copied)) for shard, copied in copies.items()}

    def _never_judged(self, shard: int, copied: Copied) -> frozenset[str]:
        """Return the members among those to copy whom this generation has not judged yet."""
        members = self._shards[shard].members
        return frozenset(each for each in copied.members if each not in members or not members[each].state.version)

    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:
        """Append reward events."""
        self._rewards.append(rewards, shard.head, member.packed_id + pack_text(event_id))

    def _write(self, before: dict[int, int]) -> None:
        """Write the chunk down."""
        # report the tiers of the members who have changed
        cursor, generation = self._cursor, self._generation
        changed = [shard for shard in self._shards.values() if shard.head.seq != before[shard.number]]
        members = [member for shard in changed for member in shard.touched.values()]
        for shard in changed:
            judge = self._judge(shard.head.version) if shard.head.version else None
            for member in shard.touched.values():
                member.tier_report = None if judge is None else report_of(judge, member.state)

        # rewards and states
        self._observe("before append rewards")
        self._rewards.write(cursor)
        self._observe("before save states")
        self._books.save(cursor, members)
        profiles = shadow_states.sealed_profiles(cursor, changed)
        member_states.save(cursor, members, profiles, generation.table("member_state"))
        if any(self._judge(shard.head.version).is_followed for shard in changed if shard.head.version):
            contests.save_scores(cursor, generation.number, members)

        # facts
        self._observe("before save facts")
        for each in self._suspensions:
            held: dict[str, object] = {"member_id": each.member_id, "reason": each.why}
            live_generation.add_fact(cursor, generation.number, (each.shard, each.seq), "member_held", held)
        for at, won in self._won:
            live_generation.add_fact(cursor, generation.number, at, WON, won._asdict())
        for shard in changed:
            if generation.repeats:
                copy_facts(cursor, generation, shard.number, before[shard.number], shard.head.seq)

        # heads
        self._observe("before save heads")
        shadow_states.save(cursor, generation, changed)


def _with_whole_closings(rows: Iterator[Logged], rows_max: int) -> list[Logged]:
    """Return the next `rows_max` rows, or more where a contest's closing would be torn: it is ranked only once.

    Where the rest of a closing cannot be read yet, the rows before the closing are returned.
    """
    page = list(islice(rows, rows_max))
    closings = Counter(bytes(row.payload) for row in page if row.recorded.kind == "contest")
    while any(count % SHARDS for count in closings.values()):
        row = next(rows, None)
        if row is None:
            torn = {payload for payload, count in closings.items() if count % SHARDS}
            return page[: next(place for place, each in enumerate(page) if bytes(each.payload) in torn)]

        page.append(row)
        if row.recorded.kind == "contest":
            closings[bytes(row.payload)] += 1
    return page


def versions_used(cursor: Cursor, generation: Generation, upto: Mapping[int, int]) -> set[int]:
    """Return the versions that may judge anything of a generation up to these positions."""
    versions = {generation.file_version} if generation.file_version else set()
    scheduled_by = generation.number if generation.base is None else generation.base
    for shard in upto:
        versions |= {each.version for each in live_generation.schedule(cursor, scheduled_by, shard)}
    if generation.base is None:
        live = live_generation.live(cursor)
        versions |= {each.version for each in live_generation.schedule(cursor, live, min(upto))}
    return versions


def shares_anything(
    cursor: Cursor, generation: Generation, upto: Mapping[int, int], judges: Mapping[int, CompiledJudge] | None = None
) -> bool:
    """Whether members share a budget, stock or a contest: then one process must judge all shards in the log's order.

    `judges` are of versions that are not stored, or compiled already.
    """
    if generation.repeats:
        return False
    for version in sorted(versions_used(cursor, generation, upto)):
        judge = (judges or {}).get(version) or load_judge(cursor, version)
        terms = judge.programme.terms
        if judge.has_budgets or terms.contests or any(reward.stock is not None for reward in terms.catalogue):
            return True
    return False
