"""Make the roles that sessions act as, accept those that a DBA has made, and name a missing GRANT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import errors, sql

from schemas.errors import InputError

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

WRITER = "guerdon_writer"
ANALYST = "guerdon_analyst"
ROLES = (WRITER, ANALYST)

SET_APART = 160_000
"""From this server version on a member of a role needs the SET right as well to act as it."""


def act_as(cursor: Cursor, role: str) -> None:
    """Let the session act as `role` from now on.

    Raises:
        InputError: there is no such role, or the user may not act as it.
    """
    try:
        cursor.execute(sql.SQL("SET SESSION ROLE {}").format(sql.Identifier(role)))
    except errors.InvalidParameterValue as error:
        raise InputError(
            f"this server has no role {role}, as after a restore on a new one; let who may make roles run "
            f"`CREATE ROLE {role} NOLOGIN; {_grant(cursor, role)}`, or run `guerdon init`"
        ) from error
    except errors.InsufficientPrivilege as error:
        cursor.connection.rollback()
        if role == WRITER and _may_act_as(cursor, ANALYST):
            raise InputError(
                f"the user {_user(cursor)} is an analyst, who reads the views by SQL, and this command acts as {role}: "
                "let who runs Guerdon run it, with the GUERDON_DATABASE_URL of the workers"
            ) from error
        raise InputError(
            f"the user {_user(cursor)} may not act as {role}; let who made that role, or a superuser, run "
            f"`{_grant(cursor, role)}`"
        ) from error


def prepare(cursor: Cursor) -> None:
    """Make the roles that are missing, and let this user act as them; safe to repeat and to run twice at once.

    Roles belong to the whole server: another database's owner may have made them, or a DBA before anything else.

    Raises:
        InputError: the user may not make a role, or may not act as one; the sentence says who must run what.
    """
    # make and grant as far as this user may
    for role in ROLES:
        if not _exists(cursor, role):
            _attempt(cursor, "CREATE ROLE {} NOLOGIN", role)
        if not _may_act_as(cursor, role):
            _attempt(cursor, "GRANT {} TO CURRENT_USER", role)

    # name what is left to somebody with more rights
    missing = [role for role in ROLES if not _exists(cursor, role)]
    ungranted = [role for role in ROLES if role in missing or not _may_act_as(cursor, role)]
    if ungranted:
        wanted = [f"CREATE ROLE {role} NOLOGIN;" for role in missing] + [_grant(cursor, *ungranted)]
        may = "may not make the roles" if missing else "may not act as"
        raise InputError(
            f"the user {_user(cursor)} {may} {' and '.join(missing or ungranted)}, which Guerdon needs; let who may, "
            f"such as a superuser, run `{' '.join(wanted)}`, then run `guerdon init` again"
        )


def refuse_without_schema(cursor: Cursor) -> None:
    """Refuse a user who may not make Guerdon's schemas in this database.

    Raises:
        InputError: the sentence names the GRANT.
    """
    cursor.execute(
        """
        SELECT current_database() FROM (SELECT count(*) AS there FROM pg_namespace
                                        WHERE nspname IN ('guerdon', 'reward')) AS n
        WHERE there < 2 AND NOT has_database_privilege(current_database(), 'CREATE')
        """
    )
    row = cursor.fetchone()
    if row is not None:
        words = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(row[0]), _user_name(cursor))
        raise InputError(
            f"the user {_user(cursor)} may not make schemas in this database; let its owner run "
            f"`{words.as_string(cursor)}`, or run `guerdon init` as its owner"
        )


def _attempt(cursor: Cursor, statement: str, role: str) -> None:
    """Run a statement that may fail because another was faster or this user may not; the caller looks at the result."""
    cursor.execute("SAVEPOINT role")
    try:
        cursor.execute(sql.SQL(statement).format(sql.Identifier(role)))
    except (errors.DuplicateObject, errors.UniqueViolation, errors.UndefinedObject, errors.InsufficientPrivilege):
        cursor.execute("ROLLBACK TO SAVEPOINT role")


def _exists(cursor: Cursor, role: str) -> bool:
    cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
    return cursor.fetchone() is not None


def _may_act_as(cursor: Cursor, role: str) -> bool:
    right = "SET" if cursor.connection.server_version >= SET_APART else "MEMBER"
    if not _exists(cursor, role):
        return False
    cursor.execute("SELECT pg_has_role(%s, %s)", (role, right))
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def _grant(cursor: Cursor, *roles: str) -> str:
    words = sql.SQL("GRANT {} TO {}").format(sql.SQL(", ").join(map(sql.Identifier, roles)), _user_name(cursor))
    # from 16 on the maker of a role is its member without the right to act as it
    extra = " WITH SET TRUE" if cursor.connection.server_version >= SET_APART else ""
    return words.as_string(cursor).replace('"guerdon_writer"', WRITER).replace('"guerdon_analyst"', ANALYST) + extra


def _user(cursor: Cursor) -> str:
    return _user_name(cursor).as_string(cursor)


def _user_name(cursor: Cursor) -> sql.Identifier:
    return sql.Identifier(cursor.connection.info.user)
