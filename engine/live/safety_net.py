"""Take a batch that failed part by part, so that only what cannot be written goes aside and everybody else goes on.

The parts are written in one transaction, each under a savepoint: what was done before stays, what fails is undone and
taken again in halves until the culprit is alone. So a part finds what earlier ones have written, as it would have in
the batch, and where so much fails that the fault must be ours, nothing of it all is kept.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from engine.intake.batch import Admitted, SetAside
from engine.live import ticks
from engine.live.batch import Batch, Portion
from engine.live.duplicates import NotLookedUp
from engine.live.in_a_row import fates, named
from engine.live.tick import Tick
from engine.live.verdicts import failed, verdict_on
from engine.live.work import EvaluationFailed, Outcome, Work, outcome_of, set_aside, together
from engine.store import quarantine
from engine.store.generations import live_generation
from engine.store.kafka import offsets
from engine.store.logs import forwards, source_log
from engine.store.logs.forwards import Forwarding, Undecided
from engine.store.members import member_states
from engine.store.session.failures import StepFailed
from schemas.canonical import event_identity
from schemas.errors import AnswerIsNo, CannotGoOn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.intake.batch import OffsetMove, Partition
    from engine.live.in_a_row import InARow
    from engine.store.cursor import Cursor

    Item = Admitted | SetAside | Forwarding | Undecided

RACES_MAX = 3
"""How often a part is begun anew after a row that somebody else may have written first; each look-up finds that."""

FAILURES_MAX = 20
"""How often a part is begun anew as events in it could not be judged: the second attempt holds them."""


class Trial(NamedTuple):
    """Hold what the net needs of the live transaction: its steps, and what it remembers between attempts."""

    take_steps: Callable[[Cursor, Batch], Work]
    forget: Callable[[], None]
    learn: Callable[[Exception], None]
    unjudgeable: dict[bytes, Exception]
    lock_live: Callable[[Cursor], int]


def still_failing(record_id: int, failure: StepFailed) -> AnswerIsNo:
    """Return the refusal of a record that an operator releases and that fails once more."""
    return AnswerIsNo(
        f"record {record_id} still cannot be taken ({failure}); nothing was changed: install the release that mends "
        "it, then release again, or discard it"
    )


class SafetyNet:
    """Take one batch in parts, within one transaction.

    Args:
        cursor: of the transaction, in which nothing was done yet.
        batch: what failed as a whole.
        trial: how a part is written, and undone in memory.
        in_a_row: stops the worker where too much goes aside.
    """

    def __init__(self, cursor: Cursor, batch: Batch, trial: Trial, in_a_row: InARow) -> None:
        self._cursor = cursor
        self._batch = batch
        self._trial = trial
        self._in_a_row = in_a_row
        self._reached_ms, self._passed_ms = (work := Work(batch)).reached_ms, work.passed_ms
        self._taken: list[Outcome] = []

    def take(self) -> Outcome:
        """Write all that can be written and set the rest aside, and say what it came to.

        Raises:
            engine.store.offsets.Fenced: another worker has taken these offsets.
            CannotGoOn: so much fails that the fault must be ours, or something cannot even be set aside.
        """
        self._in_a_row.begin()
        portion = self._own_work()
        for tick in portion.ticks:
            self._take_tick(tick)
        self._items = [*sorted(portion.undecided, key=_turn_of), *merged(self._batch, portion.forwarded)]
        self._moves = Moves(self._batch, self._items)
        self._halve(0, len(self._items))
        rest = self._moves.rest()
        if rest and (failure := self._write(Batch(moves=rest, portion=Portion()))) is not None:
            raise CannotGoOn(f"offsets cannot be moved ({failure}), though no event is at fault: please report it")
        self._in_a_row.end()
        return together(self._taken)

    def _own_work(self) -> Portion:
        """Lock all that the batch works on, in the order in which everybody does, and take in Guerdon's own work."""
        cursor, batch = self._cursor, self._batch
        generation = self._trial.lock_live(cursor)
        offsets.compare_and_set(cursor, batch.moves)
        heads = ticks.lock_heads_of(cursor, batch, generation)
        if batch.portion is not None:
            return batch.portion
        if not heads:
            return Portion()
        forwarded, _ = forwards.drain(cursor, heads, self._reached_ms)
        undecided = forwards.take_waiting(cursor, heads, self._passed_ms)
        due = ticks.find(cursor, heads.values(), batch.clock)
        source_log.save_heads(cursor, heads.values(), generation)  # each part reads anew how far ticks have moved them
        return Portion(tuple(due), tuple(forwarded), tuple(undecided))

    # Parts

    def _halve(self, start: int, stop: int) -> None:
        """Write some items, in halves where that fails."""
        if start == stop:
            return
        failure = self._write(self._part(start, stop))
        if failure is None:
            self._moves.take(start, stop)
        elif stop - start == 1:
            self._set_aside(start, failure)
        else:
            middle = (start + stop) // 2
            self._halve(start, middle)
            self._halve(middle, stop)

    def _part(self, start: int, stop: int) -> Batch:
        items = self._items[start:stop]
        return Batch(
            [item for item in items if isinstance(item, Admitted)],
            [item for item in items if isinstance(item, SetAside)],
            self._moves.of(start, stop),
            portion=Portion(
                (),
                tuple(item for item in items if isinstance(item, Forwarding)),
                tuple(item for item in items if isinstance(item, Undecided)),
                self._passed_ms,
            ),
        )

    def _write(self, part: Batch) -> StepFailed | None:
        """Write a part, or return why it failed; then nothing of it is left."""
        done = self._try(part)
        if isinstance(done, StepFailed):
            return done
        self._taken.append(outcome_of(done))
        for fate in fates(done, self._trial.unjudgeable):
            self._in_a_row.note(*fate)
        return None

    def _try(self, part: Batch, *, keep: bool = True) -> Work | StepFailed:
        """Take all steps with a part, and keep what they wrote, or with `keep` False only see whether they can."""
        for attempt in range(1, FAILURES_MAX + 1):
            self._cursor.execute("SAVEPOINT part")
            try:
                work = self._trial.take_steps(self._cursor, part)
                member_states.begin_again(self._cursor)
            except (EvaluationFailed, NotLookedUp, StepFailed) as error:
                self._undo()
                if isinstance(error, StepFailed) and not (error.may_be_race and attempt < RACES_MAX):
                    return error
                self._trial.learn(error.error if isinstance(error, StepFailed) else error)
            else:
                if keep:
                    self._cursor.execute("RELEASE SAVEPOINT part")
                else:
                    self._undo()
                return work
        raise CannotGoOn("events cannot be judged, and which ones changes each time: please report it")

    def _undo(self) -> None:
        self._cursor.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        self._trial.forget()

    # Culprits

    def _set_aside(self, index: int, failure: StepFailed) -> None:
        """Set one item aside: in the log, with its member held, where it can be appended, or else without a place."""
        item = self._items[index]
        key = _key_of(item)
        if key is not None:
            self._trial.unjudgeable[key] = failure
            if self._write(self._part(index, index + 1)) is None:
                self._moves.take(index, index + 1)
                return
            del self._trial.unjudgeable[key]
        record = _record_of(item, failure)
        if self._keep(index, record) is not None:
            # not even its names can be kept; what is personal is sealed by a name, so it cannot be, either
            payload = b"" if quarantine.personal_owner(record) else record.payload
            bare = structs.replace(record, event=None, payload=payload, message=f"{failure}"[:1_000])
            last = self._keep(index, bare)
            if last is not None:
                raise CannotGoOn(
                    f"{_named(item)} cannot be taken ({failure}), nor set aside ({last}): please report it"
                )
        if not isinstance(item, SetAside):
            self._in_a_row.note(item.identity if isinstance(item, Admitted) else item.body, failure, _named(item))

    def _keep(self, index: int, record: SetAside) -> StepFailed | None:
        failure = self._write(Batch(set_aside=[record], moves=self._moves.of(index, index + 1), portion=Portion()))
        if failure is None:
            self._moves.take(index, index + 1)
        return failure

    def _take_tick(self, tick: Tick) -> None:
        """Write a tick; members whom it cannot move are held.

        It is never split: a replay finds its members as it did, so they must be the ones that are due.
        """
        left_out: dict[str, StepFailed] = {}
        counted = 0
        while True:
            members = [member_id for member_id in tick.member_ids if member_id not in left_out]
            done = self._try(_of_tick(tick, members))
            if isinstance(done, Work):
                break
            culprit, failure = self._culprit(tick, members, done)
            key = tick.failure_of(culprit)
            if key in self._trial.unjudgeable:  # holding them fails, too
                left_out[culprit] = failure
            self._trial.unjudgeable[key] = failure
            counted = self._count(tick, counted, tick.member_ids.index(culprit) + 1)
        self._count(tick, counted, len(tick.member_ids))
        self._taken.append(outcome_of(done))
        self._leave_out(tick, left_out, done)

    def _count(self, tick: Tick, start: int, stop: int) -> int:
        """Count members of a tick, up to one of them, and return up to which all are counted."""
        for member_id in tick.member_ids[start:stop]:
            key = tick.failure_of(member_id)
            self._in_a_row.note(key, self._trial.unjudgeable.get(key), f"member {member_id}")
        return max(start, stop)

    def _culprit(self, tick: Tick, members: Sequence[str], failure: StepFailed) -> tuple[str, StepFailed]:
        """Return the member with whom a tick begins to fail: a part of its members from the first on is tried."""
        passing, failing = 0, len(members)
        if isinstance(done := self._try(_of_tick(tick, []), keep=False), StepFailed):
            raise CannotGoOn(f"shard {tick.shard} cannot have a tick ({done}), whoever is due: please report it")
        while failing - passing > 1:
            middle = (passing + failing) // 2
            done = self._try(_of_tick(tick, members[:middle]), keep=False)
            if isinstance(done, StepFailed):
                failing, failure = middle, done
            else:
                passing = middle
        return members[failing - 1], failure

    def _leave_out(self, tick: Tick, left_out: dict[str, StepFailed], work: Work) -> None:
        """Hold members who cannot even be loaded or saved: no tick finds them again, a record says why."""
        head = work.heads[tick.shard]
        for member_id, failure in left_out.items():
            named = Tick(tick.shard, tick.until_ms, [], f"tick-{tick.shard}-{head.seq}")
            record = named.set_aside(member_id, failure)
            place = (tick.shard, head.seq)
            quarantine.add(self._cursor, [record], {}, {0: place})
            held: dict[str, object] = {"member_id": member_id, "reason": record.message}
            live_generation.add_fact(self._cursor, work.generation, place, "member_held", held)
            member_states.let_wait(self._cursor, tick.shard, member_id)


