"""Open a session with PostgreSQL as Guerdon needs each: in UTF-8, with limits to every wait, on a server that fits."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import parse_dsn

from engine.store.session import poolers, watch
from engine.store.session.asking import Asked
from engine.store.session.watched import WatchedConnection
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST = 15
NEWEST_TESTED = 18
"""Major versions of PostgreSQL that Guerdon works with; a later one than tested is taken."""

LIMITS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""How soon libpq gives a silent host up: within some 10 s, where Linux by itself waits for two hours."""


class Session(WatchedConnection):
    """Be a connection whose waits are watched: it is given up where no answer will come."""

    def close(self) -> None:
        """Close the connection; nobody looks at its socket any more by then."""
        watch.forget(self)
        super().close()

    def rollback(self) -> None:
        """Roll back; of a connection that broke nothing is left to, and what broke it is what is to be told."""
        if not self.closed:
            super().rollback()

    def cancel(self) -> None:
        """End the statement under way, and where PostgreSQL does not heed that at once, the connection.

        libpq's own way holds up every thread of this process for as long as the server is silent.
        """
        try:
            where = self.place()
            with closing(Asked(self.url, CANCELLED_WITHIN_S, application_name="guerdon cancel", **where)) as asked:
                asked.one("SELECT pg_cancel_backend(%s)", (self.pid,))
        except (TimeoutError, psycopg2.Error):
            watch.give_up(self, "PostgreSQL did not answer when a statement was to be ended")


CANCELLED_WITHIN_S = 1.0


def open_session(database_url: str, application: str) -> Session:
    """Connect to `database_url`, which sees the session under the name `application`.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
        InputError: the server is too old, the database does not keep UTF-8, or a pooler gives each transaction
            another session.
    """
    url = database_url.replace("postgresql+psycopg2://", "postgresql://", 1)
    try:
        session: Session = psycopg2.connect(
            url, connection_factory=Session, application_name=application, **parameters(url, os.environ)
        )
    except psycopg2.OperationalError as error:
        raise _unreachable(error) from error
    try:
        session.url, session.pid = url, session.info.backend_pid
        watch.over(session)
        refuse_version(session.server_version)
        _refuse_encoding(session)
        poolers.refuse_by_transaction(session)
    except psycopg2.OperationalError as error:
        session.close()
        raise _unreachable(error) from error
    except BaseException:
        session.close()
        raise
    return session


def parameters(url: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what a connection is opened with beside its URL, where neither that nor the environment says otherwise.

    The encoding is not up to them: rows are copied as UTF-8, and a session that calls itself otherwise would have
    PostgreSQL alter each letter on the way.
    """
    given = parse_dsn(url)
    found = {name: value for name, value in LIMITS.items() if name not in given}
    if environment.get("PGCONNECT_TIMEOUT"):
        found.pop("connect_timeout", None)
    return {**found, "client_encoding": "UTF8"}


def refuse_version(number: int) -> None:
    """Refuse a server by its version, as libpq tells it: 150004 is 15.4.

    Raises:
        InputError: it is older than what Guerdon works with.
    """
    if number < OLDEST * 10_000:
        raise InputError(
            f"this PostgreSQL is {number // 10_000}.{number % 10_000}, and Guerdon needs {OLDEST} or later (it is "
            f"tested up to {NEWEST_TESTED}): upgrade the server, or let GUERDON_DATABASE_URL name another one"
        )


def _refuse_encoding(session: Session) -> None:
    kept = session.info.parameter_status("server_encoding")
    if kept == "UTF8":
        return
    words = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    right = words.format(sql.Identifier(session.info.dbname)).as_string(session)
    raise InputError(
        f'the database "{session.info.dbname}" keeps text as {kept}, which cannot hold every name as it was sent; make '
        f"it anew in UTF-8, or one of another name, by `{right}`, and let GUERDON_DATABASE_URL name it"
    )


def _unreachable(error: psycopg2.OperationalError) -> ServiceUnreachable:
    reason = str(error).strip().splitlines()[0]
    return ServiceUnreachable(
        f"PostgreSQL does not answer: {reason}; start it with `guerdon up` or correct GUERDON_DATABASE_URL"
    )
