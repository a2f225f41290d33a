"""Find the session with the oldest snapshot: PostgreSQL keeps every row that it may still read, and all others pay."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from engine.store.database import connect
from operations.rows import dictionaries

if TYPE_CHECKING:
    from operations.settings import Settings

OLD_S = 60
"""The age from which a snapshot is worth a line: Guerdon's own are far younger while it works."""

TRANSACTIONS_MIN = 10_000
"""The same in transactions, where PostgreSQL does not show the age."""

_OLDEST = """
SELECT held_by, pid, application, "user", age_s, transactions FROM (
    SELECT 'session' AS held_by, pid, application_name AS application, usename::text AS "user",
           floor(extract(epoch FROM clock_timestamp() - xact_start))::bigint AS age_s,
           age(backend_xmin)::bigint AS transactions
    FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND datname = current_database()
    UNION ALL
    SELECT 'prepared transaction', NULL, gid, owner::text,
           floor(extract(epoch FROM clock_timestamp() - prepared))::bigint, age(transaction)
    FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL
    SELECT 'replication slot', active_pid, slot_name::text, NULL, NULL, age(xmin)
    FROM pg_replication_slots WHERE xmin IS NOT NULL
) held
ORDER BY transactions DESC, age_s DESC NULLS LAST LIMIT 1
"""


def oldest(settings: Settings) -> dict[str, Any] | None:
    """Return the session that keeps the oldest rows from being cleared away; None where there is none.

    The row has held_by (session, prepared transaction or replication slot), pid, application, user, age_s, and the
    number of transactions that began since. It is read as the URL's user: PostgreSQL shows the age of other users'
    sessions only to members of `pg_read_all_stats`; to others age_s is None.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with (
        closing(connect(settings.database_url, role=None, application="guerdon status")) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        rows = dictionaries(cursor, _OLDEST)
    return rows[0] if rows else None


def sentence(row: dict[str, Any] | None) -> str | None:
    """Return a sentence about a snapshot that may slow the workers; None where there is none.

    Where its age is not shown, the number of transactions since then decides: it may be old, and somebody should know.
    """
    if row is None or (row["age_s"] is not None and row["age_s"] < OLD_S):
        return None
    if row["age_s"] is None and row["transactions"] < TRANSACTIONS_MIN:
        return None

    age = f"{row['transactions']:,} transactions" if row["age_s"] is None else f"{row['age_s']:,} s"
    who = ", ".join(
        part
        for part in (
            row["held_by"] if row["pid"] is None else f"{row['held_by']} with pid {row['pid']}",
            row["application"] and f'"{row["application"]}"',
            row["user"] and f"user {row['user']}",
        )
        if part
    )
    return f"the oldest snapshot is {age} old ({who}): what was changed since is kept, and slows workers and views"
