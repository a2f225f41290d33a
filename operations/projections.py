"""List, rebuild and verify the projections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.database import transaction
from operations.rows import dictionaries
from projections import runner
from projections.rebuild import rebuild
from schemas.errors import InputError

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

__all__ = ["difference", "listed", "rebuild"]


def listed(database_url: str) -> list[dict[str, Any]]:
    """Return each live projection: positions folded, lag in reward events, and the oldest cursor's time."""
    with transaction(database_url) as cursor:
        return dictionaries(
            cursor,
            """
            SELECT projection, sum(pos)::bigint AS positions, sum(lag)::bigint AS lag, min(as_of) AS as_of
            FROM reward.freshness GROUP BY projection ORDER BY projection
            """,
        )


def difference(database_url: str, name: str) -> str | None:
    """Return in a sentence the first row of `name` that is not the fold of its log; None where all are.

    Raises:
        InputError: there is no such projection.
    """
    with transaction(database_url) as cursor:
        cursor.connection.set_session(isolation_level="REPEATABLE READ")
        return runner.difference(cursor, _live_build(cursor, name))


def _live_build(cursor: Cursor, name: str) -> int:
    cursor.execute(
        """
        SELECT b.build FROM guerdon.projection_build b JOIN guerdon.generation g USING (generation)
        WHERE b.projection = %s AND b.status = 'live' AND g.status = 'live'
        """,
        (name,),
    )
    row = cursor.fetchone()
    if row is None:
        raise InputError(f'there is no projection "{name}"; `guerdon projection list` shows them')
    return int(row[0])
