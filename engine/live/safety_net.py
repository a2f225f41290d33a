"""Take a batch that failed in parts, so that only the events at fault are set aside.

The parts are written in one transaction, each under a savepoint. A part that fails is undone, and taken again in halves
until the culprit is alone; the rows of earlier parts stay, and later parts find them, as in the whole batch. Where too
many events fail, the fault must be ours: the transaction is rolled back, and nothing stays.
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
"""How often a part is tried where somebody else may have written a row first: the next look-up finds that row."""

FAILURES_MAX = 20
"""How often a part is tried where events in it cannot be judged: the second attempt holds their members."""


class Trial(NamedTuple):
    """Lend the net the live transaction: its steps, and its memory between attempts."""

    take_steps: Callable[[Cursor, Batch], Work]
    forget: Callable[[], None]
    learn: Callable[[Exception], None]
    unjudgeable: dict[bytes, Exception]
    lock_live: Callable[[Cursor], int]


def still_failing(record_id: int, failure: StepFailed) -> AnswerIsNo:
    """Return the refusal where an operator releases a record and it fails again."""
    return AnswerIsNo(
        f"record {record_id} still cannot be taken ({failure}); nothing was changed: install the release that mends "
        "it, then release again, or discard it"
    )


class _Culprit(NamedTuple):
    """Name the first member whose tick fails, and the reason."""

    member_id: str
    failure: StepFailed


class SafetyNet:
    """Take one batch in parts, within one transaction.

    Args:
        cursor: belongs to the transaction, in which nothing was done yet.
        batch: the batch that failed as a whole.
        trial: writes a part, and undoes it in memory.
        in_a_row: stops the worker where too many events are set aside.
    """

    def __init__(self, cursor: Cursor, batch: Batch, trial: Trial, in_a_row: InARow) -> None:
        self._cursor = cursor
        self._batch = batch
        self._trial = trial
        self._in_a_row = in_a_row
        self._reached_ms, self._passed_ms = (work := Work(batch)).reached_ms, work.passed_ms
        self._taken: list[Outcome] = []

    def take(self) -> Outcome:
        """Write all events that can be written, set the rest aside, and count the results.

        Raises:
            engine.store.kafka.offsets.Fenced: another worker has taken these offsets.
            CannotGoOn: too many events fail, so the fault must be ours; or a record cannot even be set aside.
        """
        # ticks come first, as in the whole batch
        self._in_a_row.begin()
        portion = self._own_work()
        for tick in portion.ticks:
            self._take_tick(tick)

        # everything else in halves
        self._items = [*sorted(portion.undecided, key=_age_of), *merged(self._batch, portion.forwarded)]
        self._moves = Moves(self._batch, self._items)
        self._halve(0, len(self._items))

        # move the offsets of partitions that brought no event
        rest = self._moves.rest()
        if rest and (failure := self._write(Batch(moves=rest, portion=Portion()))) is not None:
            raise CannotGoOn(f"offsets cannot be moved ({failure}), though no event is at fault: please report it")
        self._in_a_row.end()
        return together(self._taken)

    def _own_work(self) -> Portion:
        """Lock the offsets and heads of the batch, in the usual order, and take in Guerdon's own work."""
        # lock
        cursor, batch = self._cursor, self._batch
        generation = self._trial.lock_live(cursor)
        offsets.compare_and_set(cursor, batch.moves)
        heads = ticks.lock_heads_of(cursor, batch, generation)
        if batch.portion is not None:
            return batch.portion
        if not heads:
            return Portion()

        # take in its own work whose time has come
        forwarded, _ = forwards.drain(cursor, heads, self._reached_ms)
        undecided = forwards.take_waiting(cursor, heads, self._passed_ms)
        due_ticks = ticks.find(cursor, heads.values(), batch.clock)
        source_log.save_heads(cursor, heads.values(), generation)  # each part reads again how far ticks have come
        return Portion(tuple(due_ticks), tuple(forwarded), tuple(undecided))

    # Parts

    def _halve(self, start: int, stop: int) -> None:
        """Write the items from `start` to before `stop`, in halves where that fails."""
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
        """Write a part; where it fails, undo it and return the failure."""
        done = self._try(part)
        if isinstance(done, StepFailed):
            return done
        self._taken.append(outcome_of(done))
        for fate in fates(done, self._trial.unjudgeable):
            self._in_a_row.note(*fate)
        return None

    def _try(self, part: Batch, *, keep: bool = True) -> Work | StepFailed:
        """Take all steps with a part; without `keep`, undo them: they only show whether the part can be taken."""
        for attempt in range(1, FAILURES_MAX + 1):
            # take the steps, or learn from their failure
            self._cursor.execute("SAVEPOINT part")
            try:
                work = self._trial.take_steps(self._cursor, part)
                member_states.begin_again(self._cursor)
            except (EvaluationFailed, NotLookedUp, StepFailed) as error:
                self._undo()
                if isinstance(error, StepFailed) and not (error.may_be_race and attempt < RACES_MAX):
                    return error
                self._trial.learn(error.error if isinstance(error, StepFailed) else error)
                continue

            # keep what they wrote, or undo it
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
        """Set one item aside."""
        # append it to the log, with its member held, if it can be appended
        item = self._items[index]
        key = _key_of(item)
        if key is not None:
            self._trial.unjudgeable[key] = failure
            if self._write(self._part(index, index + 1)) is None:
                self._moves.take(index, index + 1)
                return
            del self._trial.unjudgeable[key]

        # else write a record of it alone
        record = _record_of(item, failure)
        if self._keep(index, record) is not None:
            # else one without its names; personal fields are sealed by a name, so they are left out, too
            payload = b"" if quarantine.personal_owner(record) else record.payload
            bare = structs.replace(record, event=None, payload=payload, message=f"{failure}"[:1_000])
            last = self._keep(index, bare)
            if last is not None:
                raise CannotGoOn(
                    f"{_named(item)} cannot be taken ({failure}), nor set aside ({last}): please report it"
                )

        # a record that came as set aside is no event that fails
        if not isinstance(item, SetAside):
            self._in_a_row.note(item.identity if isinstance(item, Admitted) else item.body, failure, _named(item))

    def _keep(self, index: int, record: SetAside) -> StepFailed | None:
        """Write a record in the place of an item, and return why it cannot be written."""
        failure = self._write(Batch(set_aside=[record], moves=self._moves.of(index, index + 1), portion=Portion()))
        if failure is None:
            self._moves.take(index, index + 1)
        return failure

    def _take_tick(self, tick: Tick) -> None:
        """Write a tick; members whom it cannot move are held.

        A tick is never split: a replay finds its members by who is due, so they must stay together.
        """
        # try it until it passes: hold each culprit, or leave out whom it cannot even hold
        left_out: dict[str, StepFailed] = {}
        counted = 0
        while True:
            members = [member_id for member_id in tick.member_ids if member_id not in left_out]
            done = self._try(_of_tick(tick, members))
            if isinstance(done, Work):
                break
            culprit, failure = self._culprit(tick, members, done)
            key = tick.failure_key(culprit)
            if key in self._trial.unjudgeable:  # to hold them has failed, too
                left_out[culprit] = failure
            self._trial.unjudgeable[key] = failure
            counted = self._count(tick, counted, tick.member_ids.index(culprit) + 1)

        # count all of its members, and hold those who were left out
        self._count(tick, counted, len(tick.member_ids))
        self._taken.append(outcome_of(done))
        self._leave_out(tick, left_out, done)

    def _count(self, tick: Tick, start: int, stop: int) -> int:
        """Count the tick's members from `start` to before `stop`, and return where the next count starts."""
        for member_id in tick.member_ids[start:stop]:
            key = tick.failure_key(member_id)
            self._in_a_row.note(key, self._trial.unjudgeable.get(key), f"member {member_id}")
        return max(start, stop)

    def _culprit(self, tick: Tick, members: Sequence[str], failure: StepFailed) -> _Culprit:
        """Find the first member whose tick fails, by bisection over the tick's members; return the reason, too."""
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
        return _Culprit(members[failing - 1], failure)

    def _leave_out(self, tick: Tick, left_out: dict[str, StepFailed], work: Work) -> None:
        """Hold members who cannot even be loaded or saved: a record says why, and no tick finds them again."""
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
        """Where each partition's offset is, after the parts that were written."""
        self._next: dict[int, int] = {}
        """The offset that a partition moves to when an item of it was taken, by the item's index."""
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
        # what the items say of their partitions
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

        # only the part that ends where the whole batch does knows its last record, and the records ahead
        moves = {}
        for partition, reached in following.items():
            whole, at = self._whole[partition], self._at[partition]
            is_end = reached == whole.next
            moves[partition] = structs.replace(
                whole,
                expected=at,
                next=reached,
                high_ms=whole.high_ms if is_end else highest[partition],
                passed=reached - at - counts[partition],
                last=whole.last if is_end else None,
                ahead_ms=whole.ahead_ms if is_end else None,
            )
        return moves

    def take(self, start: int, stop: int) -> None:
        """Note that a part was written."""
        self._at |= {partition: move.next for partition, move in self.of(start, stop).items()}

    def rest(self) -> dict[Partition, OffsetMove]:
        """Return the moves of partitions whose offsets had no event."""
        return {partition: move for partition, move in self._whole.items() if partition not in self._with_items}


