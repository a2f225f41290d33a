"""List generations, let one take the live one's place, and discard one."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from psycopg2.errors import LockNotAvailable

from engine.store.database import NO_LIMIT, as_owner, connect, transaction
from engine.store.generations import live_generation, meanings, shadows
from engine.store.session.blockers import who_uses
from operations.replay.run import CHUNK_EVENTS, fold_on, project
from operations.rows import dictionaries
from operations.verify.checks import verify
from projections import gaps
from projections.runner import PROJECTIONS
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation

LOCK_TIMEOUT_S = 5
"""How long a switch may wait for locks, and let workers and readers wait behind it."""


def listed(database_url: str) -> list[dict[str, Any]]:
    """Return every generation: its base and file, how far it is, and how many reward events it has."""
    with transaction(database_url) as cursor:
        return generations(cursor)


def generations(cursor: Cursor) -> list[dict[str, Any]]:
    """Return the same as `listed`, read by `cursor`."""
    return dictionaries(
        cursor,
        """
        SELECT g.generation, g.status, g.meaning, g.base, g.file_version AS rule_version, v.file_name AS file,
               g.from_at AS "from", g.to_at AS "to", g.created_at, sum(h.seq)::bigint AS events,
               sum(s.seq - h.seq)::bigint AS behind, sum(h.pos)::bigint AS reward_events
        FROM guerdon.generation g
        JOIN guerdon.generation_head h USING (generation)
        JOIN guerdon.shard_head s USING (shard)
        LEFT JOIN guerdon.programme_version v ON v.version = g.file_version
        GROUP BY g.generation, v.file_name ORDER BY g.generation
        """,
    )


def promote(
    database_url: str,
    number: int,
    *,
    lock_timeout_s: int = LOCK_TIMEOUT_S,
    observe: Callable[[str], None] = lambda _point: None,
) -> dict[str, Any]:
    """Let a generation take the live one's place, whole and for every reader at the same time.

    First it is brought to the live head and verified, while workers go on. Then nobody evaluates until it has folded
    the rest and the places are changed. The old generation stays; promoting it brings it back.

    Raises:
        InputError: there is no such generation.
        AnswerIsNo: it is live, it is not sound, or a lock was not free in time; nothing was changed.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with closing(connect(database_url, application="guerdon promote")) as holding:
        with holding, holding.cursor() as cursor:
            generation = shadows.get(cursor, number)
            if generation.status == "live":
                raise AnswerIsNo(f"generation {number} is live already")
            meanings.refuse_shadow(number, generation.meaning)
            shadows.lock(cursor, number)
            old = live_generation.live(cursor)

        # while workers go on
        bring_up(database_url, generation)
        with as_owner(database_url, application="guerdon promote") as owning, owning, owning.cursor() as cursor:
            shadows.index_log(cursor, number)

        # while they wait
        observe("before switch")
        folded = _switch(database_url, generation, lock_timeout_s, observe)
    return {"generation": number, "previous": old, "folded_while_still": folded}


def bring_up(database_url: str, generation: Generation) -> None:
    """Bring a generation to the live head while workers go on, and verify it.

    Raises:
        AnswerIsNo: it cannot follow the live one, or it is not sound.
    """
    while fold_on(database_url, generation) >= CHUNK_EVENTS:
        pass
    project(database_url, generation.number)
    _check(database_url, generation)


def _check(database_url: str, generation: Generation) -> None:
    """Refuse a generation that is not sound, that differs from the one it repeats, or that holds members."""
    for finding in verify(database_url, generation.number):
        if finding["problem"]:
            raise AnswerIsNo(f"generation {generation.number} is not sound and was not promoted: {finding['problem']}")
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        if generation.repeats and generation.base is not None:
            differing = shadows.difference(cursor, generation.number, generation.base)
            if differing:
                raise AnswerIsNo(
                    f"generation {generation.number} repeats {generation.base} and differs from it in {differing} "
                    "shards; it was not promoted: see `guerdon diff`"
                )
        check_held(cursor, generation)


def check_held(cursor: Cursor, generation: Generation) -> None:
    """Refuse a generation that holds members who are not held in the live one.

    Raises:
        AnswerIsNo: with the names of some of them.
    """
    members = shadows.suspended_members(cursor, generation)
    if members:
        raise AnswerIsNo(
            f"generation {generation.number} could not judge members who are judged now ({', '.join(members[:5])}); it "
            "was not promoted: install the release that mends it, discard it and replay again"
        )


