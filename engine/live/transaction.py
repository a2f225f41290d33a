"""Take a batch into both logs, in one PostgreSQL transaction: fence, look up, load, evaluate, append, advance.

Everything or nothing. Exactly once in effect rests on three facts: the offsets move in the same transaction as the
rows, a worker that is no longer alone finds them moved, and a shard has one writer at a time, whoever holds its head.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, UniqueViolation

from engine.ledger.ranks import report_of
from engine.live import concerned, own_work, ticks
from engine.live.duplicates import LookUps, NotLookedUp, Seen
from engine.live.in_a_row import InARow
from engine.live.recording import Recorder
from engine.live.safety_net import SafetyNet, Trial, still_failing
from engine.live.work import EvaluationFailed, Outcome, Work, outcome_of
from engine.store import digest_secret, quarantine
from engine.store.campaigns import contests
from engine.store.campaigns.budgets import BudgetsMoved, StoredBudgets
from engine.store.database import ANSWERED_WITHIN, FROZEN_AFTER, RETRYABLE, WORKER, connect, end_frozen, set_limit
from engine.store.generations import live_generation
from engine.store.generations.stillness import Stillness
from engine.store.kafka import offsets
from engine.store.kafka.offsets import Fenced
from engine.store.logs import history, source_log
from engine.store.logs.reward_log import PostingFields, RewardRows
from engine.store.members import ledgers, member_states, personal, profiles
from engine.store.members.books import StoredBooks
from engine.store.members.member_states import Member, MemberCache
from engine.store.programmes import load_judge
from engine.store.referrals.attribution import Referrals
from engine.store.session.failures import StepFailed, is_data
from engine.store.session.limits import limit_of
from engine.store.session.voice import say
from schemas.errors import CannotGoOn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from engine.live.batch import Batch
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.rules.judge import Judge
    from engine.store.cursor import Cursor
    from engine.store.members.personal import Owner

    Step = Callable[["LiveTransaction", Cursor, Work], None]

ATTEMPTS_MAX = 20
"""How often a batch is begun anew after a deadlock or a race; each race has a winner, so the last try is far away."""


Done = TypeVar("Done")


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
        statement_max: str = ANSWERED_WITHIN,
    ) -> None:
        self._database_url = database_url
        self._connection = connect(database_url, application=WORKER, statement_max=statement_max)
        self._schema_text = schema_text
        self._observe = observe
        self._schemas_kept: set[int] = {personal.OWN_FORMAT}
        self._cache = MemberCache()
        self._judges: dict[int, CompiledJudge] = {}
        self._postings = PostingFields()
        self._unjudgeable: dict[bytes, Exception] = {}
        self._in_a_row = InARow()
        self._look_ups = LookUps()
        self._closings = contests.Closings()
        self._digest_secret: bytes | None = None
        self._stillness: Stillness | None = None
        self._lock_live = live_generation.lock_live
        with self._connection, self._connection.cursor() as cursor:
            member_states.prepare(cursor)
            set_limit(cursor, "lock_timeout", FROZEN_AFTER)

    def limit_of(self, error: BaseException, took_s: float) -> str | None:
        """Return the time limit of PostgreSQL's that ended an attempt of so many seconds; None where none has."""
        return limit_of(error, self._connection, took_s)

    def cancel(self) -> None:
        """Let the statement under way fail; safe to call from another thread."""
        with suppress(psycopg2.Error):  # there is no connection left to cancel anything on
            self._connection.cancel()

    def close(self) -> None:
        """Close the connection; a transaction under way is rolled back by PostgreSQL."""
        self._connection.close()
        if self._stillness is not None:
            self._stillness.close()

    def commit(self, batch: Batch) -> Outcome:
        """Write `batch` and return what became of it; what cannot be written is set aside, everything else is taken.

        Raises:
            engine.store.offsets.Fenced: another worker has taken these offsets; nothing was written.
            psycopg2.Error: PostgreSQL is away; whether the transaction took effect, the offsets will tell.
            AnswerIsNo: a record that is being released fails again; nothing was written.
            CannotGoOn: so much cannot be written that the fault must be ours; nothing was written.
        """
        try:
            outcome, retried = self._until_committed(partial(self._attempt, batch))
        except StepFailed as failure:
            if batch.released is not None:
                raise still_failing(batch.released, failure) from failure
            outcome, retried = self._until_committed(partial(self._attempt_in_parts, batch))
        return replace(outcome, retried=retried) if retried else outcome

    def commit_together(self, batches: Callable[[Cursor], Iterable[Batch]]) -> list[Outcome]:
        """Write several batches in one transaction, one after the other, and return what became of each.

        Args:
            batches: yields them, and may use the transaction's cursor; the batches before are written then. It is
                called again where the transaction is begun anew.

        Raises:
            psycopg2.Error: as `commit`.
            CannotGoOn: something of it cannot be written; nothing was.
        """
        try:
            return self._until_committed(partial(self._attempt_together, batches))[0]
        except StepFailed as failure:
            raise CannotGoOn(f"what was to be written cannot be ({failure}); nothing was written") from failure
        except EvaluationFailed as failure:  # in one batch after another, each found in an attempt of its own
            raise CannotGoOn(
                f"of what was to be written together, more than {ATTEMPTS_MAX - 1} batches cannot be judged; nothing "
                "was written"
            ) from failure

    def hold_still(self, lock_timeout_s: int) -> None:
        """Let nobody else evaluate until this object is closed.

        Raises:
            psycopg2.errors.LockNotAvailable: somebody's transaction was under way for so long.
        """
        self._stillness = Stillness(self._database_url, lock_timeout_s)
        self._lock_live = self._stillness.live

    def _until_committed(self, attempt: Callable[[], Done]) -> tuple[Done, int]:
        """Return what an attempt came to in the end, and how often it was begun anew."""
        for retried in range(ATTEMPTS_MAX):
            try:
                return attempt(), retried
            except StepFailed as failure:
                if not failure.may_be_race or retried == ATTEMPTS_MAX - 1:
                    raise
                self._learn(failure.error)
            except (EvaluationFailed, NotLookedUp, *RETRYABLE) as error:
                if retried == ATTEMPTS_MAX - 1:
                    raise
                _tell_of_race(error, retried + 1)
                self._learn(error)
        raise AssertionError("the last attempt has returned or raised")

    def _learn(self, error: Exception) -> None:
        """Take from a failed attempt what the next one must do otherwise."""
        if isinstance(error, NotLookedUp | UniqueViolation):
            self._look_ups.insert_failed()
        elif isinstance(error, LockNotAvailable):
            end_frozen(self._database_url)

    def _close_contests(self, until_ms: int) -> None:
        """Close what has ended, in a transaction of its own that holds every shard; if that fails, all else goes on."""
        try:
            with self._connection, self._connection.cursor() as cursor:
                contests.close_ended(cursor, partial(self._judge, cursor), until_ms, _tell_tier, self._lock_live)
        except Exception as error:
            if not is_data(error):  # a constraint is no race here: nobody else writes while every head is held
                raise
            with self._connection, self._connection.cursor() as cursor:
                contests.set_aside(cursor, error)
        self._closings.looked(self._judges, until_ms)

    def _attempt(self, batch: Batch) -> Outcome:
        if batch.clock is not None and self._closings.are_due(self._judges, batch.clock.until_ms):
            self._close_contests(batch.clock.until_ms)
        with self._committing() as cursor:
            work = self._take_steps(cursor, batch)
            if batch.released is None:  # one command after the other says of its record that it still fails
                self._in_a_row.look_at(work, self._unjudgeable)
        self._cache.keep({shard: (work.generation, head.seq) for shard, head in work.heads.items()})
        for member in work.touched.values():
            member.stored = True
        return outcome_of(work)

    def _attempt_in_parts(self, batch: Batch) -> Outcome:
        """Take a batch that failed as a whole part by part, in one transaction, so that only what fails goes aside."""
        with self._committing() as cursor:
            outcome = SafetyNet(
                cursor,
                batch,
                Trial(self._take_steps, self._forget, self._learn, self._unjudgeable, self._lock_live),
                self._in_a_row,
            ).take()
        self._cache.forget()
        return outcome

    def _attempt_together(self, batches: Callable[[Cursor], Iterable[Batch]]) -> list[Outcome]:
        outcomes = []
        with self._committing() as cursor:
            for batch in batches(cursor):
                outcomes.append(outcome_of(self._take_steps(cursor, batch)))
                member_states.begin_again(cursor)
        self._cache.forget()
        return outcomes

    @contextmanager
    def _committing(self) -> Iterator[Cursor]:
        """Yield the cursor of a transaction that is committed at the end, and leaves nothing in memory if it fails."""
        try:
            with self._connection.cursor() as cursor:
                yield cursor
            self._observe("before commit")
            if self._stillness is not None:
                self._stillness.check()
            self._connection.commit()
            self._observe("after commit")
        except BaseException:
            self._forget()
            with suppress(psycopg2.Error):  # a broken connection has nothing left to roll back
                self._connection.rollback()
            raise
        self._unjudgeable.clear()
        self._in_a_row.settle()

    def _forget(self) -> None:
        """Believe nothing that was done in memory since the last commit, or the last savepoint."""
        self._cache.forget()
        self._schemas_kept = {personal.OWN_FORMAT}

    def _take_steps(self, cursor: Cursor, batch: Batch) -> Work:
        """Take all steps; where budgets have moved, begin again in the same transaction, which holds them now."""
        work = Work(batch, set_aside=list(batch.set_aside))
        while True:
            try:
                for name, step in self.STEPS:
                    self._observe(f"before {name}")
                    self._take_step(name, step, cursor, work)
                    self._observe(f"after {name}")
            except BudgetsMoved as moved:
                self._cache.forget()  # the states in it are those of the evaluation that came to nothing
                work = Work(
                    batch, set_aside=list(batch.set_aside), locked_budgets=moved.locked,
                    drained=work.drained, overtaken=work.overtaken, due=work.due,
                )  # fmt: skip
            else:
                return work

    def _take_step(self, name: str, step: Step, cursor: Cursor, work: Work) -> None:
        """Take one step; where what it writes is at fault, say so, with the step's name."""
        try:
            step(self, cursor, work)
        except (BudgetsMoved, EvaluationFailed, Fenced, NotLookedUp):
            raise
        except Exception as error:
            if is_data(error):
                raise StepFailed(name, error) from error
            raise

    def _fence(self, cursor: Cursor, work: Work) -> None:
        work.generation = self._lock_live(cursor)
        if to_pass := offsets.compare_and_set(cursor, work.batch.moves):
            offsets.refuse_passing(to_pass, [*work.batch.admitted, *work.batch.set_aside])
        work.recorded_ms = live_generation.now_ms(cursor)

    def _look_up(self, cursor: Cursor, work: Work) -> None:
        work.seen = Seen(cursor, self._look_ups.known(cursor, work.batch))

    def _load(self, cursor: Cursor, work: Work) -> None:
        work.heads = ticks.lock_heads_of(cursor, work.batch, work.generation)
        own_work.take_ticks_and_forwards(cursor, work)
        for shard, head in work.heads.items():
            head.record_at(max(head.recorded_ms, work.recorded_ms))
            work.members[shard] = self._cache.of_shard(shard, (work.generation, head.seq))
        self._load_members(cursor, work, concerned.own(work) + concerned.senders(work))
        work.referrals = Referrals(cursor, self._secret(cursor), work.members)
        own_work.take_waiting(cursor, work)
        self._load_members(cursor, work, concerned.own(work))
        self._load_judges(cursor, {head.version for head in work.heads.values()})
        programmes = [self._judges[version].programme for version in {head.version for head in work.heads.values()}]
        work.referrals.prepare(work.batch.admitted, work.due or [], programmes)
        work.referrers = concerned.referrers(work)
        self._load_members(cursor, work, work.referrers)
        budgets = StoredBudgets(cursor, work.locked_budgets)
        work.books = StoredBooks(cursor, work.generation, partial(self._judge, cursor), budgets)
        ledgers.open_ledgers(cursor, concerned.movers(work).values())
        work.books.lock_stock(concerned.stocked(work, self._judges))
        owners = {(event.shard, event.member_id) for event in work.batch.admitted if personal.is_personal(event.event)}
        readers = sorted(owners | concerned.readers(work, self._judges))
        profiles.open_profiles(cursor, [work.members[shard][member_id] for shard, member_id in readers])
        owners |= {owner for record in work.set_aside if (owner := quarantine.personal_owner(record)) is not None}
        work.keys = personal.keys_for(cursor, owners)

    @staticmethod
    def _load_members(cursor: Cursor, work: Work, owners: Iterable[Owner]) -> None:
        """Read those of some members who are neither in the cache nor read yet."""
        missing = {owner for owner in owners if owner[1] not in work.members[owner[0]]}
        for member in member_states.load(cursor, sorted(missing)):
            work.members[member.shard][member.member_id] = member

    def _secret(self, cursor: Cursor) -> bytes:
        if self._digest_secret is None:
            self._digest_secret = digest_secret.read(cursor)
        return self._digest_secret

    def _load_judges(self, cursor: Cursor, versions: set[int]) -> None:
        if max(versions, default=0) > max(self._judges, default=0):
            self._judges.clear()  # what is activated later may have metrics that earlier versions count from now on
        for version in sorted(versions):
            self._judge(cursor, version)

    def _judge(self, cursor: Cursor, version: int) -> CompiledJudge:
        judge = self._judges.get(version)
        if judge is None:
            judge = self._judges[version] = load_judge(cursor, version)
        return judge

    def _evaluate(self, _cursor: Cursor, work: Work) -> None:
        work.reward_rows = RewardRows(work.generation, self._postings)
        Recorder(work, work.reward_rows, self._judges, self._unjudgeable).record_all()
        if work.failures:
            self._unjudgeable |= work.failures
            raise EvaluationFailed

    def _hold_budgets(self, _cursor: Cursor, work: Work) -> None:
        work.books.budgets.hold()

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
        self._tell_tiers(work)
        work.books.save(work.touched.values())
        work.books.budgets.save(work.generation)
        member_states.save(cursor, work.touched.values(), changed)
        work.referrals.save()
        contests.save_scores(cursor, work.generation, self._ranked(work))
        personal.drop_keys(cursor, work.erased)

    def _tell_tiers(self, work: Work) -> None:
        """Set what `reward.member_tier` says of the members, where the programme has tiers."""
        for (shard, _), member in work.touched.items():
            _tell_tier(self._judges[work.heads[shard].version], member)

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
            live_generation.add_fact(cursor, work.generation, place, "member_held", held)

    def _advance(self, cursor: Cursor, work: Work) -> None:
        offsets.advance(cursor, work.batch.moves, work.counts)

    STEPS: ClassVar[tuple[tuple[str, Step], ...]] = (
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


def _tell_of_race(error: Exception, failed: int) -> None:
    """Tell that a lock was not to be had, or that locks crossed; other reasons to begin anew are daily bread."""
    if isinstance(error, LockNotAvailable | DeadlockDetected):
        why = str(error).strip().splitlines()[0]
        say("writer repeats", f"the batch is begun anew ({why}), try {failed} of {ATTEMPTS_MAX}", failed=failed)


def _tell_tier(judge: Judge, member: Member) -> None:
    member.tier_report = report_of(judge, member.state)
