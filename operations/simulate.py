"""Simulate: judge files of events in memory, with the evaluator of the worker and no services.

The order of the lines is the recorded order. There is no wall clock: nothing is from the future, and an event is
recorded at the latest time that the events so far have told.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from engine import admit
from engine.evaluate import advance, award, fold
from engine.ledger.memory_books import MemoryBooks
from engine.ledger.memory_budgets import MemoryBudgets
from engine.programme.compile import Judge, compile_programme
from engine.programme.explain import Explainer
from engine.programme.fields import EVENT_TRIGGERS
from engine.programme.load import load_file, refused
from engine.state import MemberState, Occurrence
from operations.simulate_contests import LATENESS_MS, SimulatedContests
from projections.balance_fold import fold_balances
from projections.item_fold import fold_items
from projections.tier_fold import fold_tier_changes
from schemas.canonical import content_digest, event_identity
from schemas.errors import InputError
from schemas.events import TYPE_NAMES, Decision, Erasure, Profile, Purchase, Redemption, Refund, key_of
from schemas.json_events import decode_json
from schemas.partitioning import SHARDS, shard_of
from schemas.rejection import Reason, Rejected
from schemas.scalars import instant_from_iso, iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.ledger.tiers import Standings
    from engine.programme.explain import RuleExplanation
    from engine.programme.model import Programme
    from engine.programme.problems import Problem
    from projections.item_fold import HeldItem
    from schemas.events import Event
    from schemas.rewards import RewardEvent

HELD_COLUMNS = ("member_id", "unit", "item", "code", "amount", "status", "granted_at", "expires_at")
_SECRET = b"guerdon simulate"
"""Digests are compared within one run only, so any fixed key will do."""
_JUDGED = frozenset((*EVENT_TRIGGERS.values(), Profile, Erasure, Refund, Redemption, Decision))


class BadProgramme(InputError):  # noqa: N818  as its siblings in schemas/errors.py
    """Say that a programme file has errors, and carry everything that was found in it."""

    def __init__(self, file: str, problems: tuple[Problem, ...], errors: int) -> None:
        count = "1 error" if errors == 1 else f"{errors} errors"
        super().__init__(f"{file} has {count}; correct the file and run the command again")
        self.problems = problems


class Line(NamedTuple):
    """Hold one line of an events file; `number` counts from 1."""

    file: str
    number: int
    text: bytes


@dataclass(frozen=True)
class Quarantined:
    """Name an event that was set aside, why, and where it stands; `event_id` is None where none can be read."""

    event_id: str | None
    reason: Reason
    message: str
    file: str
    line: int


class Explained(NamedTuple):
    """Hold what is told of one event: its place in the files' order, and a sentence for each rule."""

    event: Event
    version: int
    rules: list[RuleExplanation]

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "event_id": self.event.event_id,
            "source": self.event.source,
            "type": TYPE_NAMES[type(self.event)],
            "member_id": getattr(self.event, "member_id", None),
            "occurred_at": iso_from_instant(self.event.occurred_at),
            "rule_version": self.version,
            "rules": [rule.document() for rule in self.rules],
        }


class _Recorded(NamedTuple):
    """Hold one reward event with its place in the log."""

    shard: int
    pos: int
    seq: int
    member_id: str
    event_id: str
    recorded_at_ms: int
    lowest_tier: str | None
    reward: RewardEvent


@dataclass
class Simulation:
    """Hold what a run has found; `not_judged` are event types that this release records only, in order of coming.

    `explained` tells of each event why rules gave or did not; None where nobody asked.
    """

    recorded: list[_Recorded] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0
    not_judged: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    clock_ms: int = 0
    tiers: list[dict[str, Any]] = field(default_factory=list)
    explained: list[Explained] | None = None

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """Return the run as one JSON document, with the column names of the reward log and the views."""
        why = {} if self.explained is None else {"why": [event.document() for event in self.explained]}
        return {
            "reward_events": [_reward_row(recorded) for recorded in self.recorded],
            "balances": self.balances(),
            "tiers": self.tiers,
            "tier_history": self.tier_history(),
            "referrals": [],
            "rewards": self.rewards(),
            "codes": [],
            "quarantined": [asdict(event) for event in self.quarantined],
            **why,
        }

    def rewards(self) -> list[dict[str, Any]]:
        """Return the rows of `member_reward`: every coupon, gift, badge and benefit, in the order of coming."""
        held = fold_items((recorded.member_id, recorded.reward) for recorded in self.recorded)
        return [_held_row(item, self.clock_ms) for item in held.values()]

    def tier_history(self) -> list[dict[str, Any]]:
        """Return the rows of `tier_history`, in the order of coming."""
        changes = fold_tier_changes(
            (recorded.member_id, recorded.reward, recorded.recorded_at_ms, recorded.lowest_tier)
            for recorded in self.recorded
        )
        return [_plain_times(change._asdict()) for change in changes]

    def balances(self) -> list[dict[str, Any]]:
        """Return the rows of `member_balance`, by member and unit."""
        folded = fold_balances((recorded.member_id, recorded.reward) for recorded in self.recorded)
        as_of = iso_from_instant(self.clock_ms)
        return [
            {"member_id": member_id, "unit": unit, **_plain_times(structs.asdict(balance)), "as_of": as_of}
            for (member_id, unit), balance in sorted(folded.items())
        ]


