"""Set PostgreSQL's time limits, and recognise a statement or a session that one of them has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor

STATEMENT = "statement_timeout"
IDLE = "idle_in_transaction_session_timeout"
TRANSACTION = "transaction_timeout"

_BY_CODE = {"57014": STATEMENT, "25P03": IDLE, "25P04": TRANSACTION}
_CONNECTION_LOST = "OperationalError"


def set_limit(cursor: Cursor, name: str, value: str) -> None:
    """Set one of PostgreSQL's time limits for this session, unless the operator has set it already."""
    cursor.execute(
        "SELECT set_config(%(name)s, %(value)s, false) WHERE current_setting(%(name)s) = '0'",
        {"name": name, "value": value},
    )


def ending(cursor: Cursor) -> dict[str, float]:
    """Return the limits (s) that end this whole session, by name; the session cannot be asked for them afterwards."""
    cursor.execute(
        """
        SELECT name, extract(epoch FROM value::interval)::double precision
        FROM (SELECT name, current_setting(name, true) AS value FROM unnest(%s) AS name) AS n WHERE value <> '0'
        """,
        ([TRANSACTION, IDLE],),
    )
    return dict(cursor.fetchall())


def limit_of(error: BaseException, session: Connection | None = None, took_s: float = 0.0) -> str | None:
    """Return the name of the limit that caused `error`; None for other causes.

    The SQLSTATE names the limit, as the words are in the server's language. Sometimes an ended session leaves nothing
    but a closed connection: then the cause is the limit of `session` that `took_s` has passed.
    """
    code = getattr(error, "pgcode", None)
    if code is None and type(error).__name__ == _CONNECTION_LOST and "closed" in str(error):
        ended_here = getattr(session, "given_up", None) is not None
        limits: dict[str, float] = {} if ended_here else getattr(session, "ends_after_s", {})
        return next((name for name, after_s in limits.items() if took_s >= after_s), None)
    return _BY_CODE.get(code or "")
