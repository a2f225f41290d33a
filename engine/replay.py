"""Fold the source log once more, into a generation that is not live: in memory, written down a chunk at a time.

What the live transaction did with an event is done here in the same order, by whichever version the generation's
schedule names. Each chunk is one transaction: reward events, states, parts, facts and heads, all or nothing. So a
replay that is killed at any point goes on where its last chunk ended, and ends with the same bytes.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from functools import lru_cache, partial
from heapq import merge
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import psycopg2
from msgspec import msgpack

from engine.evaluate import advance, award, fold
from engine.ledger.adjustments import counts
from engine.live import load_judge, standing_of
from engine.state import Occurrence, is_full
from engine.store import adjustments, contests, generations, history, member_states, shadow_states
from engine.store.binary_copy import pack_text
from engine.store.erased_members import Copied, read_copied
from engine.store.programmes import moves_members
from engine.store.replay_books import Facts, ReplayBooks, copy_facts, read_facts, version_in
from engine.store.reward_log import PostingFields, RewardRows
from engine.ticks import MEMBERS_MAX
from schemas.errors import AnswerIsNo
from schemas.events import INT64_MAX, Profile, Purchase, Signup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812  a class under a module's name
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  as above

    from engine.programme.compile import Judge
    from engine.store.history import Logged
    from engine.store.member_states import Member
    from engine.store.shadow_states import Shard
    from engine.store.shadows import Generation

_PERSONAL = (Signup, Profile)

PAGE_ROWS = 500
"""Rows that are read ahead of each shard where shards are merged."""


class _Moved(Exception):  # noqa: N818  caught in this module
    """Say that a generation's heads are not where this process left them."""


class _Failed(Exception):  # noqa: N818  caught in this module
    """Say that a member's event could not be judged: the chunk is begun anew, and the member held."""

    def __init__(self, at: tuple[int, int, str], error: Exception) -> None:
        super().__init__(str(error))
        self.at = at
        self.error = error


class Stretch(NamedTuple):
    """Say how far to fold: per shard up to a seq, and nothing that was recorded at `before_ms` or later."""

    upto: Mapping[int, int]
    events_max: int
    before_ms: int = INT64_MAX