def simulate(
    programme: Path, events: Iterable[Path | str], until_ms: int | None = None, *, why: bool = False
) -> Simulation:
    """Judge the events of JSON lines files, one file after the other, by the programme in `programme`.

    Args:
        programme: the file that judges from the first event on.
        events: files of JSON lines, "-" for standard input; an activation line in them changes the programme.
        until_ms: where the clock stands at the end, if that is after the last event.
        why: explain each event; the reference interpreter then judges, which decides the same and is slower.

    Raises:
        BadProgramme: a programme has errors.
        InputError: a file cannot be read, or an activation cannot be followed.
    """
    return simulate_lines(programme, read_lines(events), until_ms, why=why)


def simulate_lines(
    programme: Path | Programme, lines: Iterable[Line], until_ms: int | None = None, *, why: bool = False
) -> Simulation:
    """Judge lines by a programme that is checked already, or by the one in a file; see `simulate`."""
    simulator = _Simulator(programme, why=why)
    for line in lines:
        simulator.take(line)
    simulator.move_clocks(max(simulator.simulation.clock_ms, until_ms or 0))
    return simulator.finished()


def read_lines(files: Iterable[Path | str]) -> Iterator[Line]:
    """Yield the lines of `files` that are not blank.

    Raises:
        InputError: a file cannot be read.
    """
    for file in files:
        try:
            if str(file) == "-":
                yield from _lines("-", sys.stdin.buffer)
            else:
                with Path(file).open("rb") as stream:
                    yield from _lines(str(file), stream)
        except OSError as error:
            raise InputError(f"{file}: the file cannot be read ({error.strerror}); check its path") from None


def _lines(name: str, stream: Iterable[bytes]) -> Iterator[Line]:
    for number, text in enumerate(stream, 1):
        if text.strip():
            yield Line(name, number, text)


