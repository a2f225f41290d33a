"""Simulate on recorded events: judge the source log in memory, in its own order, and write nothing."""

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
from operations.simulate.outcome import Explained, SimulatedReward, Simulation, tier_columns
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
    """Judge all events of the source log by the programme in a file.

    Where this programme alone has judged the log, decisions across members (budgets, stock, contests) are repeated, and
    the result is what the views say. Another programme, or a release of another meaning, decides them again, in the
    log's order.

    Args:
        database_url: the address of Guerdon's database.
        programme: the file that judges.
        report: gets the number of source events that are folded, and of all.
        why: explain each event; then the reference interpreter judges, which decides the same and is slower.

    Raises:
        BadProgramme: the programme has errors.
        AnswerIsNo: the programme cannot judge this history.
    """
    loaded = load_checked(programme, str(programme))
    assert loaded.programme is not None  # it is checked
    simulation = Simulation(explained=[] if why else None, warnings=list(loaded.problems), is_moved_on=False)
    with (
        closing(
            connect(database_url, application="guerdon simulate", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
        ) as connection,
        seldom_collected(),
    ):
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection, connection.cursor() as cursor:
            # compile the programme
            file = programmes.as_stored(cursor, loaded.programme)
            generation = _generation(cursor, file, programme)
            version = programmes.number_for(cursor, file)
            upto = shadows.positions(cursor, generation.base or 0)
            judge: Any = Explainer(file, version) if why else compile_programme(file, version)

            # fold the shards one by one, or all in one order where their members share something
            is_merged = shares_anything(cursor, generation, upto, {version: judge})
            done, total = 0, sum(upto.values())
            for shards in [upto] if is_merged else [{shard: last} for shard, last in upto.items()]:
                _Simulating(cursor, generation, {version: judge}, simulation).run(shards)
                done += sum(shards.values())
                report(done, total)

            # read the codes: only the live transaction gives them
            cursor.execute("SELECT code, member_id FROM guerdon.member_code")
            simulation.codes.update(cursor.fetchall())

    simulation.recorded.sort(key=lambda each: (each.recorded_at_ms, each.shard, each.pos))
    simulation.tiers.sort(key=lambda row: str(row["member_id"]))
    return simulation


def _generation(cursor: Cursor, programme: Programme, path: Path) -> Generation:
    """Return a generation that repeats the live one, where this programme alone judged it, or else decides again."""
    base, meaning = meanings.live(cursor)
    cursor.execute(
        """
        SELECT v.digest FROM guerdon.programme_version v
        WHERE v.version IN (SELECT version FROM guerdon.generation_schedule WHERE generation = %s)
        """,
        (base,),
    )
    if cursor.fetchall() == [(programme.digest,)]:
        return Generation(0, "shadow", base, file_version=None, from_ms=None, to_ms=None, base_meaning=meaning)

    check_history(cursor, programme, path)
    version = programmes.number_for(cursor, programme)
    return Generation(0, "shadow", base, file_version=version, from_ms=None, to_ms=None, base_meaning=meaning)


class _Simulating(MemoryFold):
    """Collect the results of a fold in memory in a simulation.

    Args:
        cursor: reads the log.
        generation: says how events are judged.
        judges: the judges of versions that are not stored, or compiled already; an `Explainer` explains its decisions.
        simulation: gets the results once the shards are folded.
    """

    def __init__(
        self, cursor: Cursor, generation: Generation, judges: Mapping[int, Any], simulation: Simulation
    ) -> None:
        super().__init__(cursor, generation, judges)
        self._simulation = simulation
        self._part = Simulation()
        self._rewards: list[RewardEvent] = []
        self._row: Logged
        self._explaining = Explaining([])
        self._explainers = [judge for judge in judges.values() if isinstance(judge, Explainer)]

    def run(self, upto: Mapping[int, int], tell: Callable[[int], None] = lambda _events: None) -> None:
        """Fold the shards, and add their results to the simulation."""
        super().run(upto, tell)
        whole, part = self._simulation, self._part
        whole.recorded += part.recorded
        whole.attributions |= part.attributions
        whole.accepted += part.accepted
        whole.clock_ms = max(whole.clock_ms, part.clock_ms)
        if whole.explained is not None:
            whole.explained += part.explained or []

        # report the tier of each member
        for shard in self._shards.values():
            judge = self._judge(shard.head.version) if shard.head.version else None
            for member_id, member in shard.members.items():
                tier_report = None if judge is None else report_of(judge, member.state)
                if tier_report is not None:
                    whole.tiers.append({"member_id": member_id, **tier_columns(tier_report)})

    def _begin(self, upto: Mapping[int, int]) -> None:
        """Begin again: forget the results up to a step that could not be judged."""
        super()._begin(upto)
        explained: list[Explained] = []
        self._part = Simulation(explained=explained)
        self._explaining = Explaining(explained)

    def _fold(self, row: Logged) -> None:
        # fold the row
        recorded, part, self._row = row.recorded, self._part, row
        self._rewards = []
        self._explaining.begin(self._explainers)
        super()._fold(row)

        # note what else it tells
        part.clock_ms = max(part.clock_ms, row.occurred_ms)
        part.accepted += recorded.kind in EVENT_TYPES
        if isinstance(recorded.event, Attribution):
            part.attributions[row.shard, recorded.occurrence.seq] = recorded.event

        # explain it, whether it was judged, copied or passed over
        if recorded.event is not None and recorded.member_id:
            member = self._shards[row.shard].members[recorded.member_id]
            self._explain(heading_of(recorded.event), member, self._rewards)

    def bring(self, step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        """Take the reward events of a step, and explain a step that a tick, a contest or a release brings along."""
        super().bring(step, rewards)
        recorded = self._row.recorded
        if step.cause is recorded.event:
            return  # `_fold` explains it

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
            self._part.recorded.append(
                SimulatedReward(*place, member.member_id, event_id, head.recorded_ms, lowest, reward)
            )
