"""Take a batch into both logs, in one PostgreSQL transaction: fence, look up, load, evaluate, append, advance.

Everything is written, or nothing. Each event takes effect exactly once, for three reasons: the offsets move in the same
transaction as the rows, a worker that is no longer alone finds them moved, and only one writer at a time holds the head
of a shard.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, UniqueViolation

from engine.live import save
from engine.live.duplicates import LookUps, NotLookedUp, Seen
from engine.live.in_a_row import InARow
from engine.live.load import Loader
from engine.live.recording import Recorder
from engine.live.safety_net import SafetyNet, Trial, still_failing
from engine.live.work import EvaluationFailed, Outcome, Work, outcome_of
from engine.store.campaigns import contests
from engine.store.campaigns.budgets import BudgetsMoved
from engine.store.database import ANSWERED_WITHIN, FROZEN_AFTER, RETRYABLE, WORKER, connect, end_frozen, set_limit
from engine.store.generations import live_generation
from engine.store.generations.stillness import Stillness
from engine.store.kafka import offsets
from engine.store.kafka.offsets import Fenced
from engine.store.logs import history
from engine.store.logs.reward_log import PostingFields, RewardRows
from engine.store.members import member_states, personal
from engine.store.session.failures import StepFailed, is_data
from engine.store.session.limits import limit_of
from engine.store.session.voice import say
from schemas.errors import CannotGoOn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from engine.live.batch import Batch
    from engine.store.cursor import Cursor

    Step = Callable[[Cursor, Work], None]

ATTEMPTS_MAX = 20
"""How often a batch is tried, deadlocks and races included.