class _Simulator:
    """Take lines one by one, as the worker takes events."""

    def __init__(self, programme: Path | Programme, *, why: bool) -> None:
        self.simulation = Simulation(explained=[] if why else None)
        self._version = 0
        self._seqs = [0] * SHARDS
        self._positions = [0] * SHARDS
        self._members: dict[str, MemberState] = {}
        self._digests: dict[bytes, bytes] = {}
        self._orders: dict[tuple[str, str], Purchase] = {}
        self._judges: dict[int, Judge | Explainer] = {}
        self._books: dict[str, MemoryBooks] = {}
        self._stock: dict[str, int] = {}
        self._budgets = MemoryBudgets()
        self._contests = SimulatedContests()
        checked = self._loaded(programme, str(programme)) if isinstance(programme, Path) else programme
        self._judge = self._activate(checked)

    def take(self, line: Line) -> None:
        """Judge one event, set it aside, or change the programme."""
        activated = _activation(line)
        if activated is not None:
            folder = Path() if line.file == "-" else Path(line.file).parent
            self._change_programme(folder / activated, line)
            return
        ticked_ms = _tick(line)
        if ticked_ms is not None:
            self.move_clocks(ticked_ms)
            return
        try:
            event = decode_json(line.text)
            admit.check(event, currency=self._judge.programme.currency, latest_ms=None)
            self._admit(event)
        except Rejected as rejected:
            where = (line.file, line.number)
            found = Quarantined(_event_id(line.text), rejected.reason, rejected.message, *where)
            self.simulation.quarantined.append(found)

    def _admit(self, event: Event) -> None:
        """Drop a duplicate, refuse a conflict, record and judge the rest."""
        identity = event_identity(event.source, event.event_id)
        if self._is_duplicate(event, identity):
            self.simulation.duplicates += 1
            return
        member_id: str | None = getattr(event, "member_id", None)  # a touch has none
        state = MemberState() if member_id is None else self._members.get(member_id, MemberState())
        if state.erased:
            raise Rejected(Reason.MEMBER_ERASED, "the member asked for erasure; nothing more is kept of them")
        self._close_contests(max(event.occurred_at, self.simulation.clock_ms) - LATENESS_MS)
        occurrence = self._record(event, identity)
        if member_id is not None:
            self._members[member_id] = state
            self._evaluate(event, member_id, state, occurrence)

    def _is_duplicate(self, event: Event, identity: bytes) -> bool:
        """Whether the same event, or the same order under another event_id, came before.

        Raises:
            Rejected: id_conflict, where it came with other content.
        """
        known = self._digests.get(identity)
        if known is not None:
            if known == content_digest(event, _SECRET):
                return True
            raise Rejected(
                Reason.ID_CONFLICT,
                "the same source and event_id came before with other content; the first stands: send a new event_id",
            )
        earlier = self._orders.get((event.member_id, event.order_id)) if isinstance(event, Purchase) else None
        if earlier is None:
            return False
        if structs.replace(earlier, event_id=event.event_id, source=event.source) == event:
            return True
        raise Rejected(
            Reason.ID_CONFLICT,
            "the same order_id of this member came before with other content; the first stands: send a refund instead",
        )

    def _record(self, event: Event, identity: bytes) -> Occurrence:
        """Give the event its place in the order and remember what a duplicate is told by."""
        simulation = self.simulation
        simulation.accepted += 1
        simulation.clock_ms = max(simulation.clock_ms, event.occurred_at)
        self._digests[identity] = content_digest(event, _SECRET)
        if isinstance(event, Purchase):
            self._orders[event.member_id, event.order_id] = event
        kind = TYPE_NAMES[type(event)]
        if type(event) not in _JUDGED and kind not in simulation.not_judged:
            simulation.not_judged.append(kind)
        shard = shard_of(key_of(event))
        self._seqs[shard] += 1
        return Occurrence(identity, self._seqs[shard], simulation.clock_ms)

    def _evaluate(self, event: Any, member_id: str, state: MemberState, occurrence: Occurrence) -> None:
        books = self._books.get(member_id)
        if books is None:
            books = self._books[member_id] = MemoryBooks(
                self._judges.__getitem__, self._stock, self._budgets, self._contests.closed[shard_of(member_id)]
            )
        if isinstance(event, Purchase):
            books.record(event, self._judge.version)
        if isinstance(self._judge, Explainer):
            self._judge.explained = []
        rewards = fold(state, event, occurrence, self._judge, books)
        self._write(member_id, event.event_id, occurrence, rewards)
        if self.simulation.explained is not None and isinstance(self._judge, Explainer):
            self.simulation.explained.append(Explained(event, self._version, self._judge.explained))

    def _write(self, member_id: str, event_id: str, occurrence: Occurrence, rewards: Iterable[RewardEvent]) -> None:
        shard = shard_of(member_id)
        for reward in rewards:
            self._positions[shard] += 1
            place = (shard, self._positions[shard], occurrence.seq)
            lowest = self._judge.programme.lowest_tier
            recorded = _Recorded(*place, member_id, event_id, occurrence.recorded_at_ms, lowest, reward)
            self.simulation.recorded.append(recorded)

    def finished(self) -> Simulation:
        """Return what the run has found, with every member's standing."""
        clock, at_ms = self._judge.tier_clock, self.simulation.clock_ms
        if clock is not None:
            for member_id, state in sorted(self._members.items()):
                if not state.erased:
                    row = clock.report(state.standing, at_ms, state.first_ms)
                    self.simulation.tiers.append({"member_id": member_id, **_told(row)})
        return self.simulation

    def move_clocks(self, until_ms: int) -> None:
        """Move every member's clock on to an instant, as ticks do, in the order of what is due."""
        self.simulation.clock_ms = max(self.simulation.clock_ms, until_ms)
        self._seqs = [seq + 1 for seq in self._seqs]
        for member_id, state in sorted(self._members.items(), key=lambda member: (member[1].due_ms or 0, member[0])):
            if not state.erased:
                event_id = f"tick-{iso_from_instant(until_ms)}"
                seq = self._seqs[shard_of(member_id)]
                occurrence = Occurrence(event_identity("guerdon", event_id), seq, self.simulation.clock_ms)
                rewards = advance(member_id, state, occurrence, self._judge, self._books[member_id], until_ms)
                self._write(member_id, event_id, occurrence, rewards)
        self._close_contests(until_ms)

    def _close_contests(self, until_ms: int) -> None:
        """Close what has ended by an instant; as in the worker, a closing is a source event of every shard."""
        for ended in self._contests.ended(self._judge.programme, self._members, until_ms):
            self._seqs = [seq + 1 for seq in self._seqs]
            event_id = f"contest-{ended.contest.id}-{ended.period}"
            for won in self._contests.close(ended, self._members, self._seqs):
                state, books = self._members[won.member_id], self._books[won.member_id]
                seq = self._seqs[shard_of(won.member_id)]
                occurrence = Occurrence(event_identity("guerdon", event_id), seq, self.simulation.clock_ms)
                rewards = award(won.member_id, state, occurrence, self._judge, books, won)
                self._write(won.member_id, event_id, occurrence, rewards)

    def _change_programme(self, path: Path, line: Line) -> None:
        before = self._judge.programme
        programme = self._loaded(path, f"{path} (activated in {line.file}:{line.number})")
        if programme.currency != before.currency:
            raise InputError(
                f"{line.file}:{line.number}: {path} counts in {programme.currency} and the events so far in "
                f"{before.currency}; a programme keeps its currency, so simulate them apart"
            )
        if programme.digest != before.digest:
            self._judge = self._activate(programme)

    def _activate(self, programme: Programme) -> Judge | Explainer:
        """Judge by `programme` from here on; like the worker's, the activation is a source event of every shard."""
        self._version += 1
        self._seqs = [seq + 1 for seq in self._seqs]
        judge: Judge | Explainer = compile_programme(programme, self._version)
        if self.simulation.explained is not None:
            judge = Explainer(programme, self._version)
        self._judges[self._version] = judge
        return judge

    def _loaded(self, path: Path, name: str) -> Programme:
        loaded = load_file(path)
        if loaded.programme is None:
            raise BadProgramme(name, loaded.problems, len(loaded.errors))
        refusal = refused(loaded, name)
        if refusal is not None:
            raise InputError(refusal)
        self.simulation.warnings += loaded.problems
        return loaded.programme


