"""Tell a pooler that gives each transaction another session of PostgreSQL from one that keeps to a session."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2

from engine.store.session.asking import Asked
from schemas.errors import InputError

if TYPE_CHECKING:
    from engine.store.session.watched import WatchedConnection

PID = "SELECT pg_backend_pid()"
PATIENCE_S = 3.0
LOOKS = 4
"""How often the neighbour asks: more often than this side, so that a pool which deals in turn shows itself as well."""

_trusted: set[str] = set()
"""Addresses whose pooler was seen to keep to a session: looked at once, not at each connection."""


def refuse_by_transaction(session: WatchedConnection) -> None:
    """Ask which process of PostgreSQL serves `session`, and refuse a pooler that changes it between transactions.

    A role, temporary tables, limits and advisory locks belong to a session: under such a pooler they would be lost,
    or be met by somebody else.

    Raises:
        InputError: there is such a pooler.
        psycopg2.Error: PostgreSQL did not answer.
    """
    session.autocommit = True
    session.pid = _pid(session)
    # A pooler answers with a number of its own when the connection is opened; where it is PostgreSQL's, there is none.
    if session.pid != session.info.backend_pid and session.url not in _trusted:
        _look(session)
        _trusted.add(session.url)
    session.autocommit = False


def _look(session: WatchedConnection) -> None:
    """Compare with a neighbour: to whom a session belongs, has one process of PostgreSQL that is nobody else's."""
    neighbours = set()
    # A neighbour who has to wait for a free process is one from whom this session keeps its own.
    with suppress(TimeoutError, psycopg2.Error), closing(Asked(session.url, PATIENCE_S)) as neighbour:
        for _ in range(LOOKS):
            neighbours.add(neighbour.one(PID)[0])
    mine = {session.pid, _pid(session)}
    if len(mine) > 1 or len(neighbours) > 1 or mine & neighbours:
        raise InputError(
            "a connection pooler stands between Guerdon and PostgreSQL that gives each transaction another session, "
            "and Guerdon needs one of its own: set pool_mode = session there (PgBouncer), or let GUERDON_DATABASE_URL "
            "name PostgreSQL itself"
        )


def _pid(session: WatchedConnection) -> int:
    with session.cursor() as cursor:
        cursor.execute(PID)
        row = cursor.fetchone()
        assert row is not None  # noqa: S101  a function without a table has a row
        return int(row[0])