class Moves:
    """Divide the moves of a batch's offsets among its parts, which are taken in their order."""

    def __init__(self, batch: Batch, items: Sequence[Item]) -> None:
        self._whole = batch.moves
        self._items = items
        self._at = {partition: move.expected for partition, move in batch.moves.items()}
        self._next: dict[int, int] = {}
        following = {partition: move.next for partition, move in batch.moves.items()}
        for index in reversed(range(len(items))):
            partition = self._partition(items[index])
            if partition is not None:
                self._next[index] = following[partition]
                following[partition] = items[index].offset  # type: ignore[union-attr]  # it has a partition
        self._with_items = {self._partition(item) for item in items}

    def _partition(self, item: Item) -> Partition | None:
        """Return the partition that an item came from, None where no offset moves with it."""
        if isinstance(item, Forwarding | Undecided):
            return None
        partition = (item.topic or "", item.partition)
        return partition if partition in self._whole else None

    def of(self, start: int, stop: int) -> dict[Partition, OffsetMove]:
        """Return how offsets move with the items from `start` to before `stop`."""
        counts: Counter[Partition] = Counter()
        following: dict[Partition, int] = {}
        highest: Counter[Partition] = Counter()
        for index in range(start, stop):
            item = self._items[index]
            partition = self._partition(item)
            if partition is not None:
                counts[partition] += 1
                following[partition] = self._next[index]
                if isinstance(item, Admitted):
                    highest[partition] = max(highest[partition], item.event.occurred_at)
        moves = {}
        for partition, reached in following.items():
            whole, at = self._whole[partition], self._at[partition]
            high_ms = whole.high_ms if reached == whole.next else highest[partition]
            passed = reached - at - counts[partition]
            last = whole.last if reached == whole.next else None  # of what is between nothing was kept
            ahead_ms = whole.ahead_ms if reached == whole.next else None
            moves[partition] = structs.replace(
                whole, expected=at, next=reached, high_ms=high_ms, passed=passed, last=last, ahead_ms=ahead_ms
            )
        return moves

    def take(self, start: int, stop: int) -> None:
        """Note that a part was written."""
        self._at |= {partition: move.next for partition, move in self.of(start, stop).items()}

    def rest(self) -> dict[Partition, OffsetMove]:
        """Return the moves of partitions that had nothing but offsets without an event."""
        return {partition: move for partition, move in self._whole.items() if partition not in self._with_items}


