"""Fold logged source events again, in memory, as the live transaction did and in the same order.

The generation's schedule names the version that judges each. Subclasses decide what becomes of the reward events:
`engine.history.replay` writes them down, `engine.history.backtest` adds them up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from msgspec import msgpack

from engine.driver import Advance, MemberStep, perform
from engine.evaluate import TICK_MEMBERS_MAX
from engine.ledger.books import Activation
from engine.ledger.contests import ranked, scores_of, win_of
from engine.programme.periods import ended_by
from engine.programme.rules.judge import moves_members
from engine.programme.rules.occurrence import Occurrence
from engine.store.generations.live_generation import version_in
from engine.store.generations.replay_facts import Facts
from engine.store.logs import history, source_log
from engine.store.programmes import load_judge
from engine.store.session.failures import error_line, is_judging
from schemas.errors import AnswerIsNo
from schemas.events import Profile, Signup
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.ledger.contests import Score, Won
    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from engine.store.generations.fold_books import FoldBooks
    from engine.store.generations.generation import Generation
    from engine.store.generations.shadow_states import Shard
    from engine.store.logs.history import Logged
    from engine.store.members.erased_members import Copied
    from engine.store.members.member_states import Member
    from schemas.events import Event, Purchase
    from schemas.rewards import RewardEvent

_PERSONAL = (Signup, Profile)


class FailurePlace(NamedTuple):
    """Say at which place of a shard a member's step failed."""

    shard: int
    seq: int
    member_id: str


class Suspension(NamedTuple):
    """Say why this fold holds a member, and from which place on."""

    shard: int
    seq: int
    member_id: str
    why: str


class Closing(NamedTuple):
    """Name the period of a contest that is closed."""

    contest: str
    period: int


class Failed(Exception):  # caught by who folds
    """Say that a step of a member could not be judged: the fold begins again, and holds the member there.

    Args:
        at: shard and seq of the step, and the member.
        error: judging the step raised it.
    """

    def __init__(self, at: FailurePlace, error: Exception) -> None:
        super().__init__(str(error))
        self.at = at
        self.error = error


