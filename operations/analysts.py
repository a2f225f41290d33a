"""Give people and tools logins that read the views: make them, list them, renew their passwords, drop them.

A login is a role of PostgreSQL's, a member of `guerdon_analyst` and of nothing else of Guerdon's. Its rights are that
role's: to read schema `reward`. Roles belong to the whole server; their settings here to one database.
"""

from __future__ import annotations

import re
import secrets
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from psycopg2 import errors, sql
from psycopg2.extensions import encrypt_password, parse_dsn

from engine.store.cursor import one
from engine.store.database import ANALYST, WRITER, connect, transaction
from operations.rows import dictionaries
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from engine.store.cursor import Cursor
    from operations.settings import Settings

CONNECTIONS_MAX = 3
"""How many sessions one login may have: the workers share the server's connections with them."""

SETTINGS = {
    "search_path": "reward",
    "default_transaction_read_only": "on",
    "statement_timeout": "10min",
    "idle_in_transaction_session_timeout": "1min",
}
"""Settings with which each session of such a login begins; docs/operations.md says why."""

PASSWORD_BYTES = 24

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED = re.compile(r"pg_.*|guerdon_.*|public|none")

_ALSO_FOR_THEM = ("sslmode", "sslrootcert", "channel_binding")
"""Parameters of the operator's URL that hold for every user.

A client's key is the operator's own. Where `target_session_attrs` asks for a session that can write, an analyst's would
be let in nowhere.
"""

_IS_ANALYST = """
    r.rolcanlogin AND pg_has_role(r.oid, %(analyst)s, 'MEMBER') AND NOT pg_has_role(r.oid, %(writer)s, 'MEMBER')
"""
"""Whether a role reads as an analyst and is nothing more; superusers and Guerdon's owner are members of the writer."""


class Login(NamedTuple):
    """Hold a login's name, and the URL with its password, which nobody can be shown a second time."""

    name: str
    url: str


def create(settings: Settings, name: str) -> Login:
    """Make a login that reads the views and nothing else.

    Raises:
        InputError: the name is taken or has odd letters, or the user of the database's URL may not make roles.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    _check_name(name)
    with _roles(settings) as cursor:
        # the role, with a verifier in place of the password: statements may stand in the server's log
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        role = sql.Identifier(name)
        try:
            cursor.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {} IN ROLE {}").format(
                    role, _verifier(cursor, name, password), sql.Literal(CONNECTIONS_MAX), sql.Identifier(ANALYST)
                )
            )
        except errors.DuplicateObject:
            raise InputError(
                f"the server has a role {name} already; take another name, or give an analyst of that name a new "
                f"password by `guerdon analyst renew {name}`"
            ) from None

        # how its sessions begin, and who made it
        (database, user) = one(cursor, "SELECT current_database(), session_user")
        for setting, value in SETTINGS.items():
            cursor.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(
                    role, sql.Identifier(database), sql.Identifier(setting), sql.Literal(value)
                )
            )
        note = f"made by {user} on {datetime.now(UTC):%Y-%m-%d} with `guerdon analyst create`"
        cursor.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(note)))
        return Login(name, _url(settings.database_url, cursor, name, password))


def renew(settings: Settings, name: str) -> Login:
    """Give a login a new password; the old one is worth nothing from then on. Open sessions go on.

    Raises:
        InputError: there is no such analyst, or the user of the database's URL may not change the role.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with _roles(settings) as cursor:
        _need(cursor, name)
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        cursor.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), _verifier(cursor, name, password))
        )
        return Login(name, _url(settings.database_url, cursor, name, password))