class Replay:
    """Fold shards of a generation on, on a connection that nobody else uses.

    Args:
        connection: as the writer, prepared by `member_states.prepare`.
        generation: into which it is folded.
        shards: which of them; several are merged by (recorded_at, shard, seq), as members share something.
        observe: is told each step.
    """

    def __init__(
        self,
        connection: Connection,
        generation: Generation,
        shards: Sequence[int],
        observe: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._connection = connection
        self._generation = generation
        self._numbers = sorted(shards)
        self._observe = observe
        self._shards: dict[int, Shard] = {}
        self._ahead: dict[int, list[Logged]] = defaultdict(list)
        self._judges: dict[int, Judge] = {}
        self._postings = PostingFields()
        self._failures: dict[tuple[int, int, str], Exception] = {}
        self._facts = Facts()
        self._copied: dict[int, Copied] = {}
        self._is_holding = False
        self._counted: frozenset[int] = frozenset()
        self._cursor: Cursor = connection.cursor()
        self._history = history.History(self._cursor, bare=True)
        self._rewards: RewardRows
        self._books = ReplayBooks(generation, self._judge)
        self._held: list[tuple[tuple[int, int], str, str]] = []

    def advance(self, stretch: Stretch) -> int:
        """Fold at most `events_max` source events in one transaction and return how many it were.

        Raises:
            AnswerIsNo: a repetition comes out otherwise than its base.
        """
        while True:
            try:
                return self._attempt(stretch)
            except _Failed as failed:
                self._forget()
                self._failures[failed.at] = failed.error
            except _Moved:
                self._forget()
            except BaseException:
                self._forget()
                raise

    def _forget(self) -> None:
        with suppress(psycopg2.Error):  # a broken connection has nothing left to roll back
            self._connection.rollback()
        self._shards.clear()
        self._ahead.clear()
        self._books.forget()

    def _attempt(self, stretch: Stretch) -> int:
        self._take_heads()
        rows = self._read(stretch)
        if rows:
            self._observe("before fold")
            before = {number: shard.head.seq for number, shard in self._shards.items()}
            self._facts = self._facts_of(rows)
            self._copied = self._copied_of(rows, before)
            self._counted = adjustments.counted_in(self._cursor, self._generation)
            self._is_holding = bool(self._facts.held or self._failures)
            self._books.begin(self._cursor, self._facts)
            self._rewards = RewardRows(self._generation.number, self._postings)
            self._held = []
            for row in rows:
                self._fold(row)
            self._observe("after fold")
            self._write(before)
            self._observe("before commit")
        self._connection.commit()
        self._observe("after commit")
        return len(rows)

    def _take_heads(self) -> None:
        """Hold the heads, and load what is not in memory; whoever else has folded meanwhile makes it worthless."""
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
        if len(self._numbers) == 1:
            (number,) = self._numbers
            shard = self._shards[number]
            return self._history.page(number, shard.head.seq, stretch.upto[number], stretch.events_max)
        merged = merge(*(self._stream(number, stretch.upto[number]) for number in self._numbers), key=_place)
        early = takewhile(lambda row: row.recorded.occurrence.recorded_at_ms < stretch.before_ms, merged)
        rows = list(islice(early, stretch.events_max))
        taken: dict[int, int] = defaultdict(int)
        for row in rows:
            taken[row.shard] += 1
        for number, count in taken.items():
            del self._ahead[number][:count]
        return rows

    def _stream(self, number: int, upto_seq: int) -> Iterator[Logged]:
        ahead, index = self._ahead[number], 0
        while True:
            if index == len(ahead):
                last = ahead[-1].recorded.occurrence.seq if ahead else self._shards[number].head.seq
                ahead += self._history.page(number, last, upto_seq, PAGE_ROWS) if last < upto_seq else []
                if index == len(ahead):
                    return
            yield ahead[index]
            index += 1

    def _facts_of(self, rows: list[Logged]) -> Facts:
        if not self._generation.repeats or self._generation.base is None:
            return Facts()
        first, last = rows[0].recorded.occurrence.seq, rows[-1].recorded.occurrence.seq
        return read_facts(self._cursor, self._generation.base, rows[0].shard, first - 1, last)

    def _copied_of(self, rows: list[Logged], before: dict[int, int]) -> dict[int, Copied]:
        """Return what is copied of members who were erased since, by shard: from the base, or else the live log.

        Whom the file, or a schedule of its own, has judged before their erasure has lots of its own here: a copy would
        move others. They are judged on, and no repetition has any that are not the base's.
        """
        base = self._generation.base or generations.live(self._cursor)
        ends = {row.shard: row.recorded.occurrence.seq for row in rows}
        found = {shard: read_copied(self._cursor, base, shard, before[shard], upto) for shard, upto in ends.items()}
        if self._generation.repeats:
            return found
        return {shard: copied._replace(members=self._never_judged(shard, copied)) for shard, copied in found.items()}

    def _never_judged(self, shard: int, copied: Copied) -> frozenset[str]:
        known = self._shards[shard].members
        return frozenset(each for each in copied.members if each not in known or not known[each].state.version)

    def _copy(self, shard: Shard, member: Member) -> bool:
        """Append what the log has of a member who was erased since, and say whether the member is one."""
        copied = self._copied[shard.number]
        if member.member_id not in copied.members:
            return False
        for event_id, reward in copied.rewards.get((shard.head.seq, member.member_id), ()):
            self._rewards.append([reward], shard.head, member.packed_id + pack_text(event_id))
        return True

    def _judge(self, version: int) -> Judge:
        found = self._judges.get(version)
        if found is None:
            found = self._judges[version] = load_judge(self._cursor, version)
        return found

    def _fold(self, row: Logged) -> None:
        shard, recorded = self._shards[row.shard], row.recorded
        shard.head.seq = recorded.occurrence.seq
        shard.head.record_at(recorded.occurrence.recorded_at_ms)
        if recorded.event is not None:
            if recorded.member_id:  # a touch has none
                self._fold_event(shard, row)
        elif recorded.kind == "tick":
            self._tick(shard, row)
        elif recorded.kind == "activation":
            self._activate(shard, msgpack.decode(bytes(row.payload)))
        elif recorded.kind == "release":
            self._release(shard, recorded)
        elif recorded.kind == "contest":
            self._close(shard, row)

    def _fold_event(self, shard: Shard, row: Logged) -> None:
        recorded = row.recorded
        event, seq = recorded.event, recorded.occurrence.seq
        member = shard.member(recorded.member_id)
        member.seq = seq
        judge = self._judge_now(shard, seq, row.occurred_ms)
        if type(event) in _PERSONAL:
            shard.profiles.setdefault(member.member_id, member.state.profile)
        if recorded.kind == "erasure":
            member.state.erased, member.state.profile = True, None
            shard.erased.add(member.member_id)
        if type(event) is Purchase:
            self._books.record(event, seq)
        if self._copied[shard.number].members and self._copy(shard, member):
            member.state.due_ms = None
        elif not counts(event, self._counted):
            pass
        elif not (self._is_holding and self._holds(shard, member)) and not member.state.held_since:
            books = self._books.of(member, shard.schedule, seq, (seq, recorded.event_id))
            try:
                rewards = fold(member.state, event, recorded.occurrence, judge, books)  # type: ignore[arg-type]  # as above
            except Exception as error:  # noqa: BLE001  whatever it is, it holds this member and stops nobody else
                self._fail(shard, member, error)
            if rewards:
                self._rewards.append(rewards, shard.head, member.packed_id + pack_text(recorded.event_id))
            if is_full(member.state):
                self._books.turn_page(member)
        shard.plan(member)

    def _judge_now(self, shard: Shard, seq: int, occurred_ms: int) -> Judge:
        """Return who judges a source event, and note where that changes."""
        if self._generation.file_version is not None and self._generation.is_judged_by_file(occurred_ms):
            version = self._generation.file_version
        else:
            version = shard.outside_at(seq)
        if version != shard.head.version:
            self._follow(shard, seq - 1, version, shard.ticked_ms)
        return self._judges.get(version) or self._judge(version)

    def _follow(self, shard: Shard, from_seq: int, version: int, ticked_ms: int) -> None:
        """Go over to another version; the first time, members who have no event follow at the next ticks."""
        before = shard.change_version(from_seq, version)
        if before and moves_members(self._judge(before).programme, self._judge(version).programme):
            shard.review(ticked_ms)

    def _holds(self, shard: Shard, member: Member) -> bool:
        """Hold a member from here on where the base did, or where this fold has failed before."""
        seq = shard.head.seq
        error = self._failures.get((shard.number, seq, member.member_id))
        if error is None and (seq, member.member_id) not in self._facts.held:
            return False
        if not member.state.held_since:
            member.state.held_since = seq
        if error is not None:
            why = f"{type(error).__name__}: {error}".replace("\0", "␀")
            self._held.append(((shard.number, seq), member.member_id, why))
        return True

    def _fail(self, shard: Shard, member: Member, error: Exception) -> NoReturn:
        seq = shard.head.seq
        if self._generation.repeats:
            raise AnswerIsNo(
                f"shard {shard.number}, seq {seq}, member {member.member_id}: what was judged once cannot be judged "
                f"now ({type(error).__name__}: {error}); nothing more was written: install the release that mends it"
            ) from error
        raise _Failed((shard.number, seq, member.member_id), error) from error

    def _tick(self, shard: Shard, row: Logged) -> None:
        occurrence, until_ms = row.recorded.occurrence, row.occurred_ms
        copied = self._copied[shard.number]
        erased = sum(member_id in copied.members for member_id in copied.order.get(occurrence.seq, ()))
        due = [member.member_id for member in shard.take_due(until_ms, MEMBERS_MAX - erased)]
        members = [shard.member(member_id) for member_id in copied.woven(occurrence.seq, due)]
        judge = self._judge_now(shard, occurrence.seq, until_ms)
        self._books.open(member for member in members if member.state.pages or member.state.is_booked)
        for member in members:
            if self._copy(shard, member):
                member.state.due_ms = None
                shard.plan(member)
                continue
            is_held = self._is_holding and self._holds(shard, member)
            if not is_held and not member.state.held_since and not member.state.erased:
                place = (occurrence.seq, row.recorded.event_id)
                self._advance(shard, member, judge, occurrence, until_ms, place)
            shard.plan(member)

    def _close(self, shard: Shard, row: Logged) -> None:
        """Let the winners of a contest have what they have won; who they are is a fact of the base."""
        occurrence = row.recorded.occurrence
        judge = self._judge_now(shard, occurrence.seq, row.occurred_ms)
        place = (occurrence.seq, row.recorded.event_id)
        for won in self._facts.won.get(occurrence.seq, ()):
            member = shard.member(won.member_id)
            if not self._copy(shard, member) and not (self._is_holding and self._holds(shard, member)):
                books = self._books.of(member, shard.schedule, occurrence.seq, place)
                rewards = award(member.member_id, member.state, occurrence, judge, books, won)
                self._rewards.append(rewards, shard.head, member.packed_id + pack_text(place[1]))
                if is_full(member.state):
                    self._books.turn_page(member)
            shard.plan(member)

    def _advance(
        self,
        shard: Shard,
        member: Member,
        judge: Judge,
        occurrence: Occurrence,
        until_ms: int,
        place: tuple[int, str],
        upto_seq: int = INT64_MAX,
    ) -> None:
        """Move a member's clock; `place` is the seq and event_id of the reward events."""
        books = self._books.of(member, shard.schedule, min(upto_seq, place[0]), place)
        try:
            rewards = advance(member.member_id, member.state, occurrence, judge, books, until_ms)
        except Exception as error:  # noqa: BLE001  as with an event
            self._fail(shard, member, error)
        if rewards:
            self._rewards.append(rewards, shard.head, member.packed_id + pack_text(place[1]))
        if is_full(member.state):
            self._books.turn_page(member)

    def _activate(self, shard: Shard, told: dict[str, int | None]) -> None:
        """Let a version that was activated judge what is not the file's."""
        seq, version = shard.head.seq, int(told["version"] or 0)
        before = shard.outside_at(seq)
        if self._generation.base is None:
            shard.outside.append((seq, version))
        if shard.head.version == before:
            ticked_ms = told.get("ticked_ms", shard.ticked_ms) or 0
            self._follow(shard, seq, shard.outside_at(seq + 1), ticked_ms)

    def _release(self, shard: Shard, recorded: history.Recorded) -> None:
        """Judge what waited for a member's release, as `engine.release` does; here nobody may be held."""
        member, seq = shard.member(recorded.member_id), recorded.occurrence.seq
        held_since = member.state.held_since
        member.seq = seq
        if self._copy(shard, member):
            member.state.held_since = held_since = 0
        if held_since and (shard.number, seq, member.member_id) not in self._failures:
            tick_ms = history.tick_at(self._cursor, shard.number, held_since)
            earlier = self._history.of_member(shard.number, recorded.prev_seq, held_since)
            waiting = list(earlier)[::-1]
            member.state.held_since = 0
            shard.profiles.setdefault(member.member_id, member.state.profile)
            if tick_ms is not None:
                occurrence = Occurrence(recorded.occurrence.identity, seq, recorded.occurrence.recorded_at_ms)
                judge = self._judge(version_in(shard.schedule, held_since))
                self._advance(shard, member, judge, occurrence, tick_ms, (seq, recorded.event_id), held_since)
            for each in waiting:
                self._judge_waiting(shard, member, each)
        shard.plan(member)

    def _judge_waiting(self, shard: Shard, member: Member, recorded: history.Recorded) -> None:
        if recorded.event is None or not counts(recorded.event, self._counted):
            return
        seq, own_seq = shard.head.seq, recorded.occurrence.seq
        judge = self._judge(version_in(shard.schedule, own_seq))
        books = self._books.of(member, shard.schedule, own_seq, (seq, recorded.event_id))
        occurrence = Occurrence(recorded.occurrence.identity, seq, shard.head.recorded_ms)
        try:
            rewards = fold(member.state, recorded.event, occurrence, judge, books)  # type: ignore[arg-type]  # a touch has no member
        except Exception as error:  # noqa: BLE001  as with an event
            self._fail(shard, member, error)
        self._rewards.append(rewards, shard.head, member.packed_id + pack_text(recorded.event_id))
        if is_full(member.state):
            self._books.turn_page(member)

    def _write(self, before: dict[int, int]) -> None:
        """Write the chunk down."""
        cursor, generation = self._cursor, self._generation
        changed = [shard for shard in self._shards.values() if shard.head.seq != before[shard.number]]
        members = [member for shard in changed for member in shard.touched.values()]
        for shard in changed:
            judge = self._judge(shard.head.version) if shard.head.version else None
            for member in shard.touched.values():
                member.standing = None if judge is None else standing_of(judge, member.state)
        self._observe("before append rewards")
        self._rewards.write(cursor)
        self._observe("before save states")
        self._books.save(cursor, members)
        profiles = shadow_states.sealed_profiles(cursor, changed)
        member_states.save(cursor, members, profiles, generation.table("member_state"))
        if any(self._judge(shard.head.version).is_followed for shard in changed if shard.head.version):
            contests.save_scores(cursor, generation.number, members)
        self._observe("before save facts")
        for place, member_id, why in self._held:
            held: dict[str, object] = {"member_id": member_id, "reason": why}
            generations.add_fact(cursor, generation.number, place, "member_held", held)
        for shard in changed:
            if generation.repeats:
                copy_facts(cursor, generation, shard.number, before[shard.number], shard.head.seq)
        self._observe("before save heads")
        shadow_states.save(cursor, generation, changed)


def _place(row: Logged) -> tuple[int, int, int]:
    """Return where a row stands among those of all shards."""
    occurrence = row.recorded.occurrence
    return (occurrence.recorded_at_ms, row.shard, occurrence.seq)


def versions_used(cursor: Cursor, generation: Generation, upto: Mapping[int, int]) -> set[int]:
    """Return which versions may judge anything of a generation up to these positions."""
    found = {generation.file_version} if generation.file_version else set()
    of = generation.number if generation.base is None else generation.base
    for shard in upto:
        found |= {version for _, version in generations.schedule(cursor, of, shard)}
    if generation.base is None:
        found |= {version for _, version in generations.schedule(cursor, generations.live(cursor), min(upto))}
    return found


def shares_anything(cursor: Cursor, generation: Generation, upto: Mapping[int, int]) -> bool:
    """Whether members share a budget or stock, so that one process must judge all shards in the order of the log."""
    if generation.repeats:
        return False
    judge = lru_cache(partial(load_judge, cursor))
    for version in sorted(versions_used(cursor, generation, upto)):
        found = judge(version)
        catalogue = found.programme.terms.catalogue
        if found.has_budgets or any(reward.stock is not None for reward in catalogue):
            return True
    return False
