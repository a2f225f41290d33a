"""Recognise and refuse a pooler that gives each transaction another session of PostgreSQL."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2

from engine.store.session.asking import Inquiry
from schemas.errors import InputError

if TYPE_CHECKING:
    from engine.store.session.watched import WatchedConnection

PID = "SELECT pg_backend_pid()"
PATIENCE_S = 3.0
LOOKS = 4
"""How often the neighbour asks: more often than this side, so that a pool that deals in turn shows itself, too."""

_trusted: set[str] = set()
"""URLs whose pooler keeps to a session: each is tested once, not at every connection."""


def refuse_by_transaction(session: WatchedConnection) -> None:
    """Ask which process of PostgreSQL serves `session`, and refuse a pooler that changes it between transactions.

    A role, temporary tables, limits and advisory locks belong to a session: under such a pooler they would get lost, or
    affect other clients.

    Raises:
        InputError: such a pooler stands in between.
        psycopg2.Error: PostgreSQL did not answer.
    """
    session.autocommit = True
    session.pid = _pid(session)
    # a pooler opens the connection with its own number; PostgreSQL's number means: no pooler
    if session.pid != session.info.backend_pid and session.url not in _trusted:
        _look(session)
        _trusted.add(session.url)
    session.autocommit = False


def _look(session: WatchedConnection) -> None:
    """Compare with a neighbour: a client with a session of its own has one process of PostgreSQL, and has it alone."""
    neighbours = set()
    # a neighbour that has to wait for a free process cannot share that of this session
    with suppress(TimeoutError, psycopg2.Error), closing(Inquiry(session.url, PATIENCE_S)) as neighbour:
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
        assert row is not None  # a function without a table has a row
        return int(row[0])
