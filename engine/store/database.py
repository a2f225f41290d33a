"""Connect to PostgreSQL, migrate it, and tell its errors apart."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psycopg2
from psycopg2 import errors

from engine.store import revision, roles
from engine.store.cursor import one
from engine.store.generations import meanings
from engine.store.roles import ANALYST, WRITER
from engine.store.session import limits
from engine.store.session.connect import open_session
from engine.store.session.limits import set_limit
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.store.cursor import Connection, Cursor
    from engine.store.session.connect import Session

__all__ = ["ANALYST", "WRITER", "set_limit"]  # others import them from here

WORKER = "guerdon worker"
"""The name in `pg_stat_activity` of connections that write batches."""

PUBLISHER = "guerdon publisher"
"""The name of connections that read the reward log for its topic."""

MIGRATION_LOCK = 0x6775_6572  # "guer": any number that nothing else locks

RETRYABLE = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.LockNotAvailable,
    errors.UniqueViolation,  # two workers admitted the same event at once; the second looks it up again
)
"""Errors after which a second attempt at the same transaction succeeds."""

INFRASTRUCTURE = (
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
    errors.ReadOnlySqlTransaction,  # a standby after a failover, or a server whose disk is full
    errors.IdleInTransactionSessionTimeout,  # this process was stopped for so long that PostgreSQL ended its session
    errors.TransactionTimeout,  # an operator's limit
)
"""Errors that say nothing about the data: PostgreSQL is away, full, shutting down, or has ended this session."""

FROZEN_AFTER = "10s"
"""How long a transaction may stand idle. A stopped process keeps its locks, and others wait for them."""

ANSWERED_WITHIN = "60s"
"""How long a statement may take while events, views or a person wait for it; long commands have no limit."""

NO_LIMIT = "0"


def connect(
    database_url: str,
    *,
    role: str | None = WRITER,
    application: str = "guerdon",
    idle_max: str = FROZEN_AFTER,
    statement_max: str = ANSWERED_WITHIN,
) -> Connection:
    """Open a connection that acts as `role`, on a database with the tables of this release.

    PostgreSQL ends the session when a transaction idles for `idle_max`, and ends a statement that takes longer than
    `statement_max`; NO_LIMIT: never. A limit that the operator has set for the role or the database stands. Without a
    role the connection acts as the URL's user, has no limits, and takes any database.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer at `database_url`.
        InputError: the database has no tables of Guerdon's, or those of another release; a later release has decided
            the live generation; the encoding, the server's version, or a pooler in between does not fit; or the user
            may not act as `role`.
    """
    session = open_session(database_url, application)
    if role is not None:
        try:
            _act_as(session, role, {limits.IDLE: idle_max, limits.STATEMENT: statement_max})
        except BaseException:
            session.close()
            raise
    return session


def _act_as(session: Session, role: str, wanted: Mapping[str, str]) -> None:
    with session, session.cursor() as cursor:
        _refuse_empty(cursor)
        roles.act_as(cursor, role)
        for name, value in wanted.items():
            set_limit(cursor, name, value)
        # forbidding plans raises their cost, which PostgreSQL up to 17 takes for work that merits compilation
        cursor.execute("SET jit = off")
        session.ends_after_s = limits.ending(cursor)
        if role == WRITER:
            _refuse_other_release(cursor)


def _refuse_other_release(cursor: Cursor) -> None:
    """Refuse the tables of another release, and a live generation that a later release has decided."""
    (present,) = one(cursor, "SELECT max(version_num) FROM guerdon.alembic_version")
    revision.refuse_other(present)
    meanings.refuse_newer(cursor)


def _refuse_empty(cursor: Cursor) -> None:
    # everybody may read the catalogue, while looking a table up by its name needs the right to use its schema
    query = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %s AND relname = %s"
    if one(cursor, f"SELECT EXISTS ({query})", ("guerdon", "shard_head")) == (False,):
        (name,) = one(cursor, "SELECT current_database()")
        raise InputError(
            f"the database {name} has no tables of Guerdon's: run `guerdon init` first, or correct "
            "GUERDON_DATABASE_URL where another one is meant"
        )


def end_frozen(database_url: str) -> int:
    """End sessions whose process was stopped half-way through a COPY, and return their number.

    PostgreSQL ends a session that idles in a transaction, but waits without limit for the rest of a COPY, or for its
    reader. Such a session keeps a shard's head, a partition's offset or a shard's publication locked. If its process
    ever goes on, it finds itself fenced.
    """
    with closing(connect(database_url, role=None)) as connection, connection, connection.cursor() as cursor:
        (ended,) = one(
            cursor,
            """
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = ANY(%s) AND state = 'active'
              AND wait_event IN ('ClientRead', 'ClientWrite') AND query_start < clock_timestamp() - greatest(
                  current_setting('idle_in_transaction_session_timeout')::interval, interval '1s')
            """,
            ([WORKER, PUBLISHER],),
        )
        return int(ended)


@contextmanager
def transaction(database_url: str, *, role: str = WRITER, statement_max: str = ANSWERED_WITHIN) -> Iterator[Cursor]:
    """Yield a cursor of one transaction on a connection of its own; commit at the end, roll back on an error."""
    connected = connect(database_url, role=role, statement_max=statement_max)
    with closing(connected) as connection, connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def snapshot(database_url: str, *, statement_max: str = ANSWERED_WITHIN) -> Iterator[Cursor]:
    """Yield a cursor that reads everything as of one instant and writes nothing."""
    with transaction(database_url, statement_max=statement_max) as cursor:
        cursor.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield cursor


@contextmanager
def as_owner(database_url: str, *, application: str = "guerdon") -> Iterator[Connection]:
    """Yield a connection that acts as the user of the URL, to make, rename or drop tables.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
        InputError: the user does not own Guerdon's tables, or there are none of this release.
    """
    with closing(connect(database_url, role=None, application=application)) as connection:
        try:
            with connection, connection.cursor() as cursor:
                _refuse_empty(cursor)
                _refuse_other_release(cursor)
            yield connection
        except errors.InsufficientPrivilege as error:
            raise InputError(
                f"this user may not make or change Guerdon's tables ({str(error).strip().splitlines()[0]}); "
                "run the command as the database's owner, as `guerdon init` was"
            ) from error


def migrate(database_url: str) -> str:
    """Bring the database to the newest schema and return its revision; safe to repeat and to run twice at once.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
        AnswerIsNo: the database is newer than this release.
        InputError: the user may not make tables or roles (the sentence names the missing GRANT); the database is not
            in UTF-8, the server too old, or a pooler in between; or a later release has decided the live generation.
    """
    from alembic import command  # noqa: PLC0415  a worker must not pay for Alembic
    from alembic.config import Config  # noqa: PLC0415  as above
    from alembic.script import ScriptDirectory  # noqa: PLC0415  as above
    from alembic.util import CommandError  # noqa: PLC0415  as above
    from sqlalchemy import create_engine, text  # noqa: PLC0415  as above
    from sqlalchemy.exc import ProgrammingError  # noqa: PLC0415  as above
    from sqlalchemy.pool import NullPool  # noqa: PLC0415  as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    # SQLAlchemy's own reading of a URL knows one host only, and none of our limits
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: connect(database_url, role=None, application="guerdon init"),
        poolclass=NullPool,
    )

    try:
        with engine.begin() as connection:
            # one migration at a time, by a user who may make everything
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            with cast("Connection", connection.connection.driver_connection).cursor() as cursor:
                roles.prepare(cursor)
                roles.refuse_without_schema(cursor)

            connection.execute(text("CREATE SCHEMA IF NOT EXISTS guerdon"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            with cast("Connection", connection.connection.driver_connection).cursor() as cursor:
                meanings.adopt(cursor)
    except CommandError as error:
        raise AnswerIsNo(
            f"the database cannot be migrated by this release: {error}; use the release that last migrated it"
        ) from error
    except ProgrammingError as error:
        if not isinstance(error.orig, errors.InsufficientPrivilege):
            raise
        raise InputError(
            f"this user may not make Guerdon's tables ({str(error.orig).strip().splitlines()[0]}); run `guerdon init` "
            "as the owner of the database and of Guerdon's tables"
        ) from error
    finally:
        engine.dispose()
    return str(ScriptDirectory.from_config(config).get_current_head())
