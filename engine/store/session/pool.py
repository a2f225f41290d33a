"""Keep a few sessions open for many short reads; each read sees one instant of the database."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2

from engine.store.session.prepared import PreparedCursor, note
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.store.cursor import Connection, Cursor

SESSIONS_MAX = 8
WAIT_S = 2.0
"""How long a read waits for a session before it gives up."""


class NoSessionFree(ServiceUnreachable):
    """Say that more reads want a session than there are."""


class Pool:
    """Lend sessions, and open them as they are needed.

    Args:
        open_session: opens a session for reads that act as whoever they should.
        sessions_max: the most sessions that are open at once.
    """

    def __init__(self, open_session: Callable[[], Connection], sessions_max: int = SESSIONS_MAX) -> None:
        self._open = open_session
        self._room = threading.BoundedSemaphore(sessions_max)
        self._idle: list[Connection] = []
        self._is_closed = False

    @contextmanager
    def snapshot(self) -> Iterator[Cursor]:
        """Yield a cursor of a read-only transaction that sees everything as of one instant.

        Raises:
            NoSessionFree: all sessions were busy for WAIT_S.
            ServiceUnreachable: PostgreSQL does not answer.
        """
        with self._session() as session, session, session.cursor(cursor_factory=PreparedCursor) as cursor:
            yield cursor

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        if not self._room.acquire(timeout=WAIT_S):
            raise NoSessionFree("all sessions with the database are busy: ask again in a moment")
        try:
            session = self._taken()
            try:
                yield session
            except BaseException as error:
                # an answer that is no leaves the session well; after anything of PostgreSQL's the next read has another
                if isinstance(error, psycopg2.Error) or not isinstance(error, Exception):
                    session.close()
                self._give_back(session)
                raise
            self._give_back(session)
        finally:
            self._room.release()

    def _taken(self) -> Connection:
        """Return an idle session that PostgreSQL has not ended, or a new one."""
        for session in self._popped():
            if not session.closed and _is_alive(session):
                return session
            session.close()

        session = self._open()
        session.set_session(isolation_level="REPEATABLE READ", readonly=True)
        return session

    def _give_back(self, session: Connection) -> None:
        if session.closed or self._is_closed:
            session.close()
        else:
            note(session)
            self._idle.append(session)

    def close(self) -> None:
        """Close the sessions that nobody uses; the others are closed as they come back."""
        self._is_closed = True
        for session in self._popped():
            session.close()

    def _popped(self) -> Iterator[Connection]:
        """Yield idle sessions, each to one caller, until there are none; other threads take some meanwhile."""
        while True:
            try:
                session = self._idle.pop()
            except IndexError:
                return
            yield session


def _is_alive(session: Connection) -> bool:
    """Whether the session's socket is open; a server that has restarted has closed it, and it is readable then."""
    import select  # noqa: PLC0415  only servers need it

    readable, _, _ = select.select([session.fileno()], [], [], 0)
    return not readable
