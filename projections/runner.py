"""Fold the reward log into the projections: each has a cursor, which moves in one transaction with its rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

from engine.store.cursor import one
from engine.store.database import ANSWERED_WITHIN, NO_LIMIT, connect
from engine.store.eras import keep_to_keys
from engine.store.generations import live_generation
from engine.store.session.blockers import who_writes
from engine.store.session.failures import is_data
from engine.store.session.voice import Patience
from projections import balances, gaps, items, leaderboard, referrals, tiers
from projections.facts import projection as facts
from projections.gaps import ProjectionPaused
from projections.ranges import OF_SOURCE, Behind, lock_ranges
from projections.reward_days import projection as reward_days
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from engine.store.cursor import Connection, Cursor
    from projections.gaps import Gap

log = structlog.get_logger()

POSITIONS_MAX = 50_000
"""The most positions of one shard that one transaction folds, so that a rebuild stays in bounds."""

SEQS_MAX = 1_000
"""The same of the source log: its events are folded by Python, so a transaction with as many takes seconds."""

SOURCE_PARTS = 2
"""The number of connections that bring the source log's projections to its head, each in some of the shards."""

IDLE_S = 0.05
"""How long a projector waits for a commit of another worker, which sends no signal here, unless it is made patient."""

LogName = Literal["reward", "source"]
"""A log as `reward.freshness` names it: the live generation's reward log, or the source log."""


