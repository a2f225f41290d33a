"""Simulate: judge files of events in memory, with the evaluator of the worker and no services.

The order of the lines is the recorded order. There is no wall clock: no event is from the future, and each is
recorded at the latest time of the events so far.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.driver import Advance, MemberStep, perform
from engine.explain.event import Explainer
from engine.intake import admit
from engine.intake.own_events import Attribution
from engine.ledger.books import Activation
from engine.ledger.contests import Won
from engine.ledger.memory.books import MemoryBooks
from engine.ledger.memory.budgets import MemoryBudgets
from engine.live.conflicts import is_same_order, other_event, other_order
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_file, refused
from engine.programme.file.problems import unusable
from engine.programme.rules.occurrence import Occurrence
from operations.simulate.contests import LATENESS_MS, SimulatedContests
from operations.simulate.event_lines import activation_in, event_id_in, read_lines, tick_in
from operations.simulate.explaining import Explaining, Heading, heading_of
from operations.simulate.member import MemoryMember, MemoryPorts
from operations.simulate.outcome import Quarantined, SimulatedReward, Simulation, tier_columns
from operations.simulate.referrals import SimulatedReferrals
from schemas.canonical import content_digest, event_identity
from schemas.errors import InputError
from schemas.events import Purchase, key_of
from schemas.json_events import decode_json
from schemas.partitioning import SHARDS, shard_of
from schemas.rejection import Reason, Rejected
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.programme.file.load import Loaded
    from engine.programme.file.problems import Problem
    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge
    from operations.simulate.event_lines import Line
    from operations.simulate.referrals import Own
    from schemas.events import Event
    from schemas.rewards import RewardEvent

_SECRET = b"guerdon simulate"
"""Digests are compared only within one run, so any fixed key will do."""

YEAR_MS = 365 * 86_400_000
LEAP_MS = 10 * YEAR_MS


class BadProgramme(InputError):
    """Say that a programme file has errors, and carry all problems."""

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(unusable(file, problems, "correct the file and run the command again"))
        self.problems = problems


def simulate(
    programme: Path, events: Iterable[Path | str], until_ms: int | None = None, *, why: bool = False
) -> Simulation:
    """Judge the events of JSON lines files, one file after the other, by the programme in `programme`.

    Args:
        programme: the file that judges from the first event on.
        events: files of JSON lines, "-" for standard input; an activation line in them changes the programme.
        until_ms: where the clock stands at the end, if that is after the last event.
        why: explain each event; then the reference interpreter judges, which decides the same and is slower.

    Raises:
        BadProgramme: a programme has errors.
        InputError: a file cannot be read, or an activation cannot be followed.
    """
    return simulate_lines(programme, read_lines(events), until_ms, why=why)


def simulate_lines(
    programme: Path | Programme,
    lines: Iterable[Line],
    until_ms: int | None = None,
    *,
    why: bool = False,
    others: Mapping[str, Loaded] | None = None,
) -> Simulation:
    """Judge lines by a checked programme, or by the one in a file; see `simulate`.

    `others` are checked programmes by the names that activation lines use for them; any other name is that of a file.
    """
    simulator = _Simulator(programme, others or {}, why=why)
    for line in lines:
        simulator.take(line)
    simulator.move_clocks(max(simulator.simulation.clock_ms, until_ms or 0))
    return simulator.finished()


class _Simulator(MemoryPorts):
    """Take lines one by one, as the worker takes events.

    Args:
        programme: judges from the first event on: checked, or in a file.
        others: checked programmes that activation lines name.
        why: explain each event.
    """

    def __init__(self, programme: Path | Programme, others: Mapping[str, Loaded], *, why: bool) -> None:
        self._others = others
        self.simulation = Simulation(explained=[] if why else None)
        self._explaining = Explaining([] if self.simulation.explained is None else self.simulation.explained)

        # the contents of the logs: ends of each shard, members, and the identities that expose duplicates
        self._seqs = [0] * SHARDS
        self._positions = [0] * SHARDS
        self._members: dict[str, MemoryMember] = {}
        self._digests: dict[bytes, bytes] = {}
        self._orders: dict[tuple[str, str], Purchase] = {}

        # what members share
        self._stock: dict[str, int] = {}
        self._budgets = MemoryBudgets()
        self._contests = SimulatedContests()
        self._referrals = SimulatedReferrals(_SECRET, self.simulation.codes)

        # who judges
        self._version = 0
        self._judges: dict[int, Judge] = {}
        self._schedule: list[Activation] = []
        checked = self._loaded(programme, str(programme)) if isinstance(programme, Path) else programme
        self._judge = self._activate(checked)

    def take(self, line: Line) -> None:
        """Judge an event or set it aside, move the clocks, or change the programme."""
        # lines that are no events
        name = activation_in(line)
        if name is not None:
            self._change_programme(name, line)
            return
        until_ms = tick_in(line)
        if until_ms is not None:
            self.move_clocks(until_ms)
            return

        # events
        try:
            event = decode_json(line.text)
            admit.check(event, currency=self._judge.programme.currency, latest_ms=None)
            self._note_leap(event, line)
            self._admit(event)
        except Rejected as rejected:
            event_id = event_id_in(line.text)
            self.simulation.quarantined.append(
                Quarantined(event_id, rejected.reason, rejected.message, line.file, line.number)
            )

    def _note_leap(self, event: Event, line: Line) -> None:
        """Warn of an event that comes years after all before it: it lets everything in between happen at once."""
        before_ms = self.simulation.clock_ms
        if before_ms and event.occurred_at - before_ms > LEAP_MS:
            self.simulation.leaps.append(
                f"{line.file}:{line.number}: warning: this event is dated {iso_from_instant(event.occurred_at)}, "
                f"{(event.occurred_at - before_ms) // YEAR_MS} years after all before it, and moves every clock on to "
                "it; correct its time if that is not meant"
            )

    def _admit(self, event: Event) -> None:
        """Drop a duplicate, refuse a conflict, record and judge every other event."""
        # what is not recorded
        identity = event_identity(event.source, event.event_id)
        if self._is_duplicate(event, identity):
            self.simulation.duplicates += 1
            return
        member_id: str | None = getattr(event, "member_id", None)  # a touch has none
        if member_id in self._members and self._members[member_id].state.erased:
            raise Rejected(Reason.MEMBER_ERASED, "the member asked for erasure; nothing more is kept of them")

        # what comes before it: contests that have ended, and Guerdon's events on referrals
        programme = self._judge.programme
        self._close_contests(max(event.occurred_at, self.simulation.clock_ms) - LATENESS_MS)
        self._take_own(self._referrals.before(event, programme))

        # the event, and the events that follow from it
        occurrence = self._record(event, identity)
        if member_id is not None:
            self._perform(self._member(member_id), event, occurrence, event.event_id)
        self._take_own(self._referrals.after(event, programme))

    def _take_own(self, events: Iterable[Own]) -> None:
        """Record and judge events that Guerdon itself writes of referrals, each in the shard of its member."""
        for event in events:
            # record it
            shard = shard_of(event.member_id)
            self._seqs[shard] += 1
            identity = event_identity(event.source, event.event_id)
            occurrence = Occurrence(identity, self._seqs[shard], max(self.simulation.clock_ms, event.occurred_at))

            # judge it
            if isinstance(event, Attribution):
                self.simulation.attributions[shard, self._seqs[shard]] = event
            self._perform(self._member(event.member_id), event, occurrence, event.event_id)

    def _is_duplicate(self, event: Event, identity: bytes) -> bool:
        """Whether the same event, or the same order under another event_id, came before.

        Raises:
            Rejected: id_conflict, where it came with other content.
        """
        # the same event
        digest = self._digests.get(identity)
        if digest is not None:
            if digest == content_digest(event, _SECRET):
                return True
            raise Rejected(Reason.ID_CONFLICT, other_event(event))

        # the same order
        if not isinstance(event, Purchase):
            return False
        earlier = self._orders.get((event.member_id, event.order_id))
        if earlier is not None and not is_same_order(earlier, event):
            raise Rejected(Reason.ID_CONFLICT, other_order(earlier, event))
        return earlier is not None

    def _record(self, event: Event, identity: bytes) -> Occurrence:
        """Give the event its place in the log, and remember it, so that a duplicate is known."""
        simulation = self.simulation
        simulation.accepted += 1
        simulation.clock_ms = max(simulation.clock_ms, event.occurred_at)
        self._digests[identity] = content_digest(event, _SECRET)
        if isinstance(event, Purchase):
            self._orders[event.member_id, event.order_id] = event
        shard = shard_of(key_of(event))
        self._seqs[shard] += 1
        return Occurrence(identity, self._seqs[shard], simulation.clock_ms)

    def _member(self, member_id: str) -> MemoryMember:
        """Return a member, with books made now where they are new."""
        member = self._members.get(member_id)
        if member is None:
            books = MemoryBooks(
                self._judges.__getitem__, self._stock, self._budgets, self._contests.closed[shard_of(member_id)],
                schedule=self._schedule,
            )  # fmt: skip
            member = self._members[member_id] = MemoryMember(member_id, books)
        return member

    def _perform(
        self, member: MemoryMember, cause: Event | Own | Advance | Won, occurrence: Occurrence, event_id: str
    ) -> None:
        """Perform what happens to a member: an event, a tick, or a prize in a contest."""
        self._explaining.begin(self._judges.values())
        perform(MemberStep(member, cause, self._judge, occurrence, event_id), self)

    def bring(self, step: MemberStep[MemoryMember], rewards: Sequence[RewardEvent]) -> None:
        """Record the reward events of a step, and explain it."""
        member, occurrence = step.member, step.occurrence
        self._explaining.tell(self._judge, _heading_of(step), member.state, rewards)
        shard, lowest = shard_of(member.member_id), self._judge.programme.lowest_tier
        for reward in rewards:
            self._positions[shard] += 1
            place = (shard, self._positions[shard], occurrence.seq)
            recorded = SimulatedReward(
                *place, member.member_id, step.event_id, occurrence.recorded_at_ms, lowest, reward
            )
            self.simulation.recorded.append(recorded)

    def finished(self) -> Simulation:
        """Return the results of the run, with the tier of each member."""
        clock, at_ms = self._judge.tier_clock, self.simulation.clock_ms
        if clock is not None:
            for member_id, member in sorted(self._members.items()):
                state = member.state
                if not state.erased:
                    row = clock.report(state.tier_state, at_ms, state.first_ms)
                    self.simulation.tiers.append({"member_id": member_id, **tier_columns(row)})
        return self.simulation

    def move_clocks(self, until_ms: int) -> None:
        """Move every member's clock on to an instant, as ticks do, in the order of due times."""
        self.simulation.clock_ms = max(self.simulation.clock_ms, until_ms)

        # a tick in every shard
        self._seqs = [seq + 1 for seq in self._seqs]
        event_id = f"tick-{iso_from_instant(until_ms)}"
        identity = event_identity("guerdon", event_id)
        for member in sorted(self._members.values(), key=lambda member: (member.state.due_ms or 0, member.member_id)):
            seq = self._seqs[shard_of(member.member_id)]
            self._perform(member, Advance(until_ms), Occurrence(identity, seq, self.simulation.clock_ms), event_id)

        # signups that waited long enough, and contests that have ended
        self._take_own(self._referrals.decide_waiting(until_ms, self._judge.programme))
        self._close_contests(until_ms)

    def _close_contests(self, until_ms: int) -> None:
        """Close contests that have ended by an instant; each closing is a source event of every shard."""
        for ended in self._contests.ended(self._judge.programme, self._members, until_ms):
            self._seqs = [seq + 1 for seq in self._seqs]
            event_id = f"contest-{ended.contest.id}-{ended.period}"
            identity = event_identity("guerdon", event_id)
            for won in self._contests.close(ended, self._members, self._seqs):
                seq = self._seqs[shard_of(won.member_id)]
                occurrence = Occurrence(identity, seq, self.simulation.clock_ms)
                self._perform(self._members[won.member_id], won, occurrence, event_id)

    def _change_programme(self, name: str, line: Line) -> None:
        """Follow an activation line."""
        # read the programme
        before = self._judge.programme
        path = (Path() if line.file == "-" else Path(line.file).parent) / name
        if name in self._others:
            programme = self._noted(self._others[name])
        else:
            programme = self._loaded(path, f"{path} (activated in {line.file}:{line.number})")

        # check it against the one before, and activate it
        if programme.currency != before.currency:
            raise InputError(
                f"{line.file}:{line.number}: {path} counts in {programme.currency} and the events so far in "
                f"{before.currency}; a programme keeps its currency, so simulate them apart"
            )
        if programme.digest != before.digest:
            self._judge = self._activate(programme)

    def _activate(self, programme: Programme) -> Judge:
        """Judge by `programme` from here on; the activation is a source event of every shard, as in the worker.

        The version before still decides what was due by the latest event or tick so far.
        """
        self._version += 1
        self._seqs = [seq + 1 for seq in self._seqs]
        judge: Judge = compile_programme(programme, self._version)
        if self.simulation.explained is not None:
            judge = Explainer(programme, self._version)
        self._judges[self._version] = judge
        self._schedule.append(Activation(0, self._version, self.simulation.clock_ms))
        return judge

    def _loaded(self, path: Path, name: str) -> Programme:
        return self._noted(load_checked(path, name))

    def _noted(self, loaded: Loaded) -> Programme:
        """Return a checked programme, with its warnings noted."""
        assert loaded.programme is not None  # it is checked
        warnings = self.simulation.warnings
        warnings += [problem for problem in loaded.problems if problem not in warnings]
        return loaded.programme


def _heading_of(step: MemberStep[MemoryMember]) -> Heading:
    """Return the heading of an event: an event, a tick, or a contest that was won."""
    cause, member_id = step.cause, step.member.member_id
    if isinstance(cause, Advance):
        return Heading(step.event_id, "guerdon", "tick", member_id, cause.until_ms)
    if isinstance(cause, Won):
        return Heading(step.event_id, "guerdon", "contest", member_id, cause.end_ms)
    return heading_of(cause)


def load_checked(path: Path, name: str) -> Loaded:
    """Load a programme file that can judge, with its warnings; errors call it by `name`.

    Raises:
        BadProgramme: it has errors.
        InputError: this release does not judge it.
    """
    loaded = load_file(path)
    if loaded.programme is None:
        raise BadProgramme(name, loaded.problems)
    refusal = refused(loaded, name)
    if refusal is not None:
        raise InputError(refusal)
    return loaded
