"""Judge history by a programme file in memory and compare it with what was given; nothing is written or locked."""

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
from operations.replay.difference import Figures, sum_up
from operations.replay.difference_sides import MAKE, Terms, add_folded, add_generation, csv_of, terms_in, terms_of
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
    """Hold what is asked: what the file would give for events that occurred from `since_ms` on; None: all of them."""

    programme: Path
    since_ms: int | None = None
    cores: int = 1


class _Trial(NamedTuple):
    """Hold how history is judged: by a generation that is not stored, whose file is not stored either."""

    generation: Generation
    body: str
    upto: dict[int, int]

    @property
    def since_ms(self) -> int:
        """Return from when on events are judged by the file, ms."""
        return 0 if self.generation.from_ms is None else self.generation.from_ms

    def judges(self) -> dict[int, CompiledJudge]:
        """Return the judge of the file, by its version."""
        programme, version = load_programme(self.body, "the file").programme, self.generation.file_version
        assert programme is not None and version is not None  # noqa: S101, PT018  it was checked before
        return {version: compile_programme(programme, version)}


class _Piece(NamedTuple):
    """Hold what a fold of some shards came to: parts and last tiers as CSV, active members, and who is held."""

    parts: str
    standings: str
    active: int
    held: list[str]


class Backtested(Figures):
    """Answer questions on what a programme would have given, beside what was given."""

    def __init__(self, connection: Connection, terms: tuple[Terms, Terms], told: dict[str, Any]) -> None:
        super().__init__(connection, *terms)
        self._told = told

    def document(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them; `before` is what was given, `after` what would have been."""
        (members,) = self._rows(_MEMBERS)
        (affected,) = one(self._cursor, _AFFECTED)
        told = dict(self._told)
        told["members"] = {"active": told.pop("active"), **members, "affected": int(affected)}
        return {**told, **self.figures()}


@contextmanager
def backtested(
    database_url: str, question: Question, report: Callable[[int, int], None] = lambda _done, _total: None
) -> Iterator[Backtested]:
    """Fold the source log in memory as a replay of the file would, and yield what it came to.

    Args:
        database_url: of Guerdon's database.
        question: the file, since when, and by how many processes.
        report: is told how many source events are folded, of how many.

    Raises:
        InputError: the programme cannot be used.
        AnswerIsNo: this history cannot be judged by it.
        ServiceUnreachable: PostgreSQL does not answer, or a process was ended from outside.
    """
    begun = time.monotonic()
    with closing(
        connect(database_url, application="guerdon backtest", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    ) as connection:
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection:
            cursor = connection.cursor()
            trial, terms = _trial(cursor, question)
            is_merged = shares_anything(cursor, trial.generation, trial.upto, trial.judges())
            cursor.execute(MAKE)
            base = trial.generation.base
            assert base is not None  # noqa: S101  it is the live one
            since = "-infinity" if question.since_ms is None else iso_from_instant(question.since_ms)
            with ThreadPoolExecutor(1) as beside:
                given = beside.submit(add_generation, cursor, base, since, is_after=False)
                try:
                    pieces = list(_fold(database_url, trial, question.cores, report, is_merged=is_merged))
                except BaseException:
                    connection.cancel()  # else the end of this would wait for a sum that nobody wants any more
                    raise
                given.result()
            for piece in pieces:
                add_folded(cursor, piece.parts, piece.standings)
            sum_up(cursor)
            told: dict[str, Any] = {
                "programme": str(question.programme),
                "since": None if question.since_ms is None else since,
                "base": base,
                "meaning_before": trial.generation.base_meaning,
                "meaning_after": trial.generation.meaning,
                "events": sum(trial.upto.values()),
                "active": sum(piece.active for piece in pieces),
                "members_held": sorted(member for piece in pieces for member in piece.held),
            }
            found = Backtested(connection, (terms_of(cursor, base), terms), told)
            told["seconds"] = round(time.monotonic() - begun, 3)
            yield found


def _trial(cursor: Cursor, question: Question) -> tuple[_Trial, Terms]:
    programme = programme_to_judge(cursor, question.programme, "tested")
    base, meaning = meanings.live(cursor)
    version = programmes.number_for(cursor, programme)
    body = question.programme.read_text("utf-8")
    generation = Generation(0, "shadow", base, version, question.since_ms, None, base_meaning=meaning)
    terms = terms_in(body, programme.lowest_tier, programme.currency)
    return _Trial(generation, body, shadows.positions(cursor, base)), terms


def _fold(
    database_url: str, trial: _Trial, cores: int, report: Callable[[int, int], None], *, is_merged: bool
) -> Iterator[_Piece]:
    """Fold all shards: merged in this process, or each by itself."""
    total = sum(trial.upto.values())
    done = 0

    def tell(events: int) -> None:
        nonlocal done
        done += events
        report(done, total)

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
                yield _folded(cursor, trial._replace(upto=upto), judges, tell)
        return
    longest_first = sorted(trial.upto, key=lambda shard: -trial.upto[shard])
    pieces = [(shard,) for shard in longest_first]
    begin = (_begin_process, (database_url, trial))
    yield from shard_pool.work(cores, begin, _fold_shard, pieces, lambda events: report(events, total))


def _folded(cursor: Cursor, trial: _Trial, judges: Mapping[int, CompiledJudge], tell: Callable[[int], None]) -> _Piece:
    fold = Backtest(cursor, trial.generation, judges, trial.since_ms)
    fold.run(trial.upto, tell)
    standings = ((*owner, tier) for owner, tier in fold.tiers.items())
    active = len(fold.active - {""})
    return _Piece(csv_of(fold.parts()), csv_of(standings), active, [each.member_id for each in fold.suspensions])


class _Process(NamedTuple):
    """Hold what a process of the pool works with."""

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

    def tell(events: int) -> None:
        mine.shared.took(events)
        if mine.shared.stop.is_set():
            raise AnswerIsNo("the back-test was interrupted")

    with mine.connection, mine.connection.cursor() as cursor:
        return _folded(cursor, trial, mine.judges, tell)
