"""Build a projection again beside the one that the views read, and switch when it has caught up."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from engine.store.cursor import one
from engine.store.database import NO_LIMIT, connect
from engine.store.generations import live_generation
from engine.store.session.blockers import take_alone
from projections import gaps
from projections.folders import CORES, ShardFolds
from projections.runner import EVERY, OF_SOURCE_LOG, advance, connect_to_project, most_of
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Connection, Cursor
    from projections.runner import LogName


REBUILD_LOCK = 0x6275_696C
"""Advisory lock of a rebuild, held to its end: a second rebuild would clear away the first one's rows."""


def rebuild(
    database_url: str,
    name: str,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    cores: int = CORES,
) -> int:
    """Fold the whole log into a new build of `name`, let the views read it, and return the number of positions.

    Readers go on all the while. Until the switch they read the old build, after it the new one, and never a mixture. An
    earlier rebuild that was interrupted is cleared away first.

    Args:
        database_url: the address of the database.
        name: the name of the projection.
        progress: called with the number of folded positions, and the number of positions at the start.
        cores: the number of connections that fold, each some of the shards.

    Raises:
        InputError: there is no such projection.
        AnswerIsNo: another rebuild of it is under way.
        ProjectionPaused: too many pieces in a row cannot be folded; the views go on reading the old build.
    """
    if name not in EVERY:
        raise InputError(f'there is no projection "{name}"; there are: {", ".join(EVERY)}')
    log: LogName = "source" if name in OF_SOURCE_LOG else "reward"
    with closing(connect_to_project(database_url, NO_LIMIT)) as connection:
        # begin a new build, alone
        with connection, connection.cursor() as cursor:
            (number,) = one(cursor, "SELECT hashtext(%s)", (name,))
            other = take_alone(cursor, REBUILD_LOCK, number)
            if other is not None:
                raise AnswerIsNo(f"another rebuild of {name} is under way; wait for its end: {other} the lock")
            generation = live_generation.live(cursor) if log == "reward" else None
            _clear(cursor, name, generation, "building")
            build = _begin(cursor, name, generation)
            positions = _positions(cursor, generation)

        # fold the log, then what came meanwhile, then switch and clear the old build away
        with ShardFolds(database_url, build, positions, progress, log=log) as folders:
            total = folders.fold(cores)
        while moved := advance(connection, [build], most=most_of(log)):
            total += moved
            progress(total, positions)
        with closing(
            connect(database_url, application="guerdon rebuild", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
        ) as switching:
            total += _switch(connection, switching, name, generation, build)
        with connection, connection.cursor() as cursor:
            _clear(cursor, name, generation, "retired")
        return total


def _positions(cursor: Cursor, generation: int | None) -> int:
    """Return how many positions a generation's log has, or the source log where it is None."""
    if generation is None:
        (positions,) = one(cursor, "SELECT coalesce(sum(seq), 0)::bigint FROM guerdon.shard_head")
    else:
        (positions,) = one(
            cursor,
            "SELECT coalesce(sum(pos), 0)::bigint FROM guerdon.generation_head WHERE generation = %s",
            (generation,),
        )
    return int(positions)


def _begin(cursor: Cursor, name: str, generation: int | None) -> int:
    (build,) = one(
        cursor,
        """
        INSERT INTO guerdon.projection_build (projection, generation, status) VALUES (%s, %s, 'building')
        RETURNING build
        """,
        (name, generation),
    )
    cursor.execute(
        "INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT %s, shard, 0 FROM guerdon.shard_head",
        (build,),
    )
    return int(build)


def _switch(folding: Connection, switching: Connection, name: str, generation: int | None, build: int) -> int:
    """Let the views read `build` once it is in no shard behind the build that they read now.

    The cursors of the old build are locked until the switch, so that it cannot move on while the new one takes its last
    steps on another connection. A reader must never see a balance go back.
    """
    moved = 0
    with switching, switching.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.build FROM guerdon.projection_cursor c JOIN guerdon.projection_build b USING (build)
            WHERE b.projection = %s AND b.generation IS NOT DISTINCT FROM %s AND b.status = 'live'
            ORDER BY c.shard FOR UPDATE OF c
            """,
            (name, generation),
        )
        old = sorted({row[0] for row in cursor.fetchall()})

        while _is_behind(cursor, build, old):
            moved += advance(folding, [build], most=most_of("source" if generation is None else "reward"))

        cursor.execute("UPDATE guerdon.projection_build SET status = 'retired' WHERE build = ANY(%s)", (old,))
        cursor.execute("UPDATE guerdon.projection_build SET status = 'live' WHERE build = %s", (build,))
        if cursor.rowcount != 1:
            raise AnswerIsNo(f"the new build of {name} was cleared away meanwhile; nothing was switched: rebuild again")
    return moved


def _is_behind(cursor: Cursor, build: int, old: list[int]) -> bool:
    (behind,) = one(
        cursor,
        """
        SELECT count(*) FROM guerdon.projection_cursor mine
        JOIN guerdon.projection_cursor theirs ON theirs.build = ANY(%s) AND theirs.shard = mine.shard
        WHERE mine.build = %s AND mine.pos < theirs.pos
        """,
        (old, build),
    )
    return bool(behind)


def _clear(cursor: Cursor, name: str, generation: int | None, status: str) -> None:
    cursor.execute(
        """
        SELECT build FROM guerdon.projection_build
        WHERE projection = %s AND generation IS NOT DISTINCT FROM %s AND status = %s FOR UPDATE
        """,
        (name, generation, status),
    )
    for (build,) in cursor.fetchall():
        # the cursors first: this waits for a fold under way, and no later fold can begin and leave rows behind
        cursor.execute("DELETE FROM guerdon.projection_cursor WHERE build = %s", (build,))
        EVERY[name].clear(cursor, build)
        gaps.clear(cursor, build)
        cursor.execute("DELETE FROM guerdon.projection_build WHERE build = %s", (build,))
