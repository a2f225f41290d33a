"""Simulate on what is recorded: judge the source log in memory, in the order that counts, and write nothing."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from engine.driver import Advance
from engine.explain.event import Explainer
from engine.history.memory_fold import MemoryFold
from engine.history.replay import shares_anything
from engine.intake.own_events import Attribution
from engine.ledger.contests import Won
from engine.ledger.ranks import report_of
from engine.programme.compile.module import compile_programme
from engine.store import programmes
from engine.store.database import NO_LIMIT, connect
from engine.store.generations import meanings, shadows
from engine.store.generations.generation import Generation
from operations.replay.run import check_history
from operations.replay.shard_pool import seldom_collected
from operations.simulate.explaining import Explaining, Heading, heading_of
from operations.simulate.outcome import Explained, Recorded, Simulation, told
from operations.simulate.run import load_checked
from schemas.events import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from engine.driver import MemberStep
    from engine.programme.model import Programme
    from engine.store.cursor import Cursor
    from engine.store.generations.shadow_states import Shard
    from engine.store.logs.history import Logged
    from engine.store.members.member_states import Member
    from schemas.rewards import RewardEvent


def simulate_log(
    database_url: str,
    programme: Path,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    why: bool = False,
) -> Simulation:
    """Judge all events of the source log by the programme in a file, as they are recorded.

    Where the file is what has judged the log all the time, what was decided across members (budgets, stock, contests)
    is repeated, and the result is what the views say. Another file, or a release of another meaning, decides that for
    itself, in the log's order.

    Args:
        database_url: of Guerdon's database.
        programme: the file that judges.
        report: is told how many source events are folded, of how many.
        why: explain each event; the reference interpreter then judges, which decides the same and is slower.

    Raises:
        BadProgramme: the programme has errors.
        AnswerIsNo: this history cannot be judged by it.
    """
    loaded = load_checked(programme, str(programme))
    assert loaded.programme is not None  # noqa: S101  it is checked
    simulation = Simulation(explained=[] if why else None, warnings=list(loaded.problems), is_moved_on=False)
    with (
        closing(
            connect(database_url, application="guerdon simulate", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
        ) as connection,
        seldom_collected(),
    ):
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection, connection.cursor() as cursor:
            generation = _generation(cursor, loaded.programme, programme)
            version = programmes.number_for(cursor, loaded.programme)
            upto = shadows.positions(cursor, generation.base or 0)
            judge: Any = Explainer(loaded.programme, version) if why else compile_programme(loaded.programme, version)
            is_merged = shares_anything(cursor, generation, upto, {version: judge})
            done, total = 0, sum(upto.values())
            for shards in [upto] if is_merged else [{shard: last} for shard, last in upto.items()]:
                _Simulating(cursor, generation, {version: judge}, simulation).run(shards)
                done += sum(shards.values())
                report(done, total)
            cursor.execute("SELECT code, member_id FROM guerdon.member_code")
            simulation.codes.update(cursor.fetchall())
    simulation.recorded.sort(key=lambda each: (each.recorded_at_ms, each.shard, each.pos))
    simulation.tiers.sort(key=lambda row: str(row["member_id"]))
    return simulation


def _generation(cursor: Cursor, programme: Programme, path: Path) -> Generation:
    """Return how the log is judged: as it was, where nothing else than this programme ever judged it."""
    base, meaning = meanings.live(cursor)
    cursor.execute(
        """
        SELECT v.digest FROM guerdon.programme_version v
        WHERE v.version IN (SELECT version FROM guerdon.generation_schedule WHERE generation = %s)
        """,
        (base,),
    )
    if cursor.fetchall() == [(programme.digest,)]:
        return Generation(0, "shadow", base, None, None, None, base_meaning=meaning)
    check_history(cursor, programme, path)
    return Generation(0, "shadow", base, programmes.number_for(cursor, programme), None, None, base_meaning=meaning)


class _Simulating(MemoryFold):
    """Put what a fold in memory brings into a simulation."""

    def __init__(
        self, cursor: Cursor, generation: Generation, judges: Mapping[int, Any], simulation: Simulation
    ) -> None:
        super().__init__(cursor, generation, judges)
        self._simulation = simulation
        self._found = Simulation()
        self._rewards: list[RewardEvent] = []
        self._row: Logged
        self._explaining = Explaining([])
        self._explainers = [judge for judge in judges.values() if isinstance(judge, Explainer)]

    def run(self, upto: Mapping[int, int], tell: Callable[[int], None] = lambda _events: None) -> None:
        """Fold the shards, and report the tier of each of their members."""
        super().run(upto, tell)
        whole, found = self._simulation, self._found
        whole.recorded += found.recorded
        whole.attributions |= found.attributions
        whole.accepted += found.accepted
        whole.clock_ms = max(whole.clock_ms, found.clock_ms)
        if whole.explained is not None:
            whole.explained += found.explained or []
        for shard in self._shards.values():
            judge = self._judge(shard.head.version) if shard.head.version else None
            for member_id, member in shard.members.items():
                tier_report = None if judge is None else report_of(judge, member.state)
                if tier_report is not None:
                    whole.tiers.append({"member_id": member_id, **told(tier_report)})

    def _begin(self, upto: Mapping[int, int]) -> None:
        """Begin anew, and forget what these shards have brought before a member could not be judged."""
        super()._begin(upto)
        explained: list[Explained] = []
        self._found = Simulation(explained=explained)
        self._explaining = Explaining(explained)

    def _fold(self, row: Logged) -> None:
        recorded, found, self._row = row.recorded, self._found, row
        self._rewards = []
        self._explaining.begin(self._explainers)
        super()._fold(row)
        found.clock_ms = max(found.clock_ms, row.occurred_ms)
        found.accepted += recorded.kind in EVENT_TYPES
        if isinstance(recorded.event, Attribution):
            found.attributions[row.shard, recorded.occurrence.seq] = recorded.event
        if recorded.event is not None and recorded.member_id:
            member = self._shards[row.shard].members[recorded.member_id]
            self._explain(heading_of(recorded.event), member, self._rewards)

    def bring(self, step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        """Explain at once what comes of a row that is not the member's own: a tick, a contest, a release."""
        super().bring(step, rewards)
        recorded = self._row.recorded
        if step.cause is recorded.event:
            return  # explained with its row, whether it was judged or not
        if isinstance(step.cause, Advance | Won):
            member_id = step.member.member_id
            heading = Heading(step.event_id, "guerdon", recorded.kind, member_id, self._row.occurred_ms)
        else:
            heading = heading_of(step.cause)
        self._explain(heading, step.member, rewards)
        self._explaining.begin(self._explainers)

    def _explain(self, heading: Heading, member: Member, rewards: Sequence[RewardEvent]) -> None:
        head = self._shards[member.shard].head
        judge = self._judge(head.version) if head.version else None
        self._explaining.tell(judge, heading, member.state, rewards)

    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:
        head = shard.head
        lowest = self._judge(head.version).programme.lowest_tier if head.version else None
        self._rewards += rewards
        for reward in rewards:
            head.pos += 1
            place = (shard.number, head.pos, head.seq)
            self._found.recorded.append(Recorded(*place, member.member_id, event_id, head.recorded_ms, lowest, reward))
