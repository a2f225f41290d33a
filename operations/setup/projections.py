"""List, rebuild and verify the projections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.database import NO_LIMIT, transaction
from operations.rows import dictionaries
from projections import runner
from projections.rebuild import rebuild
from schemas.errors import InputError
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Cursor

__all__ = ["difference", "events_set_aside", "listed", "rebuild"]

SHARDS_AT_ONCE = 16
"""Shards that are compared in one step; progress is reported after each step."""


def listed(database_url: str) -> list[dict[str, Any]]:
    """Return each live projection: positions folded, lag in events of its log, the oldest cursor's time, gaps."""
    with transaction(database_url) as cursor:
        return dictionaries(
            cursor,
            """
            SELECT projection, sum(pos)::bigint AS positions, sum(lag)::bigint AS lag, min(as_of) AS as_of,
                   (
                       SELECT count(*) FROM guerdon.projection_gap g JOIN guerdon.live_build b USING (build)
                       WHERE b.projection = f.projection
                   ) AS set_aside
            FROM reward.freshness f GROUP BY projection ORDER BY projection
            """,
        )


def events_set_aside(database_url: str, name: str) -> list[dict[str, Any]]:
    """Return the events that the live build of `name` could not fold: a row for each member's part of a source event.

    Raises:
        InputError: there is no such projection.
    """
    with transaction(database_url) as cursor:
        return dictionaries(
            cursor,
            """
            SELECT shard, seq, first_pos, last_pos, member_id, reason, noted_at
            FROM guerdon.projection_gap WHERE build = %s ORDER BY shard, first_pos
            """,
            (_live_build(cursor, name),),
        )


def difference(
    database_url: str, name: str, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> str | None:
    """Return in a sentence the first row of `name` that is not the fold of its log; None where all are.

    `progress` is called with how many positions are compared, and how many there are.

    Raises:
        InputError: there is no such projection.
    """
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        cursor.connection.set_session(isolation_level="REPEATABLE READ")
        build = _live_build(cursor, name)
        cursor.execute("SELECT shard, pos FROM guerdon.projection_cursor WHERE build = %s", (build,))
        positions: dict[int, int] = dict(cursor.fetchall())

        done, total = 0, sum(positions.values())
        for first in range(0, SHARDS, SHARDS_AT_ONCE):
            shards = range(first, first + SHARDS_AT_ONCE)
            sentence = runner.difference(cursor, build, shards)
            if sentence:
                return sentence
            done += sum(positions.get(shard, 0) for shard in shards)
            progress(done, total)
    return None


def _live_build(cursor: Cursor, name: str) -> int:
    cursor.execute(
        """
        SELECT build FROM guerdon.live_build WHERE projection = %s
        """,
        (name,),
    )
    row = cursor.fetchone()
    if row is None:
        raise InputError(f'there is no projection "{name}"; `guerdon projection list` shows them')
    return int(row[0])