def drop(settings: Settings, name: str) -> int:
    """Take a login away, end its sessions, and return how many there were.

    Raises:
        InputError: there is no such analyst, it owns something, or the user of the database's URL may not drop the
            role.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    role = sql.Identifier(name)
    with _roles(settings) as cursor:
        _need(cursor, name)
        cursor.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
        # only members may end a role's sessions; a superuser may anyway
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))

    # nobody can come in any more
    with _roles(settings) as cursor:
        (ended,) = one(
            cursor, "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = %s", (name,)
        )
        try:
            cursor.execute(sql.SQL("DROP ROLE {}").format(role))
        except errors.DependentObjectsStillExist as error:
            raise InputError(
                f"{name} cannot log in any more, but the role stays, as it owns something or has other rights "
                f"({_first_line(error.diag.message_detail)}); there run `DROP OWNED BY {name}; DROP ROLE {name}`"
            ) from None
    return int(ended)


def analysts(settings: Settings) -> list[dict[str, Any]]:
    """Return every login that reads as an analyst and is nothing more: its name, sessions now, and who made it.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(settings.database_url, role=ANALYST) as cursor:
        return dictionaries(
            cursor,
            f"""
            SELECT r.rolname AS name,
                   (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid)::integer AS sessions,
                   nullif(r.rolconnlimit, -1) AS sessions_max, shobj_description(r.oid, 'pg_authid') AS note
            FROM pg_roles r WHERE {_IS_ANALYST} ORDER BY r.rolname
            """,
            {"analyst": ANALYST, "writer": WRITER},
        )


@contextmanager
def _roles(settings: Settings) -> Iterator[Cursor]:
    """Yield a cursor of the URL's user, who must be able to make roles; commit at the end."""
    # connect as an analyst first: that names a missing role or database better
    with transaction(settings.database_url, role=ANALYST):
        pass

    with closing(connect(settings.database_url, role=None, application="guerdon analyst")) as connection:
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        except errors.InsufficientPrivilege as error:
            user = sql.Identifier(connection.info.user).as_string(connection)
            raise InputError(
                f"the user {user} may not do that ({_first_line(error.diag.message_primary)}); let a superuser run "
                f"`ALTER ROLE {user} CREATEROLE; GRANT {ANALYST} TO {user} WITH ADMIN OPTION`, or run the command "
                "with the URL of a user who may"
            ) from None


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise InputError(
            f'"{name}" cannot be the name of an analyst: take small letters from a to z, digits and _, a letter first, '
            "63 at most, and nothing that begins with pg_ or guerdon_"
        )


def _need(cursor: Cursor, name: str) -> None:
    """Refuse a role that is no analyst's, such as a worker's or the owner's."""
    cursor.execute(
        f"SELECT FROM pg_roles r WHERE r.rolname = %(name)s AND {_IS_ANALYST}",
        {"name": name, "analyst": ANALYST, "writer": WRITER},
    )
    if cursor.fetchone() is None:
        raise InputError(f'there is no analyst "{name}"; `guerdon analyst list` names all')


def _verifier(cursor: Cursor, name: str, password: str) -> sql.Composable:
    """Return that by which PostgreSQL knows a password again (SCRAM, RFC 5802); the password cannot be had from it."""
    return sql.Literal(encrypt_password(password, name, cursor.connection, "scram-sha-256"))


def _url(database_url: str, cursor: Cursor, name: str, password: str) -> str:
    """Return the operator's URL with another user, and without what is the operator's own."""
    # hosts and ports as the operator names them, or else those of this session
    given, info = parse_dsn(database_url), cursor.connection.info
    hosts = (given.get("host") or info.host or "").split(",")
    ports = str(given.get("port") or info.port).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports

    # a folder with a socket cannot stand where a host does
    parameters = {key: given[key] for key in _ALSO_FOR_THEM if key in given}
    if any(host.startswith("/") for host in hosts):
        parameters = {"host": ",".join(hosts), "port": ",".join(ports), **parameters}
        place = ""
    else:
        pairs = zip(hosts, ports, strict=True)
        place = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs)
    query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"postgresql://{name}:{password}@{place}/{quote(info.dbname, safe='')}{query}"


def _first_line(words: str | None) -> str:
    return (words or "").split("\n", 1)[0]
