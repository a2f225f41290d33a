"""Replay the source log into a generation beside the live one: by shard over processes, or merged where members share.

Every chunk is a transaction of its own, so a replay may be killed at any point: the same command continues from there.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg2.errors import LockNotAvailable

from engine.history.replay import Replay, Stretch, shares_anything
from engine.programme.file.load import load_file, load_programme, refused
from engine.store import programmes
from engine.store.cursor import one
from engine.store.database import NO_LIMIT, as_owner, connect, transaction
from engine.store.generations import live_generation, meanings, shadows
from engine.store.members import member_states
from operations.replay import shard_pool
from projections.runner import advance, builds_of, connect_to_project
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from engine.programme.model import Programme
    from engine.store.cursor import Connection, Cursor
    from engine.store.generations.generation import Generation
    from operations.replay.shard_pool import Shared

CHUNK_EVENTS = 5_000
"""Source events that one transaction folds at most: a kill loses them, and memory holds them beside the states."""

ALONE_EVENTS = 10_000
"""Below this number of events, another process would cost more than it saves."""

STILL_WITHIN = "5s"
"""How long to wait until no worker is writing; merged shards are folded up to that instant."""

FOLLOW_S = 0.5


@dataclass(frozen=True)
class Request:
    """Ask for a replay."""

    programme: Path | None = None
    """The file that judges; None: history is repeated."""

    from_ms: int | None = None
    to_ms: int | None = None
    """The times between which the file judges."""

    into: int | None = None
    """A generation to continue."""

    cores: int = 1
    events_per_s: int | None = None


class _Goal(NamedTuple):
    """Say how far to fold."""

    upto: dict[int, int]
    """The seq of each shard."""

    before_ms: int
    """The recorded time, where shards are merged."""

    is_merged: bool


class _Pace(NamedTuple):
    """Say how many processes fold, and how many events per second all of them may fold; None: any number."""

    cores: int = 1
    events_per_s: int | None = None


def replay(
    database_url: str,
    request: Request,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    follow: threading.Event | None = None,
) -> dict[str, Any]:
    """Fold the source log up to the live head into a shadow, and return a summary; called again, continue.

    Args:
        database_url: the address of Guerdon's database; its user must own the tables.
        request: the file, its times, and how much of the machine to use.
        report: called with how many source events are folded, and how many there are.
        follow: follow the live head until this event is set; None: end at the live head.

    Raises:
        InputError: the programme cannot be used, or there is no such generation.
        AnswerIsNo: another process folds into it, its base is not live, or a repetition differs.
        ServiceUnreachable: PostgreSQL does not answer, or a process was ended from outside.
    """
    start_s = time.monotonic()
    generation = _generation(database_url, request)
    events = 0
    with closing(connect(database_url, application="guerdon replay")) as holding:
        with holding, holding.cursor() as cursor:
            shadows.lock(cursor, generation.number)

        while True:
            folded = fold_on(database_url, generation, request.cores, request.events_per_s, report)
            project(database_url, generation.number)
            events += folded
            if follow is None and folded < CHUNK_EVENTS:
                break
            if follow is not None and follow.wait(FOLLOW_S):
                break
    return _result(database_url, generation, events, time.monotonic() - start_s)


def _result(database_url: str, generation: Generation, events: int, seconds: float) -> dict[str, Any]:
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        (rewards,) = one(
            cursor,
            "SELECT sum(pos)::bigint FROM guerdon.generation_head WHERE generation = %s",
            (generation.number,),
        )
        differing = None
        if generation.base is not None:
            differing = shadows.difference(cursor, generation.number, generation.base)
        unjudged = shadows.suspended_members(cursor, generation)
    return {
        "generation": generation.number,
        "meaning": generation.meaning,
        "base": generation.base,
        "base_meaning": generation.base_meaning,
        "rule_version": generation.file_version,
        "events": events,
        "reward_events": int(rewards),
        "seconds": round(seconds, 3),
        "shards_that_differ": differing,
        "members_held": unjudged,
    }


def _generation(database_url: str, request: Request) -> Generation:
    """Return the generation to fold into: the one named, one that the same command began before, or a new one."""
    # the one named
    if request.into is not None:
        if request.programme is not None or request.from_ms is not None or request.to_ms is not None:
            raise InputError("--into goes on with a generation as it was begun; leave out the programme and its times")
        with transaction(database_url) as cursor:
            generation = shadows.get(cursor, request.into)
        if generation.status == "live":
            raise AnswerIsNo(f"generation {generation.number} is live: the worker folds it")
        return generation

    # one with the same base, file and times, or a new one
    if request.programme is None and (request.from_ms is not None or request.to_ms is not None):
        raise InputError("--from and --to say when a programme file judges; name the file")
    if request.from_ms is not None and request.to_ms is not None and request.from_ms >= request.to_ms:
        raise InputError("--from must be before --to")
    with as_owner(database_url, application="guerdon replay") as connection, connection, connection.cursor() as cursor:
        base = live_generation.live(cursor)
        version = None if request.programme is None else _version_of(cursor, request.programme)
        number = shadows.find(cursor, base, version, request.from_ms, request.to_ms)
        if number is None:
            number = shadows.create(cursor, base, version, request.from_ms, request.to_ms)
        return shadows.get(cursor, number)


def _version_of(cursor: Cursor, path: Path) -> int:
    """Return the number of the file's version, which is stored now if it is new."""
    programme = programme_to_judge(cursor, path, "replayed")
    cursor.execute("LOCK TABLE guerdon.programme_version IN SHARE ROW EXCLUSIVE MODE")
    version = programmes.with_digest(cursor, programme.digest)
    if version is not None:
        return version
    return programmes.add(cursor, programme, path.read_text("utf-8"), path.name, replayed=True)