class LogFold(ABC):
    """Fold source events of shards that are in memory.

    Args:
        cursor: reads earlier events, where a refund or a release needs them.
        generation: says how events are judged.
    """

    _books: FoldBooks
    """The parts of ledgers beyond the members' states; a subclass makes them."""

    def __init__(self, cursor: Cursor, generation: Generation) -> None:
        self._cursor = cursor
        self._generation = generation
        self._judges: dict[int, CompiledJudge] = {}
        self._history = history.History(cursor, bare=True)
        self._shards: dict[int, Shard] = {}

        # what was decided before
        self._failures: dict[FailurePlace, Exception] = {}
        """The failures of earlier attempts."""
        self._facts = Facts()
        """The base's decisions, where this generation repeats them."""
        self._copied: dict[int, Copied] = {}
        """By shard, the logged rows of members who were erased since."""
        self._may_suspend = False
        """Whether facts or failures may suspend anybody: most folds have neither."""
        self.counted: frozenset[int] | None = frozenset()

        # what this fold decides
        self._suspensions: list[Suspension] = []
        """The members that this fold suspends, because a step of theirs has failed in an earlier attempt."""
        self._winners: dict[Closing, dict[int, list[Won]]] = {}
        """Winners by closing and shard, ranked by this fold."""
        self._won: list[tuple[tuple[int, int], Won]] = []
        """The winners that this fold has ranked, by (shard, seq) of the closing."""

    @abstractmethod
    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:
        """Take the reward events that the shard's last source event has brought a member."""

    def _copy(self, shard: Shard, member: Member) -> bool:
        """Copy a member's reward events from the log if they were erased since, and say whether they were."""
        copied = self._copied[shard.number]
        if member.member_id not in copied.members:
            return False
        for event_id, reward in copied.rewards.get((shard.head.seq, member.member_id), ()):
            self._take(shard, member, event_id, (reward,))
        return True

    def _judge(self, version: int) -> CompiledJudge:
        judge = self._judges.get(version)
        if judge is None:
            judge = self._judges[version] = load_judge(self._cursor, version)
        return judge

    def _fold(self, row: Logged) -> None:
        """Fold the next row of the log."""
        shard, recorded = self._shards[row.shard], row.recorded
        shard.head.seq = recorded.occurrence.seq
        shard.head.record_at(recorded.occurrence.recorded_at_ms)

        if recorded.event is not None:
            if recorded.member_id:  # a touch has none
                self._fold_event(shard, row, recorded.event)
        elif recorded.kind == "tick":
            self._tick(shard, row)
        elif recorded.kind == "activation":
            self._activate(shard, msgpack.decode(bytes(row.payload)))
        elif recorded.kind == "release":
            self._release(shard, recorded)
        elif recorded.kind == "contest":
            self._close(shard, row)

    def _fold_event(self, shard: Shard, row: Logged, event: Event) -> None:
        """Let a member's event happen to them."""
        recorded, seq = row.recorded, row.recorded.occurrence.seq
        member = shard.member(recorded.member_id)
        member.seq = seq
        judge = self._judge_now(shard, seq, row.occurred_ms)

        # note changes for the states' table
        if type(event) in _PERSONAL:
            shard.profiles.setdefault(member.member_id, member.state.profile)
        if recorded.kind == "erasure":
            member.state.erased, member.state.profile = True, None
            shard.erased.add(member.member_id)

        # copy or judge
        if self._copied[shard.number].members and self._copy(shard, member):
            member.state.due_ms = None
        else:
            self._perform(MemberStep(member, event, judge, recorded.occurrence, recorded.event_id))
        shard.plan(member)

    def _judge_now(self, shard: Shard, seq: int, occurred_ms: int) -> CompiledJudge:
        """Return the judge of a source event, and note where another version begins to judge."""
        if self._generation.file_version is not None and self._generation.is_judged_by_file(occurred_ms):
            version = self._generation.file_version
        else:
            version = shard.outside_at(seq)
        if version != shard.head.version:
            self._follow(shard, Activation(seq - 1, version, self._generation.edge_ms(version)))
        return self._judges.get(version) or self._judge(version)

    def _follow(self, shard: Shard, activation: Activation) -> None:
        """Go over to another version; the first time, ticks move members who have no event."""
        before = shard.change_version(activation)
        if before and moves_members(self._judge(before).programme, self._judge(activation.version).programme):
            shard.review(activation.at_ms + 1)

    def _perform(self, step: MemberStep[Member]) -> None:
        """Perform a step at its own place; hold the member first, if the base or an earlier attempt failed there."""
        if self._may_suspend:
            self._suspend_again(step)
        perform(step, self)

    def _suspend_again(self, step: MemberStep[Member]) -> None:
        """Suspend a member from here on, if the base did, or if the step failed in an earlier attempt."""
        member = step.member
        at = FailurePlace(member.shard, step.occurrence.seq, member.member_id)
        error = self._failures.get(at)
        if error is None and (at.seq, at.member_id) not in self._facts.held:
            return

        if not member.state.suspended_since:
            member.state.suspended_since = at.seq
        if error is not None:
            self._suspensions.append(Suspension(*at, error_line(error)))

    def _tick(self, shard: Shard, row: Logged) -> None:
        """Move the clocks of the members who are due."""
        # the members whom the log's tick moved, with those who were erased since among them
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
            else:
                self._perform(MemberStep(member, Advance(until_ms), judge, occurrence, row.recorded.event_id))
            shard.plan(member)

    def _close(self, shard: Shard, row: Logged) -> None:
        """Give the winners of a contest their prizes."""
        occurrence = row.recorded.occurrence
        judge = self._judge_now(shard, occurrence.seq, row.occurred_ms)
        for won in self._winners_in(shard, row, judge):
            member = shard.member(won.member_id)
            if not self._copy(shard, member):
                self._perform(MemberStep(member, won, judge, occurrence, row.recorded.event_id))
            shard.plan(member)

    def _winners_in(self, shard: Shard, row: Logged, judge: CompiledJudge) -> Sequence[Won]:
        """Return the winners of a contest in a shard: facts of the base, or else ranked by this fold.

        A closing has a row in every shard, all in one transaction. Members are ranked at the first of these rows; then
        all shards are in memory.
        """
        # as the base has it
        seq = row.recorded.occurrence.seq
        if self._generation.repeats:
            return self._facts.won.get(seq, ())

        # as this fold ranks
        payload = msgpack.decode(bytes(row.payload))
        closing = Closing(payload["contest"], payload["period"])
        if closing not in self._winners:
            self._winners[closing] = self._rank(judge, closing, row.occurred_ms)
        winners = self._winners[closing].get(shard.number, [])
        self._won += [((shard.number, seq), won) for won in winners]
        return winners

    def _rank(self, judge: CompiledJudge, closing: Closing, end_ms: int) -> dict[int, list[Won]]:
        """Return the winners of a period by shard; held and erased members win nothing, and the next in rank wins.

        A member who was erased since keeps the rank that the log has, under any programme.
        """
        # rank
        winners = self._copied_winners(closing)
        ended = ended_by(judge.programme, [closing], end_ms)
        if ended and ended[0].end_ms == end_ms:  # else the contest is not this programme's, or has other periods
            winners += ranked(self._scores(closing), ended[0], {won.rank for won in winners})

        # sort by shard
        by_shard: dict[int, list[Won]] = {}
        for won in sorted(winners, key=lambda won: won.rank):
            by_shard.setdefault(shard_of(won.member_id), []).append(won)
        return by_shard

    def _copied_winners(self, closing: Closing) -> list[Won]:
        """Return the winners among the members who were erased since."""
        return [
            won
            for copied in self._copied.values()
            for (_, member_id), rewards in copied.rewards.items()
            if member_id in copied.members
            for _, reward in rewards
            if reward.posting.type == "contest.won" and (won := win_of(member_id, *closing, reward)) is not None
        ]

    def _scores(self, closing: Closing) -> Iterator[tuple[str, Score]]:
        """Yield what members who may win have reached."""
        return (
            (member_id, score)
            for shard in self._shards.values()
            for member_id, member in shard.members.items()
            if not member.state.suspended_since and not member.state.erased
            for score in scores_of(member.state)
            if (score.contest, score.period) == closing
        )

    def _activate(self, shard: Shard, payload: dict[str, int | None]) -> None:
        """Let an activated version judge, outside the time that the generation's file judges."""
        seq, version = shard.head.seq, int(payload["version"] or 0)
        reached_ms = payload.get("reached_ms")
        if reached_ms is None:  # a release of the first meaning activated it
            reached_ms = source_log.latest_ms(self._cursor, shard.number, 0, seq)
        before = shard.outside_at(seq)
        if self._generation.base is None:
            shard.outside.append(Activation(seq, version, reached_ms))
        if shard.head.version == before:
            self._follow(shard, Activation(seq, shard.outside_at(seq + 1), reached_ms))

    def _release(self, shard: Shard, recorded: history.Recorded) -> None:
        """Judge what waited for a member's release, as `engine.live.release` does, if this fold holds the member."""
        member, seq = shard.member(recorded.member_id), recorded.occurrence.seq
        suspended_since = member.state.suspended_since
        member.seq = seq
        if self._copy(shard, member):
            member.state.suspended_since = suspended_since = 0

        if suspended_since and FailurePlace(shard.number, seq, member.member_id) not in self._failures:
            # read what waited
            tick_ms = history.tick_at(self._cursor, shard.number, suspended_since)
            earlier = self._history.of_member(shard.number, recorded.prev_seq, suspended_since)
            waiting = list(earlier)[::-1]

            # judge it
            member.state.suspended_since = 0
            shard.profiles.setdefault(member.member_id, member.state.profile)
            if tick_ms is not None:
                self._perform_late(member, Advance(tick_ms), recorded, suspended_since)
            for each in waiting:
                if each.event is not None:
                    self._perform_late(member, each.event, each, each.occurrence.seq)
        shard.plan(member)

    def _perform_late(self, member: Member, cause: Event | Advance, source: history.Recorded, waited_seq: int) -> None:
        """Perform at a release what has waited since `waited_seq`; its reward events name `source`."""
        shard = self._shards[member.shard]
        judge = self._judge(version_in(shard.schedule, waited_seq))
        occurrence = Occurrence(source.occurrence.identity, shard.head.seq, shard.head.recorded_ms)
        perform(MemberStep(member, cause, judge, occurrence, source.event_id, waited_seq=waited_seq), self)

    # The driver's ports

    @property
    def pages(self) -> FoldBooks:
        """Return the books, which turn the pages of full states."""
        return self._books

    def books_of(self, step: MemberStep[Member]) -> FoldBooks:
        """Return the member's books as they are known at the step's cause."""
        member, place = step.member, (step.occurrence.seq, step.event_id)
        return self._books.of(member, self._shards[member.shard].schedule, step.seq, place)

    def remember(self, step: MemberStep[Member], purchase: Purchase) -> None:
        """Remember a purchase, so that a refund soon after it needs no look-up."""
        self._books.record(purchase, step.seq)

    def bring(self, step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        """Take the reward events of a step."""
        if rewards:
            self._take(self._shards[step.member.shard], step.member, step.event_id, rewards)

    def fail(self, step: MemberStep[Member], error: Exception) -> NoReturn:
        """Let the fold begin again, with the member held; a repetition refuses to go on."""
        if not is_judging(error):
            raise error  # PostgreSQL went away while it was asked: that is nobody's fault here
        at = FailurePlace(step.member.shard, step.occurrence.seq, step.member.member_id)
        if self._generation.repeats:
            raise AnswerIsNo(
                f"shard {at.shard}, seq {at.seq}, member {at.member_id}: what was judged once cannot be judged "
                f"now ({type(error).__name__}: {error}); nothing more was written: install the release that mends it"
            ) from error
        raise Failed(at, error) from error
