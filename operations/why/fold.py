"""Fold a member's recorded history again, by the versions that judged it, and explain some steps of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import merge
from typing import TYPE_CHECKING, Any

from msgspec import msgpack

from engine.evaluate import advance, award, fold
from engine.explain.event import Explainer
from engine.explain.tier import explain_tier
from engine.ledger.contests import Won, rank_of
from engine.ledger.memory.books import MemoryBooks
from engine.ledger.memory.budgets import RecordedBudgets
from engine.ledger.ranks import report_of
from engine.member.state import MemberState
from engine.programme.rules.occurrence import Occurrence
from engine.store.campaigns import budgets
from engine.store.campaigns.closings import closed_in
from engine.store.generations import live_generation
from engine.store.generations.replay_facts import redeemed_by
from engine.store.logs.history import Recorded
from engine.store.programmes import load_judge
from operations.simulate.explaining import note_lots
from schemas.canonical import event_identity
from schemas.events import Purchase, Touch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from engine.explain.event import RuleExplanation
    from engine.explain.ledger import Account
    from engine.explain.tier import TierExplanation
    from engine.ledger.books import Activation
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.rules.judge import Judge
    from engine.store.cursor import Cursor
    from schemas.rewards import RewardEvent

    Judging = Callable[[Judge], Sequence[RewardEvent]]


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold one source event as it was judged again; `at_seq` is where its reward events stand in the log.

    `occurred_ms` is when it occurred, of a tick how far it moved clocks, and `clock_ms` how far the member's clock was
    before it; `bare` says that personal fields up to here were erased.
    """

    recorded: Recorded
    version: int
    programme: str
    at_seq: int
    occurred_ms: int
    clock_ms: int
    bare: bool
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
    """Hold what moved a member without an event of theirs: a tick up to an instant, or a contest that they won."""

    recorded: Recorded
    until_ms: int
    won: Won | None = None


def own_steps(cursor: Cursor, generation: int, shard: int, member_id: str) -> list[OwnStep]:
    """Return the ticks and contests that brought a member reward events, in their order: they have no other trace."""
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
    steps = []
    for seq, kind, event_id, recorded_ms, until_ms, payload, item, reason, amount, end_ms in cursor.fetchall():
        won = None
        if item is not None:
            period = int(msgpack.decode(bytes(payload))["period"])
            won = Won(member_id, item, period, end_ms, rank_of(reason), amount)
        occurrence = Occurrence(event_identity("guerdon", event_id), seq, recorded_ms)
        steps.append(OwnStep(Recorded(kind, member_id, event_id, 0, None, occurrence), until_ms, won))
    return steps


class HistoryFold:
    """Fold a member's history, and explain the source events at the seqs `wanted`.

    All others are judged by the compiled programme: it decides the same, and a long history is soon folded. What other
    members had left of budgets and stock no fold of one member can know: where a budget had too little, and what became
    of redemptions, is read from what was recorded.

    Args:
        cursor: reads what was recorded.
        versions: who judged what.
        member_id: whose history it is, "" for a touch, which is nobody's.
        held: at which seqs the member was held.
        wanted: what is explained.
    """

    def __init__(
        self, cursor: Cursor, versions: Versions, member_id: str, held: frozenset[int], wanted: frozenset[int]
    ) -> None:
        generation, shard = versions.generation, versions.shard
        self._versions = versions
        self._member_id = member_id
        self._held, self._wanted = held, wanted
        self._state = MemberState()
        self._books = MemoryBooks(
            versions.judge,
            budgets=RecordedBudgets(budgets.recorded_of(cursor, generation, shard, member_id)),
            closed=closed_in(cursor, shard),
            redeemed=redeemed_by(cursor, generation, shard, member_id),
            schedule=versions.schedule,
        )
        self._bare = False
        self._came: dict[bytes, str] = {}
        self.told: dict[int, Judged] = {}

    def run(self, history: Iterable[Recorded], steps: Iterable[OwnStep]) -> dict[int, Judged]:
        """Fold a member's source events, the earliest first, with what moved them beside those.

        A member who was held, by an event of theirs or by a tick, is judged on from their `release`, as
        `engine.live.release` did: in order, each event by the version of its own place. An event that still
        waits is not in what is returned.
        """
        released_seq = 0
        waiting: list[Recorded] = []
        each: Recorded | OwnStep
        both: Iterator[Recorded | OwnStep] = merge(history, steps, key=_seq_of)
        for each in both:
            if isinstance(each, OwnStep):
                self._move(each)
            elif each.kind == "release":
                self._bare = self._bare or each.bare
                released_seq = each.occurrence.seq
                for waited in waiting:
                    self._judge(
                        waited, Occurrence(waited.occurrence.identity, released_seq, each.occurrence.recorded_at_ms)
                    )
                waiting = []
            elif any(released_seq < seq <= each.occurrence.seq for seq in self._held):
                self._bare = self._bare or each.bare
                waiting.append(each)
            else:
                self._bare = self._bare or each.bare
                self._judge(each, each.occurrence)
            if len(self.told) == len(self._wanted):
                break
        return self.told

    def _judge(self, recorded: Recorded, occurrence: Occurrence) -> None:
        """Judge one event by the version of its own place, at the place where its reward events stand."""
        event: Any = recorded.event
        if event is None:
            return
        compiled = self._judge_at(recorded.occurrence.seq)
        if isinstance(event, Purchase):
            self._books.record(event, compiled.version)
        state, books = self._state, self._books

        def judged(judge: Judge) -> Sequence[RewardEvent]:
            return () if isinstance(event, Touch) else fold(state, event, occurrence, judge, books)

        self._take(recorded, (occurrence.seq, event.occurred_at), compiled, judged)

    def _move(self, step: OwnStep) -> None:
        """Move the member's clock as a tick did, or let them have what they won."""
        occurrence = step.recorded.occurrence
        compiled = self._judge_at(occurrence.seq)
        state, books, won = self._state, self._books, step.won

        def moved(judge: Judge) -> Sequence[RewardEvent]:
            if won is None:
                return advance(self._member_id, state, occurrence, judge, books, step.until_ms)
            return award(self._member_id, state, occurrence, judge, books, won)

        self._take(step.recorded, (occurrence.seq, step.until_ms), compiled, moved)

    def _judge_at(self, seq: int) -> CompiledJudge:
        """Return who judges at a place of the shard; activations before it have been."""
        self._books.upto_seq = seq
        return self._versions.judge_at(seq)

    def _take(self, recorded: Recorded, place: tuple[int, int], compiled: CompiledJudge, judging: Judging) -> None:
        """Judge by the compiled programme, or where it is wanted by one that explains, and note what lots came.

        `place` is the seq at which reward events stand, and when it occurred.
        """
        if recorded.occurrence.seq not in self._wanted:
            note_lots(self._came, recorded.event_id, judging(compiled))
            return
        explainer = Explainer(compiled.programme, compiled.version, everything=self._versions.everything)
        clock_ms = self._state.clock_ms
        rewards = judging(explainer)
        self.told[recorded.occurrence.seq] = Judged(
            recorded, compiled.version, compiled.programme.id, *place, clock_ms, self._bare,
            explainer.explained, explainer.account(rewards, self._came), tuple(rewards),
            explain_tier(compiled.programme, report_of(compiled, self._state)),
        )  # fmt: skip
        note_lots(self._came, recorded.event_id, rewards)


def _seq_of(each: Any) -> int:
    return int((each.recorded if isinstance(each, OwnStep) else each).occurrence.seq)