def programme_to_judge(cursor: Cursor, path: Path, doing: str) -> Programme:
    """Return the programme in a file, if history can be judged by it; `doing` is the purpose, in the past tense.

    Raises:
        InputError: the file has errors, or cannot be activated.
        AnswerIsNo: this history cannot be judged by it.
    """
    loaded = load_file(path)
    if loaded.programme is None:
        raise InputError(f"the programme has errors and was not {doing}:\n" + "\n".join(map(str, loaded.problems)))
    refusal = refused(loaded, str(path))
    if refusal is not None:
        raise InputError(refusal)
    check_history(cursor, loaded.programme, path)
    return loaded.programme


def check_history(cursor: Cursor, programme: Programme, path: Path) -> None:
    """Refuse a programme, from the file `path`, if this history cannot be judged by it.

    Raises:
        AnswerIsNo: with the reason.
    """
    active = programmes.active(cursor)
    if active is None:
        raise AnswerIsNo("no programme was activated yet: there is nothing to judge again")
    if active.currency != programme.currency:
        raise AnswerIsNo(f"the log counts in {active.currency} and the file in {programme.currency}")

    # the log says when periods of contests have ended, for the contests of the live programme only
    name = f"version {active.version}"
    live = load_programme(programmes.body_of(cursor, active.version), name, was_activated=True).programme
    periods = {} if live is None else _periods(live)
    for contest, period in _periods(programme).items():
        if periods.get(contest) != period:
            raise AnswerIsNo(
                f"{path}: contest {contest} is not in the programme that is live, or has other periods there, so the "
                "log does not say when they ended; leave it out of what judges history, or activate the programme first"
            )


def _periods(programme: Programme) -> dict[str, tuple[object, ...]]:
    """Return for each contest the settings that decide when its periods end."""
    zone = programme.timezone
    return {each.id: (zone, each.every, each.from_ms, each.until_ms) for each in programme.terms.contests}


def fold_on(
    database_url: str,
    generation: Generation,
    cores: int = 1,
    events_per_s: int | None = None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    is_still: bool = False,
) -> int:
    """Fold up to the present end of the live generation, and return the number of source events folded.

    With `is_still` the caller lets nobody else evaluate, so that the log ends at the same instant in all shards.

    Raises:
        AnswerIsNo: another meaning has begun it, its base is not live, or a repetition differs.
    """
    # how far to fold
    meanings.refuse_shadow(generation.number, generation.meaning)
    try:
        with transaction(database_url, statement_max=NO_LIMIT) as cursor:
            done = shadows.positions(cursor, generation.number)
            goal = _goal(cursor, generation, is_still=is_still)
    except LockNotAvailable as error:
        raise ServiceUnreachable(
            f"a worker's transaction was under way for more than {STILL_WITHIN}; run the same command again"
        ) from error
    behind = {shard: upto - done[shard] for shard, upto in goal.upto.items() if upto > done[shard]}
    total, before = sum(goal.upto.values()), sum(done.values())

    def report_folded(folded: int) -> None:
        report(before + folded, total)

    # fold it here, or in several processes
    report_folded(0)
    pace = _Pace(cores, events_per_s)
    if goal.is_merged or cores == 1 or sum(behind.values()) < ALONE_EVENTS:
        shards = [list(done)] if goal.is_merged else [[shard] for shard in behind]
        return _fold_here(database_url, generation, goal, shards, pace=pace, report=report_folded)
    return _fold_in_processes(database_url, generation, goal, behind, pace=pace, report=report_folded)


