"""Name psycopg2's connection and cursor as types that every module can import, and ask a cursor for one row."""

from __future__ import annotations

from typing import Any

from psycopg2 import extensions

Connection = extensions.connection
Cursor = extensions.cursor


def one(cursor: Cursor, query: str, parameters: Any = None) -> Any:
    """Return the single row of `query`, which must have one."""
    cursor.execute(query, parameters)
    row = cursor.fetchone()
    if row is None:
        raise LookupError(query)
    return row