def merged(batch: Batch, forwarded: Sequence[Forwarding]) -> list[Item]:
    """Return a batch's records in an order that is each partition's own, with what was forwarded at its turn."""
    waiting: dict[Partition, list[SetAside]] = {}
    for record in reversed(batch.set_aside):
        waiting.setdefault((record.topic or "", record.partition), []).append(record)
    rows = list(reversed(forwarded))
    found: list[Item] = []
    reached_ms = 0
    for event in batch.admitted:
        reached_ms = max(reached_ms, event.event.occurred_at)
        while rows and rows[-1].turn_ms <= reached_ms:
            found.append(rows.pop())
        before = waiting.get((event.topic, event.partition), [])
        while before and before[-1].offset < event.offset:
            found.append(before.pop())
        found.append(event)
    found.extend(reversed(rows))
    for records in waiting.values():
        found.extend(reversed(records))
    return found


def _of_tick(tick: Tick, members: Sequence[str]) -> Batch:
    return Batch(portion=Portion((Tick(tick.shard, tick.until_ms, list(members)),)))


def _turn_of(row: Undecided) -> tuple[int, str]:
    try:
        signup = row.waiting().signup
    except ValueError:
        return 0, ""  # found out again, with its name, when it is taken
    return signup.occurred_at, signup.event_id


def _key_of(item: Item) -> bytes | None:
    """Return the key under which the live transaction appends an item and holds its member, None where it cannot."""
    if isinstance(item, Admitted):
        return item.identity if item.member_id else None
    try:
        if isinstance(item, Forwarding):
            event = item.event()
            return event_identity(event.source, event.event_id)
        if isinstance(item, Undecided):
            return forwards.failure_of(forwards.Due(item.shard, item.waiting()))
    except ValueError:
        return None
    return None


def _record_of(item: Item, failure: StepFailed) -> SetAside:
    if isinstance(item, Admitted):
        return set_aside(item, *verdict_on(failure))
    if isinstance(item, SetAside):
        return item
    return failed(failure, *forwards.as_record(item))


def _named(item: Item) -> str:
    """Return where an item comes from, in words."""
    if isinstance(item, Admitted):
        return named(item)
    if isinstance(item, SetAside):
        return f"{item.topic} partition {item.partition}, offset {item.offset}"
    if isinstance(item, Forwarding):
        return f"what shard {item.from_shard}, seq {item.from_seq} forwards to shard {item.to_shard}"
    return f"a signup that waits in shard {item.shard}"