class Projection(Protocol):
    """Fold a range of positions of each shard into rows of its own.

    Where `generation` is OF_SOURCE, it folds the source log, and positions are seqs.
    """

    def fold(self, cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
        """Fold the ranges of `build` in the temporary table `projection_range (build, shard, after_pos, upto_pos)`.

        `is_first` says that `build` has no rows of these shards yet.
        """

    def clear(self, cursor: Cursor, build: int) -> None:
        """Delete the rows of `build`."""

    def difference(self, cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
        """Return a sentence about the first row of `build` that is not the fold of the log up to its cursor.

        None means that all rows are; `shards` None compares all shards.
        """


PROJECTIONS: dict[str, Projection] = {
    "member_balance": balances, "member_reward": items, "tier_history": tiers, "referral": referrals,
    "leaderboard": leaderboard, "reward_day": reward_days,
}  # fmt: skip
"""Every projection of a generation's reward log, by name."""

OF_SOURCE_LOG: dict[str, Projection] = {"facts": facts}
"""Every projection of the source log, by name: there is one for all generations."""

EVERY = PROJECTIONS | OF_SOURCE_LOG


def connect_to_project(database_url: str, statement_max: str = ANSWERED_WITHIN, log: LogName = "reward") -> Connection:
    """Open a connection that keeps to the logs' primary keys, as the planner does not know the ranges' lengths."""
    application = "guerdon projector" if log == "reward" else "guerdon facts"
    connection = connect(database_url, application=application, statement_max=statement_max)
    with connection, connection.cursor() as cursor:
        keep_to_keys(cursor)
        cursor.execute("SET work_mem = '64MB'")
    return connection


def connect_to_rebuild(database_url: str) -> Connection:
    """Open a connection to fold much of a log at once: the planner may read it from end to end."""
    connection = connect(database_url, application="guerdon rebuild", statement_max=NO_LIMIT)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET work_mem = '128MB'")
    return connection


def advance(
    connection: Connection,
    builds: Sequence[int],
    observe: Callable[[str], None] = lambda _point: None,
    shards: Sequence[int] = range(SHARDS),
    tell: Callable[[str, Gap], None] = lambda _name, _gap: None,
    most: int | None = None,
) -> int:
    """Fold the next positions of `builds` in one transaction, and return their number.

    One transaction for all builds means that another projection costs no commit, and that the views move together. A
    range ends where a transaction of the log ended, or where it must be cut, at the last position of a source event, so
    no reader sees half an event. Shards that another process folds right now are skipped, and so are builds that a
    rebuild has cleared away.

    Args:
        connection: a connection of `connect_to_project` or `connect_to_rebuild`.
        builds: the builds to advance.
        observe: called at named points, for tests that stop here.
        shards: the shards to fold.
        tell: called after the commit with a projection's name and each gap, where rows could not be folded.
        most: positions of each shard, POSITIONS_MAX by default.

    Raises:
        ProjectionPaused: too many pieces of one projection in a row cannot be folded; the others were advanced.
    """
    aside: list[tuple[str, Gap]] = []
    paused: ProjectionPaused | None = None
    with connection.cursor() as cursor:
        behind = lock_ranges(cursor, builds, shards, most or POSITIONS_MAX)
        if behind:
            observe("before fold")

            # most folds succeed at once; only after a failure each build is folded for itself
            if not _fold_at_once(cursor, behind):
                connection.rollback()
                behind = lock_ranges(cursor, builds, shards, most or POSITIONS_MAX)
                behind, aside, paused = _fold_around(cursor, behind)
            observe("after fold")

            cursor.execute(
                """
                UPDATE guerdon.projection_cursor c SET pos = r.upto_pos, as_of = clock_timestamp()
                FROM projection_range r WHERE c.build = r.build AND c.shard = r.shard AND c.pos = r.after_pos
                """
            )
            observe("before project commit")
        connection.commit()
        observe("after project commit")

    for name, gap in aside:
        tell(name, gap)
    moved = sum(each.positions for each in behind)
    if paused is not None:
        paused.moved = moved
        raise paused
    return moved


def _fold_at_once(cursor: Cursor, behind: Sequence[Behind]) -> bool:
    """Fold all ranges; False if the data of one cannot be folded, so that the transaction must be rolled back."""
    try:
        for each in behind:
            EVERY[each.name].fold(cursor, each.build, each.generation, is_first=each.is_first)
    except Exception as error:
        if not is_data(error):
            raise
        return False
    for each in behind:
        if each.in_a_row:
            gaps.end_streak(cursor, each.build)
    return True


def _fold_around(
    cursor: Cursor, behind: Sequence[Behind]
) -> tuple[list[Behind], list[tuple[str, Gap]], ProjectionPaused | None]:
    """Fold each build for itself, around rows that cannot be folded.

    Returns:
        the builds that were folded, the gaps with the names of their projections, and the error of a paused one.
    """
    folded: list[Behind] = []
    aside: list[tuple[str, Gap]] = []
    paused: ProjectionPaused | None = None
    for each in behind:
        fold = partial(_fold, cursor, each)
        halving = gaps.Halving(
            cursor=cursor,
            name=each.name,
            build=each.build,
            generation=each.generation,
            fold=fold,
            in_a_row=each.in_a_row,
        )
        try:
            aside += [(each.name, gap) for gap in halving.run()]
            folded.append(each)
        except ProjectionPaused as error:
            paused = error
    return folded, aside, paused


def _fold(cursor: Cursor, behind: Behind, is_first: bool) -> None:  # noqa: FBT001  called by its place
    EVERY[behind.name].fold(cursor, behind.build, behind.generation, is_first=is_first)


def live_builds(cursor: Cursor, log: LogName = "reward") -> list[int]:
    """Return the builds that the views read, of one log."""
    cursor.execute(
        """
        SELECT b.build FROM guerdon.projection_build b LEFT JOIN guerdon.generation g USING (generation)
        WHERE b.status = 'live' AND CASE WHEN %s = 'reward' THEN g.status = 'live' ELSE b.generation IS NULL END
        ORDER BY b.build
        """,
        (log,),
    )
    return [build for (build,) in cursor.fetchall()]


def builds_of(cursor: Cursor, generation: int) -> list[int]:
    """Return the builds that are live for `generation`."""
    cursor.execute(
        "SELECT build FROM guerdon.projection_build WHERE status = 'live' AND generation = %s ORDER BY build",
        (generation,),
    )
    return [build for (build,) in cursor.fetchall()]


def difference(cursor: Cursor, build: int, shards: Sequence[int] | None = None) -> str | None:
    """Return a sentence about the first row of `build`, or of some shards of it, that is not the fold of the log."""
    name, generation = one(
        cursor,
        "SELECT projection, coalesce(generation, %s) FROM guerdon.projection_build WHERE build = %s",
        (OF_SOURCE, build),
    )
    return EVERY[name].difference(cursor, build, generation, None if shards is None else list(shards))


def catch_up(
    connection: Connection,
    observe: Callable[[str], None] = lambda _point: None,
    tell: Callable[[str, Gap], None] = lambda _name, _gap: None,
    most: int | None = None,
    log: LogName = "reward",
    shards: Sequence[int] = range(SHARDS),
) -> int:
    """Advance every live projection of a log once, and return the number of positions.

    Raises:
        ProjectionPaused: as `advance` does.
    """
    with connection.cursor() as cursor:
        live_generation.live(cursor)
        builds = live_builds(cursor, log)
    connection.commit()
    points = observe if log == "reward" else lambda point: observe(f"{point} of facts")
    return advance(connection, builds, points, shards, tell=tell, most=most or most_of(log))


def most_of(log: LogName) -> int:
    """Return the most positions of one shard that a transaction folds of a log."""
    return SEQS_MAX if log == "source" else POSITIONS_MAX


def log_gap(name: str, gap: Gap) -> None:
    """Write a gap of a projection into the worker's log, with the command that shows all gaps."""
    log.warning(
        "projector sets aside", projection=name, shard=gap.shard, pos=gap.first_pos, seq=gap.seq, member=gap.member_id,
        why=gap.reason, see=f"guerdon projection verify {name}",
    )  # fmt: skip


def lag(cursor: Cursor, log: LogName = "reward", shards: Sequence[int] = range(SHARDS)) -> int:
    """Return the number of positions that the live projections are behind a log, in some shards."""
    (behind,) = one(
        cursor,
        "SELECT coalesce(sum(lag), 0)::bigint FROM reward.freshness WHERE log = %s AND shard = ANY(%s)",
        (log, list(shards)),
    )
    return int(behind)


def finish(
    database_url: str,
    stop: threading.Event,
    logs: Sequence[LogName] = ("reward", "source"),
    observe: Callable[[str], None] = lambda _point: None,
) -> None:
    """Advance the live projections of some logs until they are at the head, or `stop` is set.

    `observe` is called at named points, for tests that stop here; by several threads at once for the source log.

    Raises:
        ProjectionPaused: one stands still, and the others are at the head.
    """
    paused: ProjectionPaused | None = None
    for log in logs:
        # Python folds one part of the source log while PostgreSQL takes in the rows of another
        parts = SOURCE_PARTS if log == "source" else 1
        with ThreadPoolExecutor(parts) as pool:
            part = partial(_finish, database_url, stop, log=log, observe=observe)
            ends = [pool.submit(part, shards=range(first, SHARDS, parts)) for first in range(parts)]
        for end in ends:
            try:
                end.result()
            except ProjectionPaused as error:
                paused = error
    if paused is not None:
        raise paused


def _finish(
    database_url: str,
    stop: threading.Event,
    *,
    log: LogName,
    shards: Sequence[int],
    observe: Callable[[str], None],
) -> None:
    patience = Patience("projector" if log == "reward" else "fold of facts")
    with closing(connect_to_project(database_url, NO_LIMIT, log)) as connection:
        while not stop.is_set():
            paused: ProjectionPaused | None = None
            try:
                moved = catch_up(connection, observe, log_gap, log=log, shards=shards)
            except ProjectionPaused as error:
                paused, moved = error, error.moved

            # at the head, or nothing left but a paused projection, or work of another process
            with connection, connection.cursor() as cursor:
                if not lag(cursor, log, shards):
                    return
                if paused is not None and not moved:
                    raise paused
                if moved:
                    patience.over()
                else:  # another process folds the rest
                    patience.wait(partial(who_writes, cursor, "guerdon.projection_cursor"))
            if not moved:
                stop.wait(IDLE_S)
