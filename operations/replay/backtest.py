"""Judge history by a programme file in memory and compare with the rewards given; nothing is written or locked."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.history.backtest import Backtest
from engine.history.replay import shares_anything
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.store import programmes
from engine.store.cursor import one
from engine.store.database import NO_LIMIT, connect
from engine.store.generations import meanings, shadows
from engine.store.generations.generation import Generation
from operations.replay import shard_pool
from operations.replay.difference import TwoSides, sum_up
from operations.replay.difference_sides import MAKE, FigureTerms, add_folded, add_generation, csv_of, terms_in, terms_of
from operations.replay.run import ALONE_EVENTS, connect_to_replay, programme_to_judge
from schemas.errors import AnswerIsNo
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Connection, Cursor
    from operations.replay.shard_pool import Shared

_MEMBERS = """
SELECT count(DISTINCT (shard, member_id)) FILTER (WHERE awards_before > 0) AS awarded_before,
       count(DISTINCT (shard, member_id)) FILTER (WHERE awards_after > 0) AS awarded_after
FROM difference_part
"""
_AFFECTED = """
SELECT count(*) FROM (
    SELECT shard, member_id FROM difference_member WHERE change <> 0
    UNION SELECT shard, member_id FROM difference_tier WHERE before IS DISTINCT FROM after
) affected
"""


@dataclass(frozen=True)
class Question:
    """Ask what a file would have given for events that occurred from `since_ms` on; None: for all events."""

    programme: Path
    since_ms: int | None = None
    cores: int = 1


class _Trial(NamedTuple):
    """Hold a generation that is not stored, its file, and how far to judge by it in each shard."""

    generation: Generation
    body: str
    upto: dict[int, int]

    @property
    def since_ms(self) -> int:
        """Return the time in ms from which the file judges."""
        return 0 if self.generation.from_ms is None else self.generation.from_ms

    def judges(self) -> dict[int, CompiledJudge]:
        """Return the judge of the file, by its version."""
        programme, version = load_programme(self.body, "the file").programme, self.generation.file_version
        assert programme is not None and version is not None  # noqa: PT018  it was checked before
        return {version: compile_programme(programme, version)}


class _Piece(NamedTuple):
    """Hold the result of folding some shards."""

    parts: str
    """Amounts by member, unit and rule, as CSV."""

    standings: str
    """The last tier of each member, as CSV."""

    active: int
    """How many members have events."""

    held: list[str]
    """Members who could not be judged."""


class Backtested(TwoSides):
    """Answer questions on the rewards that a programme would have given, compared with those given."""

    def __init__(self, connection: Connection, before: FigureTerms, after: FigureTerms, facts: dict[str, Any]) -> None:
        super().__init__(connection, before, after)
        self._facts = facts

    def document(self) -> dict[str, Any]:
        """Return the figures for JSON; `before` are the rewards given, `after` those that would have been given."""
        (members,) = self._rows(_MEMBERS)
        (affected,) = one(self._cursor, _AFFECTED)
        facts = dict(self._facts)
        facts["members"] = {"active": facts.pop("active"), **members, "affected": int(affected)}
        return {**facts, **self.figures()}


@contextmanager
def backtested(
    database_url: str, question: Question, report: Callable[[int, int], None] = lambda _done, _total: None
) -> Iterator[Backtested]:
    """Fold the source log in memory as a replay of the file would, and yield the comparison.

    Args:
        database_url: the address of Guerdon's database.
        question: the file, the time from which it judges, and the number of processes.
        report: called with how many source events are folded, and how many there are.

    Raises:
        InputError: the programme cannot be used.
        AnswerIsNo: this history cannot be judged by it.
        ServiceUnreachable: PostgreSQL does not answer, or a process was ended from outside.
    """
    start_s = time.monotonic()
    with closing(
        connect(database_url, application="guerdon backtest", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    ) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection:
            # the trial, and tables for both sides
            cursor = connection.cursor()
            trial, terms = _trial(cursor, question)
            is_merged = shares_anything(cursor, trial.generation, trial.upto, trial.judges())
            cursor.execute(MAKE)
            base = trial.generation.base
            assert base is not None  # it is the live one
            since = "-infinity" if question.since_ms is None else iso_from_instant(question.since_ms)

            # PostgreSQL adds up the live side while the file's side is folded here
            with ThreadPoolExecutor(1) as thread:
                live_side = thread.submit(add_generation, cursor, base, since, is_after=False)
                try:
                    pieces = list(_fold(database_url, trial, question.cores, report, is_merged=is_merged))
                except BaseException:
                    connection.cancel()  # otherwise this would wait for sums that nobody needs any more
                    raise
                live_side.result()

            # both together
            for piece in pieces:
                add_folded(cursor, piece.parts, piece.standings)
            sum_up(cursor)
            facts: dict[str, Any] = {
                "programme": str(question.programme),
                "since": None if question.since_ms is None else since,
                "base": base,
                "meaning_before": trial.generation.base_meaning,
                "meaning_after": trial.generation.meaning,
                "events": sum(trial.upto.values()),
                "active": sum(piece.active for piece in pieces),
                "members_held": sorted(member for piece in pieces for member in piece.held),
            }
            comparison = Backtested(connection, terms_of(cursor, base), terms, facts)
            facts["seconds"] = round(time.monotonic() - start_s, 3)
            yield comparison


def _trial(cursor: Cursor, question: Question) -> tuple[_Trial, FigureTerms]:
    """Return the generation that the question would make, up to the present end of the log, and the file's terms."""
    programme = programme_to_judge(cursor, question.programme, "tested")
    base, meaning = meanings.live(cursor)
    version = programmes.number_for(cursor, programme)
    body = question.programme.read_text("utf-8")
    generation = Generation(
        number=0, status="shadow", base=base, file_version=version, from_ms=question.since_ms, to_ms=None,
        base_meaning=meaning,
    )  # fmt: skip
    return _Trial(generation, body, shadows.positions(cursor, base)), terms_in(programme)


