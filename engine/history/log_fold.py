"""Fold logged source events once more, in memory: what the live transaction did with each, in the same order.

Each is judged by whichever version the generation's schedule names. What becomes of the reward events is another's
matter: `engine.history.replay` writes them down, `engine.history.backtest` adds them up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from msgspec import msgpack

from engine.evaluate import TICK_MEMBERS_MAX, advance, award, fold
from engine.ledger.adjustments import Adjustment, counts
from engine.ledger.books import Activation
from engine.ledger.contests import has_won, ranked, scores_of
from engine.member.state import is_full
from engine.programme.periods import ended_by
from engine.programme.rules.judge import moves_members
from engine.programme.rules.occurrence import Occurrence
from engine.store.generations.live_generation import version_in
from engine.store.generations.replay_facts import Facts
from engine.store.logs import history, source_log
from engine.store.programmes import load_judge
from engine.store.session.failures import error_line, is_judging
from schemas.errors import AnswerIsNo
from schemas.events import INT64_MAX, Profile, Purchase, Signup
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from engine.ledger.contests import Score, Won
    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from engine.store.generations.fold_books import FoldBooks
    from engine.store.generations.generation import Generation
    from engine.store.generations.shadow_states import Shard
    from engine.store.logs.history import Logged
    from engine.store.members.erased_members import Copied
    from engine.store.members.member_states import Member
    from schemas.rewards import RewardEvent

_PERSONAL = (Signup, Profile)


class Failed(Exception):  # noqa: N818  caught by who folds
    """Say that a member's event could not be judged: what was folded is worthless, and the member is held next time."""

    def __init__(self, at: tuple[int, int, str], error: Exception) -> None:
        super().__init__(str(error))
        self.at = at
        self.error = error