def merged(batch: Batch, forwarded: Sequence[Forwarding]) -> list[Item]:
    """Merge a batch's events, its set-aside records and forwarded events; each partition keeps its own order."""
    # what waits for its turn; the first is taken from the end
    waiting: dict[Partition, list[SetAside]] = {}
    for record in reversed(batch.set_aside):
        waiting.setdefault((record.topic or "", record.partition), []).append(record)
    rows = list(reversed(forwarded))

    # the batch's events are in order already
    items: list[Item] = []
    reached_ms = 0
    for event in batch.admitted:
        reached_ms = max(reached_ms, event.event.occurred_at)
        while rows and rows[-1].turn_ms <= reached_ms:
            items.append(rows.pop())
        before = waiting.get((event.topic, event.partition), [])
        while before and before[-1].offset < event.offset:
            items.append(before.pop())
        items.append(event)

    # what comes after the last event
    items.extend(reversed(rows))
    for records in waiting.values():
        items.extend(reversed(records))
    return items


def _of_tick(tick: Tick, members: Sequence[str]) -> Batch:
    return Batch(portion=Portion((Tick(tick.shard, tick.until_ms, list(members)),)))


def _age_of(row: Undecided) -> tuple[int, str]:
    try:
        signup = row.waiting().signup
    except ValueError:
        return 0, ""  # the part that takes it fails again, and names it then
    return signup.occurred_at, signup.event_id


def _key_of(item: Item) -> bytes | None:
    """Return the key under which the live transaction appends an item and suspends its member; None where it cannot."""
    if isinstance(item, Admitted):
        return item.identity if item.member_id else None
    try:
        if isinstance(item, Forwarding):
            event = item.event()
            return event_identity(event.source, event.event_id)
        if isinstance(item, Undecided):
            return forwards.failure_key(forwards.WaitedSignup(item.shard, item.waiting()))
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
    """Name an item by where it comes from."""
    if isinstance(item, Admitted):
        return named(item)
    if isinstance(item, SetAside):
        return f"{item.topic} partition {item.partition}, offset {item.offset}"
    if isinstance(item, Forwarding):
        return f"what shard {item.from_shard}, seq {item.from_seq} forwards to shard {item.to_shard}"
    return f"a signup that waits in shard {item.shard}"