Somebody wins each race, so a batch rarely needs more than a few tries.
"""


Done = TypeVar("Done")


def _observe_nothing(_point: str) -> None:
    """Stand in for those who watch the steps: the bench times them, the chaos tests kill the process at one."""


class LiveTransaction:
    """Write batches with one connection; not to be shared between threads.

    Args:
        database_url: the address of Guerdon's database.
        schema_text: returns the JSON text of a writer schema by its id, for the log that needs it to be read.
        observe: called with "before NAME" and "after NAME" of each step, and of the commit.
        statement_max: how long PostgreSQL may take for one statement, in its own notation.
    """

    def __init__(
        self,
        database_url: str,
        schema_text: Callable[[int], str | None],
        *,
        observe: Callable[[str], None] = _observe_nothing,
        statement_max: str = ANSWERED_WITHIN,
    ) -> None:
        # the connection
        self._database_url = database_url
        self._connection = connect(database_url, application=WORKER, statement_max=statement_max)
        self._schema_text = schema_text
        self._observe = observe

        # what stays true from batch to batch
        self._schemas_stored: set[int] = {personal.OWN_FORMAT}
        self._loader = Loader()
        self._postings = PostingFields()
        self._unjudgeable: dict[bytes, Exception] = {}
        self._in_a_row = InARow()
        self._look_ups = LookUps()
        self._closings = contests.Closings()

        # how the live generation is locked, so that no promotion replaces it meanwhile
        self._stillness: Stillness | None = None
        self._lock_live = live_generation.lock_live
        with self._connection, self._connection.cursor() as cursor:
            member_states.prepare(cursor)
            set_limit(cursor, "lock_timeout", FROZEN_AFTER)

    def limit_of(self, error: BaseException, took_s: float) -> str | None:
        """Return which of PostgreSQL's time limits ended an attempt that took `took_s` seconds; None: no limit did."""
        return limit_of(error, self._connection, took_s)

    def cancel(self) -> None:
        """Cancel the statement under way; another thread may call this."""
        with suppress(psycopg2.Error):  # there is no connection left to cancel anything on
            self._connection.cancel()

    def close(self) -> None:
        """Close the connection; a transaction under way is rolled back by PostgreSQL."""
        self._connection.close()
        if self._stillness is not None:
            self._stillness.close()

    def commit(self, batch: Batch) -> Outcome:
        """Write a batch and count its results; events that cannot be written are set aside.

        Raises:
            engine.store.kafka.offsets.Fenced: another worker has taken these offsets; nothing was written.
            psycopg2.Error: PostgreSQL is away; the offsets will tell whether the transaction took effect.
            AnswerIsNo: a record that is being released fails again; nothing was written.
            CannotGoOn: too many events cannot be written, so the fault must be ours; nothing was written.
        """
        try:
            outcome, retried = self._until_committed(partial(self._attempt, batch))
        except StepFailed as failure:
            if batch.released is not None:
                raise still_failing(batch.released, failure) from failure
            outcome, retried = self._until_committed(partial(self._attempt_in_parts, batch))
        return replace(outcome, retried=retried) if retried else outcome

    @property
    def steps(self) -> tuple[tuple[str, Step], ...]:
        """Return the steps of the live transaction, in order; each name is a crash point before it and after it."""
        return (
            ("fence", self._fence),
            ("look up", self._look_up),
            ("load", self._loader.load),
            ("evaluate", self._evaluate),
            ("hold budgets", self._hold_budgets),
            ("append source", self._append_source),
            ("append identities", save.append_identities),
            ("append rewards", save.append_rewards),
            ("save states", save.save_states),
            ("save heads", save.save_heads),
            ("set aside", save.set_aside),
            ("advance offsets", save.advance_offsets),
        )

    def commit_together(self, batches: Callable[[Cursor], Iterable[Batch]]) -> list[Outcome]:
        """Write several batches in one transaction, one after the other, and count the results of each.

        Args:
            batches: yields them, and may use the transaction's cursor, which sees the batches before. It is called
                again where the transaction begins again.

        Raises:
            psycopg2.Error: as `commit`.
            CannotGoOn: one of the batches cannot be written; nothing was written.
        """
        try:
            return self._until_committed(partial(self._attempt_together, batches))[0]
        except StepFailed as failure:
            raise CannotGoOn(f"what was to be written cannot be ({failure}); nothing was written") from failure
        except EvaluationFailed as failure:  # each attempt stops at the next such batch, and the tries ran out
            raise CannotGoOn(
                f"of what was to be written together, more than {ATTEMPTS_MAX - 1} batches cannot be judged; nothing "
                "was written"
            ) from failure

    def hold_still(self, lock_timeout_s: int) -> None:
        """Let nobody else evaluate until this object is closed.

        Raises:
            psycopg2.errors.LockNotAvailable: somebody's transaction was still under way after `lock_timeout_s`.
        """
        self._stillness = Stillness(self._database_url, lock_timeout_s)
        self._lock_live = self._stillness.live

    def _until_committed(self, attempt: Callable[[], Done]) -> tuple[Done, int]:
        """Attempt until one attempt commits; return its result, and how many failed before it."""
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
                _report_race(error, retried + 1)
                self._learn(error)
        raise AssertionError("the last attempt has returned or raised")

    def _learn(self, error: Exception) -> None:
        """Let the next attempt avoid the failure of the last one."""
        if isinstance(error, NotLookedUp | UniqueViolation):
            self._look_ups.note_failed_insert()
        elif isinstance(error, LockNotAvailable):
            end_frozen(self._database_url)

    def _close_contests(self, until_ms: int) -> None:
        """Close contests that have ended, in a transaction of their own; where that fails, the batch goes on."""
        try:
            with self._connection, self._connection.cursor() as cursor:
                judge_of = partial(self._loader.judge, cursor)
                contests.close_ended(cursor, judge_of, until_ms, save.report_tier, self._lock_live)
        except Exception as error:
            # a broken constraint cannot be a race here, as this transaction holds all heads: it is bad data
            if not is_data(error):
                raise
            with self._connection, self._connection.cursor() as cursor:
                contests.set_aside(cursor, error)
        self._closings.note_look(self._loader.judges, until_ms)

    def _attempt(self, batch: Batch) -> Outcome:
        """Take a batch as a whole."""
        if batch.clock is not None and self._closings.are_due(self._loader.judges, batch.clock.until_ms):
            self._close_contests(batch.clock.until_ms)
        with self._committing() as cursor:
            work = self._take_steps(cursor, batch)
            if batch.released is None:  # each release reports its own failure, however many fail in a row
                self._in_a_row.look_at(work, self._unjudgeable)
        self._loader.keep_members(work)
        return outcome_of(work)

    def _attempt_in_parts(self, batch: Batch) -> Outcome:
        """Take a batch part by part, in one transaction, so that only the events at fault are set aside."""
        trial = Trial(self._take_steps, self._forget, self._learn, self._unjudgeable, self._lock_live)
        with self._committing() as cursor:
            outcome = SafetyNet(cursor, batch, trial, self._in_a_row).take()
        self._loader.forget_members()
        return outcome

    def _attempt_together(self, batches: Callable[[Cursor], Iterable[Batch]]) -> list[Outcome]:
        """Take several batches in one transaction."""
        outcomes = []
        with self._committing() as cursor:
            for batch in batches(cursor):
                outcomes.append(outcome_of(self._take_steps(cursor, batch)))
                member_states.begin_again(cursor)
        self._loader.forget_members()
        return outcomes

    @contextmanager
    def _committing(self) -> Iterator[Cursor]:
        """Yield the cursor of a transaction, and commit it at the end; where it fails, forget what it did in memory."""
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
        """Forget what was done in memory since the last commit, or the last savepoint."""
        self._loader.forget_members()
        self._schemas_stored = {personal.OWN_FORMAT}

    def _take_steps(self, cursor: Cursor, batch: Batch) -> Work:
        """Take all steps; where others have used budgets meanwhile, begin again with those budgets locked."""
        work = Work(batch, set_aside=list(batch.set_aside))
        while True:
            # take the steps in order
            try:
                for name, step in self.steps:
                    self._observe(f"before {name}")
                    self._take_step(name, step, cursor, work)
                    self._observe(f"after {name}")

            # or evaluate again, with the ticks and forwarded events that were read
            except BudgetsMoved as moved:
                self._loader.forget_members()  # their states come from the evaluation that does not count
                work = Work(
                    batch, set_aside=list(batch.set_aside), locked_budgets=moved.locked,
                    drained=work.drained, overtaken=work.overtaken, waited=work.waited,
                )  # fmt: skip
            else:
                return work

    def _take_step(self, name: str, step: Step, cursor: Cursor, work: Work) -> None:
        """Take one step; where the data is at fault, raise `StepFailed` with the step's name."""
        try:
            step(cursor, work)
        except (BudgetsMoved, EvaluationFailed, Fenced, NotLookedUp):
            raise
        except Exception as error:
            if is_data(error):
                raise StepFailed(name, error) from error
            raise

    def _fence(self, cursor: Cursor, work: Work) -> None:
        """Lock the live generation, so that none replaces it, and the batch's offsets, if no worker has moved them."""
        work.generation = self._lock_live(cursor)
        if to_pass := offsets.compare_and_set(cursor, work.batch.moves):
            offsets.refuse_passing(to_pass, [*work.batch.admitted, *work.batch.set_aside])
        work.recorded_ms = live_generation.now_ms(cursor)

    def _look_up(self, cursor: Cursor, work: Work) -> None:
        """Ask the log which of the batch's events it has."""
        work.seen = Seen(cursor, self._look_ups.look_up(cursor, work.batch))

    def _evaluate(self, _cursor: Cursor, work: Work) -> None:
        """Judge the batch, and collect the rows of both logs."""
        work.reward_rows = RewardRows(work.generation, self._postings)
        Recorder(work, work.reward_rows, self._unjudgeable).record_all()
        if work.failures:
            self._unjudgeable |= work.failures
            raise EvaluationFailed

    def _hold_budgets(self, _cursor: Cursor, work: Work) -> None:
        """Lock the budgets that awards were counted in."""
        work.books.budgets.hold()

    def _append_source(self, cursor: Cursor, work: Work) -> None:
        """Append the source events, with the writer schemas that are not stored yet."""
        for schema_id in sorted({event.schema_id for event in work.batch.admitted} - self._schemas_stored):
            history.keep_schema(cursor, schema_id, self._schema_text(schema_id) or "")
            self._schemas_stored.add(schema_id)
        work.source_rows.write_events(cursor)


def _report_race(error: Exception, failed: int) -> None:
    """Log that a lock could not be had, or that locks crossed; other reasons to begin again happen every day."""
    if isinstance(error, LockNotAvailable | DeadlockDetected):
        why = str(error).strip().splitlines()[0]
        say("writer repeats", f"the batch is begun anew ({why}), try {failed} of {ATTEMPTS_MAX}", failed=failed)
