"""Record what operators do, before and after it: who, what, with which arguments, and what came of it."""

from __future__ import annotations

import getpass
import os
import platform
import sys
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2.errors import ReadOnlySqlTransaction

from engine.store import audit_log
from engine.store.audit_log import Entry
from engine.store.database import transaction
from operations.rows import dictionaries
from schemas.errors import GuerdonError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.store.cursor import Cursor

REFUSALS = (1, 2)
"""The exit codes of commands that were refused."""


def this_person() -> str:
    """Return the name under which the commands of this login are recorded; a login without a name has its number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"cli:{user}@{platform.node()}"


@contextmanager
def recorded(
    database_url: str, action: str, arguments: Mapping[str, Any], *, only_reads: bool = False
) -> Iterator[None]:
    """Record that an action begins, and what came of it when the block has ended.

    An action that cannot be recorded does not begin. One that only reads also works on a standby, where nothing can be
    recorded; it says so on standard error.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    entry = Entry(this_person(), action, {name: _plain(value) for name, value in arguments.items()}, "begun")
    try:
        begun = begin(database_url, entry)
    except ReadOnlySqlTransaction:
        if not only_reads:
            raise
        sys.stderr.write("guerdon: this is not recorded, as the database is read-only here\n")
        yield
        return

    result, detail = "done", None
    try:
        yield
    except BaseException as error:
        result, detail = outcome(error)
        raise
    finally:
        end(database_url, entry, begun, result, detail)


def outcome(error: BaseException) -> tuple[str, str | None]:
    """Return what came of an action that an exception has ended, and the sentence for a person.

    Our own errors have an exit code, and so have those with which a command line ends a command: 1 and 2 refuse.
    """
    code = getattr(error, "exit_code", None)
    if isinstance(error, GuerdonError):
        return ("refused" if code in REFUSALS else "failed"), str(error)
    if code is not None:
        return ("done" if code == 0 else "refused" if code in REFUSALS else "failed"), None
    if not isinstance(error, Exception) or type(error).__name__ == "Abort":
        return "interrupted", None
    return "failed", f"{type(error).__name__}: {error}"


def begin(database_url: str, entry: Entry) -> int:
    """Record that an action begins, and return its position: `end` takes it.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        return audit_log.append(cursor, entry)


def end(database_url: str, entry: Entry, begun: int, result: str, detail: str | None = None) -> None:
    """Record what came of an action that has begun.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        audit_log.append(cursor, entry._replace(result=result, begun=begun, detail=detail))


def entries(
    cursor: Cursor, *, before: int | None = None, actor: str | None = None, action: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Return rows of the audit log, the newest first.

    Args:
        cursor: reads.
        before: only rows before this position.
        actor: only this actor's.
        action: only of this command or route.
        limit: rows at most.
    """
    return dictionaries(
        cursor,
        """
        SELECT seq, at, begun, actor, db_user, on_behalf, action, arguments, result, detail, request_id
        FROM guerdon.audit
        WHERE seq < coalesce(%(before)s, 9223372036854775807) AND (%(actor)s IS NULL OR actor = %(actor)s)
          AND (%(action)s IS NULL OR action = %(action)s)
        ORDER BY seq DESC LIMIT %(limit)s
        """,
        {"before": before, "actor": actor, "action": action, "limit": limit},
    )


def _plain(value: Any) -> Any:
    """Return an argument as JSON can hold it."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Path | datetime | date):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
