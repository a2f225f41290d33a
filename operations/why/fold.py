"""Fold a member's recorded history again, by the versions that judged it, and explain some of its steps."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import msgpack

from engine.driver import Advance, MemberStep, perform
from engine.explain.event import Explainer
from engine.explain.tier import explain_tier
from engine.ledger.contests import Won, rank_of
from engine.ledger.memory.books import MemoryBooks
from engine.ledger.memory.budgets import RecordedBudgets
from engine.ledger.ranks import report_of
from engine.programme.rules.occurrence import Occurrence
from engine.store.campaigns import budgets
from engine.store.campaigns.closings import closed_in
from engine.store.generations import live_generation
from engine.store.generations.replay_facts import redeemed_by
from engine.store.logs.history import Recorded
from engine.store.programmes import load_judge
from operations.simulate.explaining import note_lots
from operations.simulate.member import MemoryMember, MemoryPorts
from schemas.canonical import event_identity
from schemas.events import Touch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from engine.explain.event import RuleExplanation
    from engine.explain.ledger import Account
    from engine.explain.tier import TierExplanation
    from engine.ledger.books import Activation
    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from schemas.events import Event
    from schemas.rewards import RewardEvent


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """Hold one source event as it was judged again, with its explanation."""

    recorded: Recorded
    version: int
    programme: str
    at_seq: int
    """Where its reward events stand in the log."""
    occurred_ms: int
    """When it occurred; of a tick, the instant to which it moved clocks."""
    clock_ms: int
    """The member's clock before it."""
    bare: bool
    """Whether personal fields up to here were erased."""
    rules: Sequence[RuleExplanation]
    account: Account
    rewards: Sequence[RewardEvent]
    tier: TierExplanation | None