def _activation(line: Line) -> str | None:
    """Return the file that an activation line names, or None for every other line."""
    if b'"activation"' not in line.text:
        return None
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("type") != "activation":
        return None
    file = value.get("programme")
    if not isinstance(file, str) or not file or len(value) > 2:
        raise InputError(
            f'{line.file}:{line.number}: an activation is {{"type": "activation", "programme": "FILE"}} and nothing '
            "more; correct the line"
        )
    return file


def _told(standing: Standings) -> dict[str, Any]:
    """Return the columns of `reward.member_tier`."""
    return {
        "tier": standing.tier,
        "since": _iso(standing.since_ms),
        "until": _iso(standing.until_ms),
        "qualifying": standing.qualifying,
        "next_tier": standing.next_tier,
        "to_next_tier": standing.to_next_tier,
    }


def _tick(line: Line) -> int | None:
    """Return the instant to which a tick line moves every clock, or None for every other line."""
    if b'"tick"' not in line.text:
        return None
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("type") != "tick":
        return None
    why = "it has other fields"
    if value.keys() == {"type", "occurred_at"}:
        try:
            return instant_from_iso(value["occurred_at"], "occurred_at")
        except Rejected as rejected:
            why = rejected.message
    raise InputError(
        f'{line.file}:{line.number}: a tick is {{"type": "tick", "occurred_at": "2026-01-31T00:00:00Z"}} and '
        f"nothing more ({why}); correct the line"
    )


def _event_id(text: bytes) -> str | None:
    """Return the event_id of a line that may be anything."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = value.get("event_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _reward_row(recorded: _Recorded) -> dict[str, Any]:
    """Return the row of `reward.reward_event`."""
    reward, posting = recorded.reward, recorded.reward.posting
    key = reward.reward_key.hex()
    own_lot = None if posting.debit is None else key
    return {
        "shard": recorded.shard,
        "pos": recorded.pos,
        "reward_key": key,
        "type": posting.type,
        "member_id": recorded.member_id,
        "unit": posting.unit,
        "amount": reward.amount,
        "debit": posting.debit,
        "credit": posting.credit,
        "lot": own_lot if reward.lot is None else reward.lot.hex(),
        "item": posting.item,
        "rule_id": posting.rule_id,
        "rule_version": posting.rule_version,
        "campaign": posting.campaign,
        "order_id": reward.order_id,
        "event_id": recorded.event_id,
        "seq": recorded.seq,
        "reason": posting.reason,
        "available_at": _iso(reward.available_at_ms),
        "expires_at": _iso(reward.expires_at_ms),
        "occurred_at": _iso(reward.occurred_at_ms),
        "recorded_at": _iso(recorded.recorded_at_ms),
    }


def _held_row(held: HeldItem, clock_ms: int) -> dict[str, Any]:
    """Return the row of `reward.member_reward`; what has run out by the clock is expired."""
    lapsed = held.status == "active" and held.expires_at_ms is not None and held.expires_at_ms <= clock_ms
    row = _plain_times(structs.asdict(held) | {"status": "expired" if lapsed else held.status})
    return {name: row.get(name) for name in HELD_COLUMNS}


def _plain_times(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with instants in ms under the names, and in the form, that the views give them."""
    return {name.removesuffix("_ms"): _iso(value) if name.endswith("_ms") else value for name, value in row.items()}


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso_from_instant(at_ms)