def _fold(
    database_url: str, trial: _Trial, cores: int, report: Callable[[int, int], None], *, is_merged: bool
) -> Iterator[_Piece]:
    """Fold all shards: merged in this process, or each by itself."""
    total = sum(trial.upto.values())
    done = 0

    def count(events: int) -> None:
        nonlocal done
        done += events
        report(done, total)

    # in this process, where members share a budget, stock or a contest, or there is little to do
    report(0, total)
    if is_merged or cores == 1 or total < ALONE_EVENTS:
        with (
            closing(connect_to_replay(database_url)) as connection,
            connection,
            connection.cursor() as cursor,
            shard_pool.seldom_collected(),
        ):
            judges = trial.judges()
            for upto in [trial.upto] if is_merged else [{shard: upto} for shard, upto in trial.upto.items()]:
                yield _folded(cursor, trial._replace(upto=upto), judges, count)
        return

    # else in several
    longest_first = sorted(trial.upto, key=lambda shard: -trial.upto[shard])
    pieces = [(shard,) for shard in longest_first]
    start = shard_pool.Start(_begin_process, (database_url, trial))
    yield from shard_pool.work(cores, start, _fold_shard, pieces, lambda events: report(events, total))


def _folded(cursor: Cursor, trial: _Trial, judges: Mapping[int, CompiledJudge], count: Callable[[int], None]) -> _Piece:
    fold = Backtest(cursor, trial.generation, judges, trial.since_ms)
    fold.run(trial.upto, count)
    standings = ((*owner, tier) for owner, tier in fold.tiers.items())
    active = len(fold.active - {""})  # ticks and touches have no member
    return _Piece(csv_of(fold.parts()), csv_of(standings), active, [each.member_id for each in fold.suspensions])


class _Process(NamedTuple):
    """Hold the tools of a process of the pool."""

    connection: Connection
    trial: _Trial
    judges: dict[int, CompiledJudge]
    shared: Shared


_processes: list[_Process] = []


def _begin_process(shared: Shared, database_url: str, trial: _Trial) -> None:
    _processes.append(_Process(connect_to_replay(database_url), trial, trial.judges(), shared))


def _fold_shard(shard: int) -> _Piece:
    (mine,) = _processes
    trial = mine.trial._replace(upto={shard: mine.trial.upto[shard]})

    def count(events: int) -> None:
        mine.shared.add(events)
        if mine.shared.stop.is_set():
            raise AnswerIsNo("the back-test was interrupted")

    with mine.connection, mine.connection.cursor() as cursor:
        return _folded(cursor, trial, mine.judges, count)