class LogFold(ABC):
    """Fold source events of shards that are in memory.

    Args:
        cursor: reads what lies further back, where a refund or a release needs it.
        generation: how it is judged.
    """

    _books: FoldBooks

    def __init__(self, cursor: Cursor, generation: Generation) -> None:
        self._cursor = cursor
        self._generation = generation
        self._judges: dict[int, CompiledJudge] = {}
        self._history = history.History(cursor, bare=True)
        self._shards: dict[int, Shard] = {}
        self._failures: dict[tuple[int, int, str], Exception] = {}
        self._facts = Facts()
        self._copied: dict[int, Copied] = {}
        self._is_holding = False
        self._counted: frozenset[int] = frozenset()
        self._held: list[tuple[tuple[int, int], str, str]] = []
        self._ranked: dict[tuple[str, int], dict[int, list[Won]]] = {}
        self._won: list[tuple[tuple[int, int], Won]] = []

    @abstractmethod
    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:
        """Take what the shard's last source event has brought a member."""

    def _copy(self, shard: Shard, member: Member) -> bool:
        """Append what the log has of a member who was erased since, and say whether the member is one."""
        copied = self._copied[shard.number]
        if member.member_id not in copied.members:
            return False
        for event_id, reward in copied.rewards.get((shard.head.seq, member.member_id), ()):
            self._take(shard, member, event_id, (reward,))
        return True

    def _judge(self, version: int) -> CompiledJudge:
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
        elif type(event) is Adjustment and not counts(event, self._counted):
            pass
        elif not (self._is_holding and self._holds(shard, member)) and not member.state.suspended_since:
            books = self._books.of(member, shard.schedule, seq, (seq, recorded.event_id))
            try:
                rewards = fold(member.state, event, recorded.occurrence, judge, books)  # type: ignore[arg-type]  # as above
            except Exception as error:  # noqa: BLE001  whatever it is, it holds this member and stops nobody else
                self._fail(shard, member, error)
            if rewards:
                self._take(shard, member, recorded.event_id, rewards)
            if is_full(member.state):
                self._books.turn_page(member)
        shard.plan(member)

    def _judge_now(self, shard: Shard, seq: int, occurred_ms: int) -> CompiledJudge:
        """Return who judges a source event, and note where that changes."""
        if self._generation.file_version is not None and self._generation.is_judged_by_file(occurred_ms):
            version = self._generation.file_version
        else:
            version = shard.outside_at(seq)
        if version != shard.head.version:
            self._follow(shard, Activation(seq - 1, version, self._generation.edge_ms(version)))
        return self._judges.get(version) or self._judge(version)

    def _follow(self, shard: Shard, activation: Activation) -> None:
        """Go over to another version; the first time, members who have no event follow at ticks."""
        before = shard.change_version(activation)
        if before and moves_members(self._judge(before).programme, self._judge(activation.version).programme):
            shard.review(activation.at_ms + 1)

    def _holds(self, shard: Shard, member: Member) -> bool:
        """Hold a member from here on where the base did, or where this fold has failed before."""
        seq = shard.head.seq
        error = self._failures.get((shard.number, seq, member.member_id))
        if error is None and (seq, member.member_id) not in self._facts.held:
            return False
        if not member.state.suspended_since:
            member.state.suspended_since = seq
        if error is not None:
            self._held.append(((shard.number, seq), member.member_id, error_line(error)))
        return True

    def _fail(self, shard: Shard, member: Member, error: Exception) -> NoReturn:
        if not is_judging(error):
            raise error  # PostgreSQL went away while it was asked: that is nobody's fault here
        seq = shard.head.seq
        if self._generation.repeats:
            raise AnswerIsNo(
                f"shard {shard.number}, seq {seq}, member {member.member_id}: what was judged once cannot be judged "
                f"now ({type(error).__name__}: {error}); nothing more was written: install the release that mends it"
            ) from error
        raise Failed((shard.number, seq, member.member_id), error) from error

    def _tick(self, shard: Shard, row: Logged) -> None:
        occurrence, until_ms = row.recorded.occurrence, row.occurred_ms
        copied = self._copied[shard.number]
        erased = sum(member_id in copied.members for member_id in copied.order.get(occurrence.seq, ()))
        due = [member.member_id for member in shard.take_due(until_ms, TICK_MEMBERS_MAX - erased)]
        members = [shard.member(member_id) for member_id in copied.woven(occurrence.seq, due)]
        judge = self._judge_now(shard, occurrence.seq, until_ms)
        self._books.open(member for member in members if member.state.pages or member.state.is_booked)
        for member in members:
            if self._copy(shard, member):
                member.state.due_ms = None
                shard.plan(member)
                continue
            is_held = self._is_holding and self._holds(shard, member)
            if not is_held and not member.state.suspended_since and not member.state.erased:
                place = (occurrence.seq, row.recorded.event_id)
                self._advance(shard, member, judge, occurrence, until_ms, place)
            shard.plan(member)

    def _close(self, shard: Shard, row: Logged) -> None:
        """Let the winners of a contest have what they have won."""
        occurrence = row.recorded.occurrence
        judge = self._judge_now(shard, occurrence.seq, row.occurred_ms)
        place = (occurrence.seq, row.recorded.event_id)
        for won in self._winners(shard, row, judge):
            member = shard.member(won.member_id)
            if not self._copy(shard, member) and not (self._is_holding and self._holds(shard, member)):
                books = self._books.of(member, shard.schedule, occurrence.seq, place)
                given = partial(award, member.member_id, member.state, occurrence, judge, books, won)
                self._bring(shard, member, place[1], given)
            shard.plan(member)

    def _winners(self, shard: Shard, row: Logged, judge: CompiledJudge) -> Sequence[Won]:
        """Return who of a shard has won a contest: a fact of the base, or ranked at the first row of the closing.

        A closing has a row in every shard, all of one transaction; where members are ranked anew, all shards are here.
        """
        seq = row.recorded.occurrence.seq
        if self._generation.repeats:
            return self._facts.won.get(seq, ())
        told = msgpack.decode(bytes(row.payload))
        closing = (told["contest"], told["period"])
        if closing not in self._ranked:
            self._ranked[closing] = self._rank(judge, closing, row.occurred_ms)
        winners = self._ranked[closing].get(shard.number, [])
        self._won += [((shard.number, seq), won) for won in winners]
        return winners

    def _rank(self, judge: CompiledJudge, closing: tuple[str, int], end_ms: int) -> dict[int, list[Won]]:
        """Return the winners of a period by shard; who is held or was erased wins nothing, and the next one does.

        Who was erased since and is copied keeps the rank that the log has, under any file.
        """
        winners = self._copied_winners(closing)
        ended = ended_by(judge.programme, [closing], end_ms)
        if ended and ended[0].end_ms == end_ms:  # else the contest is not this programme's, or has other periods
            winners += ranked(self._scores(closing), ended[0], {won.rank for won in winners})
        found: dict[int, list[Won]] = {}
        for won in sorted(winners, key=lambda won: won.rank):
            found.setdefault(shard_of(won.member_id), []).append(won)
        return found

    def _copied_winners(self, closing: tuple[str, int]) -> list[Won]:
        return [
            won
            for copied in self._copied.values()
            for (_, member_id), rewards in copied.rewards.items()
            if member_id in copied.members
            for _, reward in rewards
            if reward.posting.type == "contest.won" and (won := has_won(member_id, *closing, reward)) is not None
        ]

    def _scores(self, closing: tuple[str, int]) -> Iterator[tuple[str, Score]]:
        return (
            (member_id, score)
            for shard in self._shards.values()
            for member_id, member in shard.members.items()
            if not member.state.suspended_since and not member.state.erased
            for score in scores_of(member.state)
            if (score.contest, score.period) == closing
        )

    def _advance(
        self,
        shard: Shard,
        member: Member,
        judge: CompiledJudge,
        occurrence: Occurrence,
        until_ms: int,
        place: tuple[int, str],
        upto_seq: int = INT64_MAX,
    ) -> None:
        """Move a member's clock; `place` is the seq and event_id of the reward events."""
        books = self._books.of(member, shard.schedule, min(upto_seq, place[0]), place)
        given = partial(advance, member.member_id, member.state, occurrence, judge, books, until_ms)
        self._bring(shard, member, place[1], given)

    def _bring(self, shard: Shard, member: Member, event_id: str, given: Callable[[], Sequence[RewardEvent]]) -> None:
        """Bring a member what a step of the fold gives; `_fold_event` does the same in line, as most events pass it."""
        try:
            rewards = given()
        except Exception as error:  # noqa: BLE001  as with an event
            self._fail(shard, member, error)
        if rewards:
            self._take(shard, member, event_id, rewards)
        if is_full(member.state):
            self._books.turn_page(member)

    def _activate(self, shard: Shard, told: dict[str, int | None]) -> None:
        """Let a version that was activated judge what is not the file's."""
        seq, version = shard.head.seq, int(told["version"] or 0)
        reached_ms = told.get("reached_ms")
        if reached_ms is None:  # a release of the first meaning activated it
            reached_ms = source_log.latest_ms(self._cursor, shard.number, 0, seq)
        before = shard.outside_at(seq)
        if self._generation.base is None:
            shard.outside.append(Activation(seq, version, reached_ms))
        if shard.head.version == before:
            self._follow(shard, Activation(seq, shard.outside_at(seq + 1), reached_ms))

    def _release(self, shard: Shard, recorded: history.Recorded) -> None:
        """Judge what waited for a member's release, as `engine.live.release` does; here nobody may be held."""
        member, seq = shard.member(recorded.member_id), recorded.occurrence.seq
        suspended_since = member.state.suspended_since
        member.seq = seq
        if self._copy(shard, member):
            member.state.suspended_since = suspended_since = 0
        if suspended_since and (shard.number, seq, member.member_id) not in self._failures:
            tick_ms = history.tick_at(self._cursor, shard.number, suspended_since)
            earlier = self._history.of_member(shard.number, recorded.prev_seq, suspended_since)
            waiting = list(earlier)[::-1]
            member.state.suspended_since = 0
            shard.profiles.setdefault(member.member_id, member.state.profile)
            if tick_ms is not None:
                occurrence = Occurrence(recorded.occurrence.identity, seq, recorded.occurrence.recorded_at_ms)
                judge = self._judge(version_in(shard.schedule, suspended_since))
                self._advance(shard, member, judge, occurrence, tick_ms, (seq, recorded.event_id), suspended_since)
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
        given = partial(fold, member.state, recorded.event, occurrence, judge, books)  # type: ignore[arg-type]  # a touch has no member
        self._bring(shard, member, recorded.event_id, given)