def _goal(cursor: Cursor, generation: Generation, *, is_still: bool) -> _Goal:
    """Return how far to fold.

    Merged shards are folded up to an instant at which no worker's transaction was under way: a transaction under way
    may have an earlier time for its rows than one that has committed.
    """
    live = live_generation.live(cursor)
    if generation.base not in {None, live}:
        raise AnswerIsNo(
            f"generation {generation.number} was replayed beside generation {generation.base}, and {live} is live now; "
            f"discard it and replay again, or promote {generation.base} first"
        )
    is_merged = shares_anything(cursor, generation, shadows.positions(cursor, live))
    before_ms = INT64_MAX
    if is_merged and not is_still:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (STILL_WITHIN,))
        live_generation.hold_evaluation(cursor)
        before_ms = live_generation.now_ms(cursor)
    return _Goal(shadows.positions(cursor, live), before_ms, is_merged)


class _Throttle:
    """Keep to a number of events per second, on the average since the beginning."""

    def __init__(self, events_per_s: float | None) -> None:
        self._events_per_s = events_per_s
        self._begun = time.monotonic()
        self._events = 0

    @property
    def chunk(self) -> int:
        """Return how many events one transaction may fold."""
        return CHUNK_EVENTS if self._events_per_s is None else max(1, min(CHUNK_EVENTS, int(self._events_per_s)))

    def count(self, events: int) -> None:
        """Count events that were folded, and wait where they were folded too fast."""
        self._events += events
        if self._events_per_s is not None:
            ahead_s = self._events / self._events_per_s - (time.monotonic() - self._begun)
            if ahead_s > 0:
                time.sleep(ahead_s)


def connect_to_replay(database_url: str) -> Connection:
    """Open a connection for `engine.history.replay`."""
    connection = connect(database_url, application="guerdon replay", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    with connection, connection.cursor() as cursor:
        member_states.prepare(cursor)
    return connection


def _fold_here(
    database_url: str,
    generation: Generation,
    goal: _Goal,
    shards: list[list[int]],
    *,
    pace: _Pace,
    report: Callable[[int], None],
) -> int:
    """Fold each list of shards in this process, those of one list merged."""
    throttle, folded = _Throttle(pace.events_per_s), 0
    with closing(connect_to_replay(database_url)) as connection, shard_pool.seldom_collected():
        for merged in shards:
            replay_ = Replay(connection, generation, merged)
            while events := replay_.advance(Stretch(goal.upto, throttle.chunk, goal.before_ms)):
                folded += events
                report(folded)
                throttle.count(events)
    return folded


def _fold_in_processes(
    database_url: str,
    generation: Generation,
    goal: _Goal,
    behind: Mapping[int, int],
    *,
    pace: _Pace,
    report: Callable[[int], None],
) -> int:
    """Give each process one shard after the other, the longest first."""
    events_per_s = None if pace.events_per_s is None else pace.events_per_s / pace.cores
    ordered = sorted(behind, key=lambda shard: -behind[shard])
    pieces = [(shard, goal.upto[shard]) for shard in ordered]
    start = shard_pool.Start(_begin_process, (database_url, generation, events_per_s))
    return sum(shard_pool.work(pace.cores, start, _fold_shard, pieces, report))


class _Process(NamedTuple):
    """Hold the tools of a process of the pool."""

    connection: Connection
    generation: Generation
    shared: Shared
    throttle: _Throttle


_processes: list[_Process] = []


def _begin_process(shared: Shared, database_url: str, generation: Generation, events_per_s: float | None) -> None:
    _processes.append(_Process(connect_to_replay(database_url), generation, shared, _Throttle(events_per_s)))


def _fold_shard(shard: int, upto_seq: int) -> int:
    (mine,) = _processes
    replay_, folded = Replay(mine.connection, mine.generation, [shard]), 0
    while not mine.shared.stop.is_set():
        events = replay_.advance(Stretch({shard: upto_seq}, mine.throttle.chunk))
        if not events:
            break
        folded += events
        mine.shared.add(events)
        mine.throttle.count(events)
    return folded


def project(database_url: str, number: int) -> None:
    """Fold a generation's reward log into its own builds of the projections."""
    with closing(connect_to_project(database_url, NO_LIMIT)) as connection:
        with connection, connection.cursor() as cursor:
            builds = builds_of(cursor, number)
        while advance(connection, builds):
            pass