@dataclass(slots=True)
class Versions:
    """Find the programme that judged each source event of a shard."""

    cursor: Cursor
    generation: int
    shard: int
    everything: bool = False
    schedule: list[Activation] = field(init=False)
    _judges: dict[int, CompiledJudge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schedule = live_generation.schedule(self.cursor, self.generation, self.shard)

    def judge_at(self, seq: int) -> CompiledJudge:
        """Return the judge of the source event at `seq`."""
        return self.judge(live_generation.version_in(self.schedule, seq))

    def judge(self, version: int) -> CompiledJudge:
        """Return the judge of a version."""
        if version not in self._judges:
            self._judges[version] = load_judge(self.cursor, version)
        return self._judges[version]


@dataclass(frozen=True, slots=True)
class OwnStep:
    """Hold what moved a member without an event of theirs: a tick, or a contest that they won."""

    recorded: Recorded
    cause: Advance | Won


def own_steps(cursor: Cursor, generation: int, shard: int, member_id: str) -> list[OwnStep]:
    """Return the ticks and contests that brought a member reward events, in order: these are their only trace."""
    # find them by the member's reward events
    cursor.execute(
        """
        WITH own AS MATERIALIZED (
            SELECT seq, type, item, reason, amount, occurred_at FROM guerdon.reward_event
            WHERE generation = %(generation)s AND shard = %(shard)s AND member_id = %(member)s
        )
        SELECT e.seq, e.kind::text, e.event_id, guerdon.ms(e.recorded_at), guerdon.ms(e.occurred_at), e.payload,
               w.item, w.reason, w.amount, guerdon.ms(w.occurred_at)
        FROM (SELECT DISTINCT seq FROM own) s
        JOIN guerdon.source_event e ON e.shard = %(shard)s AND e.seq = s.seq
        LEFT JOIN own w ON w.seq = s.seq AND w.type = 'contest.won'
        WHERE e.kind IN ('tick', 'contest')
        ORDER BY e.seq
        """,
        {"generation": generation, "shard": shard, "member": member_id},
    )

    # a contest has given a prize, a tick has moved the clock
    steps = []
    for seq, kind, event_id, recorded_ms, occurred_ms, payload, item, reason, amount, end_ms in cursor.fetchall():
        cause: Advance | Won = Advance(occurred_ms)
        if item is not None:
            period = int(msgpack.decode(bytes(payload))["period"])
            cause = Won(member_id, item, period, end_ms, rank=rank_of(reason), value=amount)
        steps.append(_Row(seq, event_id, recorded_ms, occurred_ms).step(member_id, kind, cause))
    return steps


class _Row(NamedTuple):
    """Hold a tick or a contest as the source log has it."""

    seq: int
    event_id: str
    recorded_ms: int
    occurred_ms: int

    def step(self, member_id: str, kind: str, cause: Advance | Won) -> OwnStep:
        """Return what it did to a member."""
        occurrence = Occurrence(event_identity("guerdon", self.event_id), self.seq, self.recorded_ms)
        return OwnStep(Recorded(kind, member_id, self.event_id, prev_seq=0, event=None, occurrence=occurrence), cause)


class Ticks:
    """Find the ticks of a shard that moved a member's clock and gave nothing: no reward event leads to them.

    Args:
        cursor: reads the log, once, when the first is looked for.
        shard: the shard of the member.
        member_id: the member whose clock they moved.
    """

    def __init__(self, cursor: Cursor, shard: int, member_id: str) -> None:
        self._cursor = cursor
        self._shard = shard
        self._member_id = member_id
        self._rows: list[_Row] | None = None

    def next(self, after_seq: int, before_seq: int, due_ms: int) -> OwnStep | None:
        """Return the first tick between two places of the shard that reaches an instant, or None."""
        if self._rows is None:
            self._rows = self._read()
        for place in range(bisect_right(self._rows, after_seq, key=attrgetter("seq")), len(self._rows)):
            row = self._rows[place]
            if row.seq >= before_seq:
                break
            if row.occurred_ms >= due_ms:
                return row.step(self._member_id, "tick", Advance(row.occurred_ms))
        return None

    def _read(self) -> list[_Row]:
        self._cursor.execute(
            """
            SELECT seq, event_id, guerdon.ms(recorded_at), guerdon.ms(occurred_at) FROM guerdon.source_event
            WHERE shard = %s AND kind = 'tick' ORDER BY seq
            """,
            (self._shard,),
        )
        return [_Row(*row) for row in self._cursor.fetchall()]


class HistoryFold(MemoryPorts):
    """Fold a member's history, and explain the source events at the seqs `wanted`.

    The compiled programme judges all others: it decides the same, and folds a long history quickly. A fold of one
    member cannot know how much of budgets and stock other members had left. So the log says where a budget had too
    little, and how redemptions ended.

    Args:
        cursor: reads the log.
        versions: says which version judged each source event.
        member_id: the owner of the history; "" for a touch, which has no member.
        held: the seqs at which the member was held.
        wanted: the seqs of the source events to explain.
        counted: the generations towards which adjustments count.
    """

    def __init__(
        self,
        cursor: Cursor,
        versions: Versions,
        member_id: str,
        *,
        held: frozenset[int],
        wanted: frozenset[int],
        counted: frozenset[int],
    ) -> None:
        generation, shard = versions.generation, versions.shard
        self.counted = counted
        self._versions = versions
        self._held, self._wanted = held, wanted

        # the member, with books that answer from the records
        books = MemoryBooks(
            versions.judge,
            budgets=RecordedBudgets(budgets.recorded_of(cursor, generation, shard, member_id)),
            closed=closed_in(cursor, shard),
            redeemed=redeemed_by(cursor, generation, shard, member_id),
            schedule=versions.schedule,
        )
        self._member = MemoryMember(member_id, books)
        self._ticks = Ticks(cursor, shard, member_id)
        self._seq = 0

        # what comes of it
        self._bare = False
        self._came: dict[bytes, str] = {}
        self._rewards: Sequence[RewardEvent] | None = None
        self.explained: dict[int, ExplainedStep] = {}

    def run(self, history: Iterable[Recorded], steps: Iterable[OwnStep]) -> dict[int, ExplainedStep]:
        """Fold a member's source events in order, with the ticks and contests among them; return the explained ones.

        Where the member was held, their events wait for the `release`, and are judged there as `engine.live.release`
        did: in order, each by the version of its own place. An event that still waits is not among the results.
        """
        released_seq = 0
        waiting: list[Recorded] = []
        each: Recorded | OwnStep
        both: Iterator[Recorded | OwnStep] = merge(history, steps, key=_seq_of)
        for each in both:
            if not waiting:
                self._move_by_ticks(_seq_of(each))
            self._seq = _seq_of(each)
            if isinstance(each, OwnStep):
                self._perform(each.cause, each.recorded, each.recorded.occurrence)
                continue

            self._bare = self._bare or each.bare
            seq, recorded_ms = each.occurrence.seq, each.occurrence.recorded_at_ms
            if each.kind == "release":
                released_seq = seq
                for waited in waiting:
                    self._judge(waited, Occurrence(waited.occurrence.identity, seq, recorded_ms))
                waiting = []
            elif any(released_seq < held_seq <= seq for held_seq in self._held):
                waiting.append(each)
            else:
                self._judge(each, each.occurrence)

            if len(self.explained) == len(self._wanted):
                break
        return self.explained

    def _move_by_ticks(self, before_seq: int) -> None:
        """Let the ticks before a place of the shard move the member's clock where the member was due."""
        state = self._member.state
        while state.due_ms is not None:
            tick = self._ticks.next(self._seq, before_seq, state.due_ms)
            if tick is None:
                return
            self._seq = tick.recorded.occurrence.seq
            self._perform(tick.cause, tick.recorded, tick.recorded.occurrence)

    def _judge(self, recorded: Recorded, occurrence: Occurrence) -> None:
        if recorded.event is not None:
            self._perform(recorded.event, recorded, occurrence)

    def _perform(self, cause: Event | Advance | Won, recorded: Recorded, occurrence: Occurrence) -> None:
        """Perform a recorded step; `occurrence` is where its reward events stand in the log."""
        # the compiled programme judges, or one that explains, if an explanation is wanted
        seq, member = recorded.occurrence.seq, self._member
        compiled = self._versions.judge_at(seq)
        judge: CompiledJudge | Explainer = compiled
        if seq in self._wanted:
            judge = Explainer(compiled.programme, compiled.version, everything=self._versions.everything)

        # perform it
        clock_ms = member.state.clock_ms
        self._rewards = None
        if isinstance(cause, Touch):
            self._rewards = ()  # it has no member, so nothing is judged
        else:
            waited_seq = seq if seq != occurrence.seq else 0
            perform(MemberStep(member, cause, judge, occurrence, recorded.event_id, waited_seq=waited_seq), self)
        if self._rewards is None:
            return  # it was passed over

        # keep the explanation, and which lots came of it
        if isinstance(judge, Explainer):
            self.explained[seq] = ExplainedStep(
                recorded,
                version=compiled.version,
                programme=compiled.programme.id,
                at_seq=occurrence.seq,
                occurred_ms=_occurred_ms(cause),
                clock_ms=clock_ms,
                bare=self._bare,
                rules=judge.explained,
                account=judge.account(self._rewards, self._came),
                rewards=tuple(self._rewards),
                tier=explain_tier(compiled.programme, report_of(compiled, member.state)),
            )
        note_lots(self._came, recorded.event_id, self._rewards)

    def books_of(self, step: MemberStep[MemoryMember]) -> MemoryBooks:
        """Return the member's books as they were at the step's place: later activations have not happened."""
        step.member.books.upto_seq = step.seq
        return step.member.books

    def bring(self, _step: MemberStep[MemoryMember], rewards: Sequence[RewardEvent]) -> None:
        """Keep the reward events for the explanation."""
        self._rewards = rewards


def _seq_of(each: Any) -> int:
    return int((each.recorded if isinstance(each, OwnStep) else each).occurrence.seq)


def _occurred_ms(cause: Event | Advance | Won) -> int:
    if isinstance(cause, Advance):
        return cause.until_ms
    return cause.end_ms if isinstance(cause, Won) else cause.occurred_at
