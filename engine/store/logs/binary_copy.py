"""Pack rows in the format of PostgreSQL's binary COPY.

A field is a big-endian 32-bit length and its bytes, -1 for NULL; a row is a 16-bit count and its fields. These bytes
are also what the hash chains hash (`hash_chain`), so a row is packed once.
Source: PostgreSQL documentation, COPY, "Binary Format".
"""

from __future__ import annotations

from io import BytesIO
from struct import Struct
from typing import TYPE_CHECKING

from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"

_LENGTH = Struct(">i").pack
_BIGINT = Struct(">iq").pack
POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01T00:00:00Z, where PostgreSQL counts microseconds from


def timestamp_us(at_ms: int) -> int:
    """Return PostgreSQL's microseconds since 2000 of an instant in ms since 1970."""
    return (at_ms - POSTGRES_EPOCH_MS) * 1000


def pack_text(value: str | None) -> bytes:
    """Pack a text or enum field."""
    if value is None:
        return NULL
    encoded = value.encode()
    return _LENGTH(len(encoded)) + encoded


def pack_bytes(value: bytes | None) -> bytes:
    """Pack a bytea or uuid field."""
    return NULL if value is None else _LENGTH(len(value)) + value


def pack_integer(value: int | None) -> bytes:
    """Pack a 32-bit integer field."""
    return NULL if value is None else Struct(">ii").pack(4, value)


def pack_bigint(value: int | None) -> bytes:
    """Pack a 64-bit integer field; a larger number, as a sum may be, becomes the largest that the field holds."""
    return NULL if value is None else _BIGINT(8, max(-INT64_MAX, min(value, INT64_MAX)))


def pack_timestamp(at_ms: int | None) -> bytes:
    """Pack a timestamptz field from ms since 1970."""
    return NULL if at_ms is None else _BIGINT(8, timestamp_us(at_ms))


def copy_rows(cursor: Cursor, target: str, rows: Iterable[bytes]) -> None:
    """Write packed `rows` to `target`, a table with its columns in parentheses.

    The large `size` matters: psycopg2 holds the interpreter's lock between reads of 8 KB, which stops other threads.
    """
    cursor.copy_expert(
        f"COPY {target} FROM STDIN (FORMAT binary)", BytesIO(b"".join((HEADER, *rows, TRAILER))), size=1 << 20
    )
