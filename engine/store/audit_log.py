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

LOCK = 0x6175_6469
"""Advisory lock: one row at a time, so that positions have no gap and hashes one order."""

DETAIL_MAX = 1_000


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
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    seq, before, at, user = one(
        cursor,
        """
        SELECT coalesce(max(seq), 0) + 1, coalesce((SELECT hash FROM guerdon.audit ORDER BY seq DESC LIMIT 1), ''),
               clock_timestamp(), session_user::text
        FROM guerdon.audit
        """,
    )
    detail = None if entry.detail is None else entry.detail[:DETAIL_MAX]
    # as PostgreSQL gives it back: the same text for the same value, whatever the order of its keys
    (arguments,) = one(cursor, "SELECT %s::jsonb::text", (Json(dict(entry.arguments)),))
    row = (
        seq, at.isoformat(), entry.begun, entry.actor, user, entry.on_behalf, entry.action, arguments,
        entry.request_id, entry.result, detail,
    )  # fmt: skip
    cursor.execute(
        """
        INSERT INTO guerdon.audit (at, seq, begun, actor, db_user, on_behalf, action, arguments, request_id, result,
                                   detail, hash)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            at, seq, entry.begun, entry.actor, user, entry.on_behalf, entry.action, arguments, entry.request_id,
            entry.result, detail, _hash(bytes(before), row),
        ),
    )  # fmt: skip
    return int(seq)


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