def _switch(database_url: str, generation: Generation, lock_timeout_s: int, observe: Callable[[str], None]) -> int:
    """Fold the rest while nobody evaluates, and change places in one transaction; return the events folded."""
    with as_owner(database_url, application="guerdon promote") as switching:
        try:
            with switching, switching.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{lock_timeout_s}s",))
                live_generation.hold_evaluation(cursor)
                observe("after lock")
                folded = fold_on(database_url, generation, is_still=True)
                project(database_url, generation.number)
                observe("after drain")
                _change_places(cursor, generation)
                observe("before commit")
        except LockNotAvailable as error:
            raise locked_out(database_url, lock_timeout_s) from error
    return folded


def locked_out(database_url: str, lock_timeout_s: int) -> AnswerIsNo:
    """Return the error of a promotion that has waited too long for a lock; it names who has the lock now."""
    with transaction(database_url) as cursor:
        users = who_uses(cursor, "guerdon.evaluating", "guerdon.member_state")
    return AnswerIsNo(
        f"workers or readers held what the switch needs for more than {lock_timeout_s} s; nothing was changed: "
        f"try again, or with a longer --lock-timeout{users and f' ({users} it now)'}"
    )


def _change_places(cursor: Cursor, generation: Generation) -> None:
    live = live_generation.live(cursor)
    if shadows.positions(cursor, generation.number) != shadows.positions(cursor, live):
        raise AnswerIsNo(f"generation {generation.number} did not reach the live head; nothing was changed: try again")
    if generation.keeps_schedule:
        shadows.copy_shared(cursor, generation)
    shadows.make_live(cursor, generation, _next_versions(cursor, generation))


def _next_versions(cursor: Cursor, generation: Generation) -> dict[int, int]:
    """Return the version that judges each shard's next event: the file's, if now lies between its times."""
    source = generation.number if generation.base is None else generation.base
    cursor.execute("SELECT shard, version FROM guerdon.generation_head WHERE generation = %s", (source,))
    versions: dict[int, int] = dict(cursor.fetchall())
    if generation.is_judged_by_file(live_generation.now_ms(cursor)):
        return dict.fromkeys(versions, generation.file_version or 0)
    return versions


def discard(database_url: str, number: int, *, lock_timeout_s: int = LOCK_TIMEOUT_S) -> None:
    """Delete a generation's logs, states and projections; its number is never used again.

    After an interruption, another call continues.

    Raises:
        InputError: there is no such generation.
        AnswerIsNo: it is live, or somebody reads or replays it.
    """
    with as_owner(database_url, application="guerdon discard") as connection:
        try:
            with connection, connection.cursor() as cursor:
                generation = shadows.get(cursor, number)
                if generation.status == "live":
                    raise AnswerIsNo(f"generation {number} is live; promote another one first")
                shadows.lock(cursor, number)
                cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{lock_timeout_s}s",))
            for step in (_drop_builds, _drop_states, _drop_log):
                with connection, connection.cursor() as cursor:
                    step(cursor, number)
        except LockNotAvailable as error:
            raise AnswerIsNo(
                f"readers held the log for more than {lock_timeout_s} s; not all was dropped: try again"
            ) from error


def _drop_builds(cursor: Cursor, number: int) -> None:
    cursor.execute("SELECT projection, build FROM guerdon.projection_build WHERE generation = %s FOR UPDATE", (number,))
    for name, build in cursor.fetchall():
        # the cursors first: this waits for a fold under way, and no fold can begin afterwards and leave rows behind
        cursor.execute("DELETE FROM guerdon.projection_cursor WHERE build = %s", (build,))
        PROJECTIONS[name].clear(cursor, build)
        gaps.clear(cursor, build)
        cursor.execute("DELETE FROM guerdon.projection_build WHERE build = %s", (build,))


def _drop_states(cursor: Cursor, number: int) -> None:
    cursor.execute("SELECT guerdon.drop_states(%s)", (number,))


def _drop_log(cursor: Cursor, number: int) -> None:
    cursor.execute("SELECT guerdon.drop_generation(%s)", (number,))
