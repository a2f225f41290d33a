"""Take a batch into both logs, in one PostgreSQL transaction: fence, look up, load, evaluate, append, advance.

Everything or nothing. Exactly once in effect rests on three facts: the offsets move in the same transaction as the
rows, a worker that is no longer alone finds them moved, and a shard has one writer at a time, whoever holds its head.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, ClassVar

import psycopg2
from psycopg2.errors import LockNotAvailable, UniqueViolation

from engine import ticks
from engine.batch import NO_OFFSET, SetAside
from engine.duplicates import DUPLICATE, LookUps, NotLookedUp, Seen
from engine.evaluate import LEDGER_EVENTS, fold
from engine.programme.compile import compile_programme
from engine.programme.load import load_programme
from engine.referral.facts import Attribution
from engine.referral.tracker import FORWARDED
from engine.state import Occurrence
from engine.store import (
    contests,
    forwards,
    generations,
    history,
    ledgers,
    member_states,
    offsets,
    personal,
    profiles,
    programmes,
    quarantine,
    source_log,
)
from engine.store.binary_copy import pack_text
from engine.store.books import StoredBooks
from engine.store.budgets import BudgetsMoved, StoredBudgets
from engine.store.database import FROZEN_AFTER, RETRYABLE, WORKER, connect, end_frozen, one, set_limit
from engine.store.member_states import Member, MemberCache
from engine.store.referrals import NOTED, Referrals
from engine.store.reward_log import PostingFields, RewardRows
from engine.work import ACCEPTED, QUARANTINED, REPEATED, Outcome, Work, outcome_of, set_aside
from schemas.canonical import event_identity
from schemas.events import Redemption
from schemas.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from engine.batch import Admitted, Batch
    from engine.ledger.tiers import Standings
    from engine.programme.compile import Judge
    from engine.programme.judge import Judges
    from engine.programme.model import Programme
    from engine.referral.facts import Forwarded
    from engine.state import MemberState
    from engine.store.forwards import Due
    from engine.store.personal import Owner
    from engine.store.source_log import Head
    from engine.ticks import Tick
    from schemas.events import Event

ATTEMPTS_MAX = 20
"""How often a batch is begun anew after a deadlock or a race; each race has a winner, so the last try is far away."""


_pack_source = lru_cache(1_000)(pack_text)  # a programme has few producers and many events of each


class EvaluationFailed(Exception):  # noqa: N818  caught here, never shown
    """Say that the fold could not judge some events; the next attempt sets them aside and holds their members."""


def _observe_nothing(_point: str) -> None:
    """Stand in for whoever watches the steps: the bench times them, the chaos tests kill the process at one."""


class LiveTransaction:
    """Write batches with one connection; not to be shared between threads."""

    def __init__(
        self,
        database_url: str,
        schema_text: Callable[[int], str | None],
        *,
        observe: Callable[[str], None] = _observe_nothing,
    ) -> None:
        self._database_url = database_url
        self._connection = connect(database_url, application=WORKER)
        self._schema_text = schema_text
        self._observe = observe
        self._schemas_kept: set[int] = {personal.OWN_FORMAT}
        self._cache = MemberCache()
        self._judges: dict[int, Judge] = {}
        self._postings = PostingFields()
        self._unjudgeable: dict[bytes, Exception] = {}
        self._look_ups = LookUps()
        self._closings = contests.Closings()
        self._digest_secret: bytes | None = None
        with self._connection, self._connection.cursor() as cursor:
            member_states.prepare(cursor)
            set_limit(cursor, "lock_timeout", FROZEN_AFTER)

    def cancel(self) -> None:
        """Let the statement under way fail; safe to call from another thread."""
        with suppress(psycopg2.Error):  # there is no connection left to cancel anything on
            self._connection.cancel()

    def close(self) -> None:
        """Close the connection; a transaction under way is rolled back by PostgreSQL."""
        self._connection.close()

    def commit(self, batch: Batch) -> Outcome:
        """Write `batch` and return what became of it.

        Raises:
            engine.store.offsets.Fenced: another worker has taken these offsets; nothing was written.
            psycopg2.Error: PostgreSQL is away; whether the transaction took effect, the offsets will tell.
        """
        for _ in range(ATTEMPTS_MAX - 1):
            try:
                return self._attempt(batch)
            except EvaluationFailed:
                continue
            except NotLookedUp:
                self._look_ups.insert_failed()
            except RETRYABLE as error:
                if isinstance(error, UniqueViolation):
                    self._look_ups.insert_failed()
                elif isinstance(error, LockNotAvailable):
                    end_frozen(self._database_url)
        return self._attempt(batch)

    def _close_contests(self, until_ms: int) -> None:
        """Close what has ended, in a transaction of its own that holds every shard."""
        with self._connection, self._connection.cursor() as cursor:
            contests.close_ended(cursor, partial(self._judge, cursor), until_ms, _tell_standing)
        self._closings.looked(self._judges, until_ms)

    def _attempt(self, batch: Batch) -> Outcome:
        if batch.clock is not None and self._closings.are_due(self._judges, batch.clock.until_ms):
            self._close_contests(batch.clock.until_ms)
        try:
            with self._connection.cursor() as cursor:
                work = self._take_steps(cursor, batch)
            self._observe("before commit")
            self._connection.commit()
            self._observe("after commit")
        except BaseException:
            self._cache.forget()
            self._schemas_kept = {personal.OWN_FORMAT}
            with suppress(psycopg2.Error):  # a broken connection has nothing left to roll back
                self._connection.rollback()
            raise
        self._unjudgeable.clear()
        self._cache.keep({shard: (work.generation, head.seq) for shard, head in work.heads.items()})
        for member in work.touched.values():
            member.stored = True
        return outcome_of(work)

    def _take_steps(self, cursor: Cursor, batch: Batch) -> Work:
        """Take all steps; where budgets have moved, begin again in the same transaction, which holds them now."""
        work = Work(batch, set_aside=list(batch.set_aside))
        while True:
            try:
                for name, step in self.STEPS:
                    self._observe(f"before {name}")
                    step(self, cursor, work)
                    self._observe(f"after {name}")
            except BudgetsMoved as moved:
                self._cache.forget()  # the states in it are those of the evaluation that came to nothing
                work = Work(
                    batch, set_aside=list(batch.set_aside), held_budgets=moved.held, drained=work.drained, due=work.due
                )
            else:
                return work

    def _fence(self, cursor: Cursor, work: Work) -> None:
        work.generation = generations.lock_live(cursor)
        offsets.compare_and_set(cursor, work.batch.moves)
        work.recorded_ms = generations.now_ms(cursor)

    def _look_up(self, cursor: Cursor, work: Work) -> None:
        work.seen = Seen(cursor, self._look_ups.known(cursor, work.batch))

    def _load(self, cursor: Cursor, work: Work) -> None:
        move = work.batch.clock
        if move is not None and move.everywhere:
            work.heads = ticks.lock_due_heads(cursor, move, work.generation)
        else:
            work.heads = source_log.lock_heads(cursor, {event.shard for event in work.batch.admitted}, work.generation)
        self._take_forwarded(cursor, work)
        work.ticks = ticks.find(cursor, work.heads.values(), move)
        for shard, head in work.heads.items():
            head.record_at(max(head.recorded_ms, work.recorded_ms))
            work.members[shard] = self._cache.of_shard(shard, (work.generation, head.seq))
        missing = {
            (event.shard, event.member_id)
            for event in work.batch.admitted
            if event.member_id and event.member_id not in work.members[event.shard]
        } | {owner for owner in self._own(work) if owner[1] not in work.members[owner[0]]}
        for member in member_states.load(cursor, sorted(missing)):
            work.members[member.shard][member.member_id] = member
        self._load_judges(cursor, {head.version for head in work.heads.values()})
        work.referrals = Referrals(cursor, self._secret(cursor), work.members)
        programmes = [self._judges[version].programme for version in {head.version for head in work.heads.values()}]
        work.referrals.prepare(work.batch.admitted, work.due or [], programmes)
        budgets = StoredBudgets(cursor, work.held_budgets)
        work.books = StoredBooks(cursor, work.generation, partial(self._judge, cursor), budgets)
        ledgers.open_ledgers(cursor, self._movers(work).values())
        work.books.lock_stock(self._stocked(work))
        owners = {(event.shard, event.member_id) for event in work.batch.admitted if personal.is_personal(event.event)}
        readers = sorted(owners | self._readers(work))
        profiles.open_profiles(cursor, [work.members[shard][member_id] for shard, member_id in readers])
        owners |= {owner for record in work.set_aside if (owner := quarantine.personal_owner(record)) is not None}
        work.keys = personal.keys_for(cursor, owners)

    @staticmethod
    def _ticked(work: Work) -> list[Owner]:
        """Return the members whom the batch's ticks concern."""
        return [(tick.shard, member_id) for tick in work.ticks for member_id in tick.member_ids]

    def _own(self, work: Work) -> list[Owner]:
        """Return the members whom ticks, forwarded events and signups that waited concern."""
        return [
            *self._ticked(work),
            *((row.shard, row.event.member_id) for row in work.drained or ()),
            *((row.shard, row.waiting.signup.member_id) for row in work.due or ()),
        ]

    @staticmethod
    def _take_forwarded(cursor: Cursor, work: Work) -> None:
        """Take in what was forwarded to the shards and has its turn by the batch's last event, or by the clock."""
        if work.drained is not None:
            return  # the evaluation is made again, in the same transaction
        clock = work.batch.clock
        last_ms = max((event.event.occurred_at for event in work.batch.admitted), default=0)
        until_ms = max(last_ms, 0 if clock is None else clock.reached_ms)
        work.drained = forwards.drain(cursor, work.heads, until_ms) if work.heads else []
        work.due = forwards.take_waiting(cursor, work.heads, until_ms) if work.heads else []

    def _secret(self, cursor: Cursor) -> bytes:
        if self._digest_secret is None:
            (found,) = one(cursor, "SELECT value FROM guerdon.setting WHERE name = 'digest_secret'")
            self._digest_secret = bytes(found)
        return self._digest_secret

    def _movers(self, work: Work) -> dict[Owner, Member]:
        """Return the members whose lots the batch is known to move; others' are opened when it shows."""
        found = {(shard, member_id): work.members[shard][member_id] for shard, member_id in self._own(work)}
        for event in work.batch.admitted:
            member = work.members[event.shard].get(event.member_id)
            if member is not None and (member.state.pages or member.state.is_booked):
                due_ms = member.state.due_ms
                if type(event.event) in LEDGER_EVENTS or (due_ms is not None and due_ms <= event.event.occurred_at):
                    found[event.shard, event.member_id] = member
        return found

    def _stocked(self, work: Work) -> set[str]:
        """Return the rewards of which there are only so many and the batch may take one."""
        found = set()
        for event in work.batch.admitted:
            asked = event.event
            if isinstance(asked, Redemption) and asked.reward is not None and asked.action in ("reserve", "spend"):
                reward = self._judges[work.heads[event.shard].version].programme.terms.reward(asked.reward)
                if reward is not None and reward.stock is not None:
                    found.add(reward.id)
        return found

    def _readers(self, work: Work) -> set[Owner]:
        """Return the members whose profile a rule in force reads; what is due by itself is so at any event."""
        judges = {shard: self._judges[head.version] for shard, head in work.heads.items()}
        if not any(judge.profiled or judge.timed for judge in judges.values()):
            return set()
        return {owner for owner in self._own(work) if ticks.reads_profiles(judges[owner[0]])} | {
            (event.shard, event.member_id)
            for event in work.batch.admitted
            if event.member_id
            and (type(event.event) in judges[event.shard].profiled or ticks.reads_profiles(judges[event.shard]))
        }

    def _load_judges(self, cursor: Cursor, versions: set[int]) -> None:
        for version in sorted(versions):
            self._judge(cursor, version)

    def _judge(self, cursor: Cursor, version: int) -> Judge:
        judge = self._judges.get(version)
        if judge is None:
            judge = self._judges[version] = load_judge(cursor, version)
        return judge

    def _evaluate(self, _cursor: Cursor, work: Work) -> None:
        work.reward_rows = RewardRows(work.generation, self._postings)
        for record in work.batch.set_aside:
            work.counts[record.topic or "", record.partition][QUARANTINED] += 1
        for tick in work.ticks:
            self._tick(tick, work, work.reward_rows)
        for due in work.due or ():
            self._decide(due, work, work.reward_rows)
        own = iter(work.drained or ())
        following = next(own, None)
        for event in work.batch.admitted:
            while following is not None and following.turn_ms <= event.event.occurred_at:
                self._record_own(following.event, following.shard, work, work.reward_rows)
                following = next(own, None)
            verdict = work.seen.verdict(event)
            member = work.members[event.shard].get(event.member_id)
            if verdict == DUPLICATE:
                work.counts[event.topic, event.partition][REPEATED] += 1
            elif verdict:
                work.reject(event, Reason.ID_CONFLICT, verdict)
            elif member is not None and member.state.erased:
                work.seen.must_be_known()
                work.reject(event, Reason.MEMBER_ERASED, "the member asked for erasure; nothing more is kept of them")
            else:
                work.seen.add(event)
                work.counts[event.topic, event.partition][ACCEPTED] += 1
                if member is None:
                    self._append_memberless(event, work, self._judges[work.heads[event.shard].version].programme)
                else:
                    self._record(event, member, work, work.reward_rows)
        while following is not None:
            self._record_own(following.event, following.shard, work, work.reward_rows)
            following = next(own, None)
        if work.failures:
            self._unjudgeable |= work.failures
            raise EvaluationFailed

    def _tick(self, tick: Tick, work: Work, reward_rows: RewardRows) -> None:
        """Append one tick and what it brings about; a member for whom that fails is held."""
        head = work.heads[tick.shard]
        judge = self._judges[head.version]
        tick.append(work.source_rows, head)
        for member_id in tick.member_ids:
            member = work.members[tick.shard][member_id]
            work.touched[tick.shard, member_id] = member
            failure = ticks.failure_of(member)
            if failure in self._unjudgeable:
                self._hold(tick.set_aside(member, self._unjudgeable[failure]), member, work, head)
                continue
            try:
                rewards = tick.advance(member, head, judge, work.books)
            except Exception as error:  # noqa: BLE001  whatever it is, it holds this member and stops nobody else
                work.failures[failure] = error
                member.state.held_since = head.seq  # as with an event
                continue
            if rewards:
                reward_rows.append(rewards, head, tick.names(member))

    def _hold_budgets(self, _cursor: Cursor, work: Work) -> None:
        work.books.budgets.hold()

    def _decide(self, due: Due, work: Work, reward_rows: RewardRows) -> None:
        """Decide about a signup that waited for its referrer."""
        head = work.heads[due.shard]
        clock, programme = work.batch.clock, self._judges[head.version].programme
        last_ms = max((event.event.occurred_at for event in work.batch.admitted), default=0)
        decided = work.referrals.decide_waiting(due, max(last_ms, 0 if clock is None else clock.reached_ms), programme)
        if decided is not None:
            self._record_own(decided, due.shard, work, reward_rows)

    def _record_own(self, event: Attribution | Forwarded, shard: int, work: Work, reward_rows: RewardRows) -> None:
        """Append what Guerdon itself writes of referrals, and what it leads to."""
        head, member = work.heads[shard], work.members[shard][event.member_id]
        payload, identity = forwards.payload_of(event), event_identity(event.source, event.event_id)
        kind = forwards.kind_of(event)
        work.source_rows.append_own(kind, head, event.member_id, member.seq, event.event_id, payload, event.occurred_at)
        member.seq = head.seq
        work.touched[shard, event.member_id] = member
        if isinstance(event, Attribution):
            work.referrals.attributed(event, (shard, head.seq), self._judges[head.version].programme)
        failure = self._unjudgeable.get(identity)
        if failure is not None:
            message = f"{type(failure).__name__}: {failure}".replace("\0", "␀")
            record = SetAside(
                "evaluate", Reason.EVALUATION_FAILED, message, None, NO_OFFSET, NO_OFFSET, payload, event,
                personal.OWN_FORMAT,
            )  # fmt: skip
            self._hold(record, member, work, head)
        elif not member.state.held_since:
            self._judge_into(event, identity, member, (work, head, reward_rows), pack_text(event.event_id))

    def _judge_into(
        self,
        event: Event,
        identity: bytes,
        member: Member,
        into: tuple[Work, Head, RewardRows],
        event_id: bytes,
    ) -> None:
        """Fold an event and append what it gives; an exception in it voids the attempt, and the next one holds them."""
        work, head, reward_rows = into
        judge, books = self._judges[head.version], work.books.of(member)
        try:
            occurrence = Occurrence(identity, head.seq, head.recorded_ms)
            rewards = fold(member.state, event, occurrence, judge, books)  # type: ignore[arg-type]  # a touch has no member
        except Exception as error:  # noqa: BLE001  whatever it is, it holds this member and stops nobody else
            work.failures[identity] = error
            member.state.held_since = head.seq  # this attempt is void: find the other members' failures, too
            return
        if rewards:
            reward_rows.append(rewards, head, member.packed_id + event_id)

    @staticmethod
    def _append_memberless(event: Admitted, work: Work, programme: Programme) -> None:
        """Append a touch, which has no member and no state."""
        head = work.heads[event.shard]
        work.referrals.before(event.event, (event.shard, head.seq + 1), programme)
        texts = pack_text("") + _pack_source(event.event.source) + pack_text(event.event.event_id)
        work.source_rows.append(event, work.heads[event.shard], 0, texts, None)

    def _record(self, event: Admitted, member: Member, work: Work, reward_rows: RewardRows) -> None:
        """Append one event and what it leads to; an event of a held member is appended and waits."""
        head = work.heads[event.shard]
        owner = (event.shard, event.member_id)
        programme = self._judges[head.version].programme
        if type(event.event) in NOTED:
            decided = work.referrals.before(event.event, (event.shard, head.seq + 1), programme)
            if decided is not None:
                self._record_own(decided, event.shard, work, reward_rows)
        sealed = None
        if personal.is_personal(event.event):
            sealed = personal.seal(event.event, event.identity, work.keys[owner])
            work.profiles.setdefault(owner, member.state.profile)
        event_id = pack_text(event.event.event_id)
        texts = member.packed_id + _pack_source(event.event.source) + event_id
        work.source_rows.append(event, head, member.seq, texts, sealed)
        member.seq = head.seq
        work.touched[owner] = member
        if member.tracker is not None or (programme.terms.referral is not None and type(event.event) in FORWARDED):
            work.referrals.after(event.event, member, (event.shard, head.seq), programme)
        if event.kind == "erasure":
            work.erased.append(owner)
            member.state.erased = True  # of a held member, too: nothing more is kept of them
            member.state.profile = None
            work.keys[owner] = None
        if event.identity in self._unjudgeable:
            error = self._unjudgeable[event.identity]
            message = f"{type(error).__name__}: {error}".replace("\0", "␀")
            self._hold(set_aside(event, "evaluate", Reason.EVALUATION_FAILED, message), member, work, head)
        elif not member.state.held_since:
            if event.order_identity is not None:
                work.books.record(member, event.event, head.version)  # type: ignore[arg-type]  # only purchases have one
            self._judge_into(event.event, event.identity, member, (work, head, reward_rows), event_id)

    @staticmethod
    def _hold(record: SetAside, member: Member, work: Work, head: Head) -> None:
        """Hold a member from the head's last event on, and set aside why."""
        if not member.state.held_since:
            member.state.held_since = head.seq
        work.places[len(work.set_aside)] = (member.shard, head.seq)
        work.held[len(work.set_aside)] = member.member_id
        work.set_aside.append(record)

    def _append_source(self, cursor: Cursor, work: Work) -> None:
        for schema_id in sorted({event.schema_id for event in work.batch.admitted} - self._schemas_kept):
            history.keep_schema(cursor, schema_id, self._schema_text(schema_id) or "")
            self._schemas_kept.add(schema_id)
        work.source_rows.write_events(cursor)

    def _append_identities(self, cursor: Cursor, work: Work) -> None:
        work.source_rows.write_identities(cursor)

    def _append_rewards(self, cursor: Cursor, work: Work) -> None:
        if work.reward_rows is not None:
            work.reward_rows.write(cursor)

    def _save_states(self, cursor: Cursor, work: Work) -> None:
        changed = {
            owner: profiles.sealed(owner[1], work.touched[owner].state.profile, work.keys[owner])
            for owner, before in work.profiles.items()
            if work.touched[owner].state.profile != before
        }
        changed |= dict.fromkeys(work.erased, profiles.NOTHING)
        self._tell_standings(work)
        ledgers.save(cursor, work.touched.values(), work.books.judge)
        work.books.save_stock()
        work.books.budgets.save(work.generation)
        member_states.save(cursor, work.touched.values(), changed)
        work.referrals.save()
        contests.save_scores(cursor, work.generation, self._ranked(work))
        personal.drop_keys(cursor, work.erased)

    def _tell_standings(self, work: Work) -> None:
        """Set what `reward.member_tier` says of the members, where the programme has tiers."""
        for (shard, _), member in work.touched.items():
            _tell_standing(self._judges[work.heads[shard].version], member)

    def _ranked(self, work: Work) -> list[Member]:
        """Return the members whom contests may rank otherwise now."""
        judges = {shard: self._judges[head.version] for shard, head in work.heads.items()}
        if not any(judge.is_followed for judge in judges.values()):
            return []
        return [member for (shard, _), member in work.touched.items() if judges[shard].is_followed]

    def _save_heads(self, cursor: Cursor, work: Work) -> None:
        if work.heads:
            source_log.save_heads(cursor, work.heads.values(), work.generation)

    def _set_aside(self, cursor: Cursor, work: Work) -> None:
        if work.batch.released is None:
            quarantine.add(cursor, work.set_aside, work.keys, work.places)
        elif not work.set_aside or work.places:
            quarantine.resolve(cursor, work.batch.released, "released", None)
            quarantine.add(cursor, work.set_aside, work.keys, work.places)
        for index, place in work.places.items():
            held: dict[str, object] = {"member_id": work.held[index], "reason": work.set_aside[index].message}
            generations.add_fact(cursor, work.generation, place, "member_held", held)

    def _advance(self, cursor: Cursor, work: Work) -> None:
        offsets.advance(cursor, work.batch.moves, work.counts)

    STEPS: ClassVar[tuple[tuple[str, Callable[[LiveTransaction, Cursor, Work], None]], ...]] = (
        ("fence", _fence),
        ("look up", _look_up),
        ("load", _load),
        ("evaluate", _evaluate),
        ("hold budgets", _hold_budgets),
        ("append source", _append_source),
        ("append identities", _append_identities),
        ("append rewards", _append_rewards),
        ("save states", _save_states),
        ("save heads", _save_heads),
        ("set aside", _set_aside),
        ("advance offsets", _advance),
    )
    """The live transaction, in order; each name is a crash point before and after."""


def _tell_standing(judge: Judges, member: Member) -> None:
    member.standing = standing_of(judge, member.state)


def standing_of(judge: Judges, state: MemberState) -> Standings | None:
    """Return what is told of a member's tier, or None where the programme has no tiers."""
    clock = judge.tier_clock
    return None if clock is None or state.erased else clock.report(state.standing, state.clock_ms, state.first_ms)


def load_judge(cursor: Cursor, version: int) -> Judge:
    """Compile the programme that was activated as `version`."""
    loaded = load_programme(programmes.body_of(cursor, version), f"version {version}")
    if loaded.programme is None:
        raise LookupError(f"version {version} of the programme can no longer be loaded by this release")
    return compile_programme(loaded.programme, version)
