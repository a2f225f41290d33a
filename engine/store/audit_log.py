"""Append to the audit log, read it, and prove that no row of it was changed, taken out or put in."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg2.extras import Json

from engine.store.cursor import one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.store.cursor import Cursor

TEXT_MAX = 10_000
"""The letters of a text that are kept."""


class Entry(NamedTuple):
    """Hold what one row says, but for its place, its time and the user of the session."""

    actor: str
    action: str
    arguments: Mapping[str, Any]
    result: str
    begun: int | None = None
    on_behalf: str | None = None
    request_id: str | None = None
    detail: str | None = None


def append(cursor: Cursor, entry: Entry) -> int:
    """Append a row, and return its position. Others wait until the transaction ends, so it should end soon."""
    (before_seq, before) = one(cursor, "SELECT seq, hash FROM guerdon.audit_head FOR UPDATE")
    seq = before_seq + 1
    at, user = one(cursor, "SELECT clock_timestamp(), session_user::text")
    actor, action, on_behalf, request_id, detail = map(
        _storable, (entry.actor, entry.action, entry.on_behalf, entry.request_id, entry.detail)
    )
    # as PostgreSQL gives it back: the same text for the same value, whatever the order of its keys
    (arguments,) = one(cursor, "SELECT %s::jsonb::text", (Json(_storable(dict(entry.arguments))),))
    row = (
        seq, at.isoformat(), entry.begun, actor, user, on_behalf, action, arguments, request_id, entry.result, detail,
    )  # fmt: skip
    own = _hash(bytes(before), row)
    cursor.execute(
        """
        INSERT INTO guerdon.audit (at, seq, begun, actor, db_user, on_behalf, action, arguments, request_id, result,
                                   detail, hash)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            at, seq, entry.begun, actor, user, on_behalf, action, arguments, request_id, entry.result, detail, own,
        ),
    )  # fmt: skip
    cursor.execute("UPDATE guerdon.audit_head SET seq = %s, hash = %s", (seq, own))
    return int(seq)


def _storable(value: Any) -> Any:
    """Return what PostgreSQL can hold of a value: its texts are short, without NUL and without lone surrogates."""
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:TEXT_MAX]
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    return value


def first_wrong(cursor: Cursor) -> tuple[int, str | None]:
    """Return how many rows there are, and a sentence about the first that is not what was written; None: all are."""
    before, expected = b"", 0
    for row, stored in _rows(cursor):
        expected += 1
        if row[0] != expected:
            return expected, f"audit log, position {expected}: the row is missing; compare with a backup"
        before = _hash(before, row)
        if before != stored:
            return expected, f"audit log, position {expected}: the row is not what was written; compare with a backup"

    # a row that is missing at the end shows by the head
    seq, head = one(cursor, "SELECT seq, hash FROM guerdon.audit_head")
    if (expected, before) != (seq, bytes(head)):
        return expected, f"audit log, position {min(expected, seq) + 1}: the head says otherwise; compare with a backup"
    return expected, None


def _rows(cursor: Cursor) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    """Yield each row as it is hashed, and its hash."""
    cursor.execute(
        """
        SELECT seq, at, begun, actor, db_user, on_behalf, action, arguments::text, request_id, result, detail, hash
        FROM guerdon.audit ORDER BY seq
        """
    )
    for seq, at, *rest, stored in cursor:
        yield (seq, at.isoformat(), *rest), bytes(stored)


def _hash(before: bytes, row: tuple[Any, ...]) -> bytes:
    return sha256(before + json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()).digest()
