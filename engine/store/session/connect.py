"""Open sessions with PostgreSQL: in UTF-8, with limits to every wait, on a server that fits."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import parse_dsn

from engine.store.session import poolers, watch
from engine.store.session.asking import Inquiry
from engine.store.session.watched import WatchedConnection
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST = 15
NEWEST_TESTED = 18
"""Major versions of PostgreSQL that Guerdon works with; later ones are accepted untested."""

LIMITS = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Limits after which libpq gives up a silent host: some 10 s, where Linux by itself waits for two hours."""


class Session(WatchedConnection):
    """Be a connection that is given up when no answer will come."""

    def close(self) -> None:
        """Close the connection, after the watch has let go of its socket."""
        watch.forget(self)
        super().close()

    def rollback(self) -> None:
        """Roll back, unless the connection is broken: then the error that broke it is the one to show."""
        if not self.closed:
            super().rollback()

    def cancel(self) -> None:
        """End the statement under way; if PostgreSQL does not react at once, end the connection.

        libpq's own way would hold up every thread of this process for as long as the server is silent.
        """
        try:
            where = self.place()
            with closing(Inquiry(self.url, CANCELLED_WITHIN_S, application_name="guerdon cancel", **where)) as asked:
                asked.one("SELECT pg_cancel_backend(%s)", (self.pid,))
        except (TimeoutError, psycopg2.Error):
            watch.give_up(self, "PostgreSQL did not answer when a statement was to be ended")


CANCELLED_WITHIN_S = 1.0


def open_session(database_url: str, application: str) -> Session:
    """Connect to `database_url` under the name `application`.

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

    # refuse an unfit server before the first query
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
    """Return the parameters of a connection: LIMITS, unless the URL or the environment says otherwise, and UTF-8.

    The encoding is always UTF-8: rows are copied as UTF-8, and under another encoding PostgreSQL would alter every
    letter on the way.
    """
    named = parse_dsn(url)
    limits = {name: value for name, value in LIMITS.items() if name not in named}
    if environment.get("PGCONNECT_TIMEOUT"):
        limits.pop("connect_timeout", None)
    return {**limits, "client_encoding": "UTF8"}


def refuse_version(number: int) -> None:
    """Refuse a server that is too old; libpq writes the version 15.4 as 150004.

    Raises:
        InputError: the server is older than OLDEST.
    """
    if number < OLDEST * 10_000:
        raise InputError(
            f"this PostgreSQL is {number // 10_000}.{number % 10_000}, and Guerdon needs {OLDEST} or later (it is "
            f"tested up to {NEWEST_TESTED}): upgrade the server, or let GUERDON_DATABASE_URL name another one"
        )


def _refuse_encoding(session: Session) -> None:
    encoding = session.info.parameter_status("server_encoding")
    if encoding == "UTF8":
        return

    words = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    right = words.format(sql.Identifier(session.info.dbname)).as_string(session)
    raise InputError(
        f'the database "{session.info.dbname}" keeps text as {encoding}, which cannot hold every name as it was sent; '
        f"make it anew in UTF-8, or one of another name, by `{right}`, and let GUERDON_DATABASE_URL name it"
    )


def _unreachable(error: psycopg2.OperationalError) -> ServiceUnreachable:
    reason = str(error).strip().splitlines()[0]
    return ServiceUnreachable(
        f"PostgreSQL does not answer: {reason}; start it with `guerdon up` or correct GUERDON_DATABASE_URL"
    )
