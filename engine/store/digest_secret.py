"""Keep the secret under which a database makes digests: of events, of identities, and of referral codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def read(cursor: Cursor) -> bytes:
    """Return the secret, 32 bytes; each database has its own from its first migration on."""
    (value,) = one(cursor, "SELECT value FROM guerdon.setting WHERE name = 'digest_secret'")
    return bytes(value)


def replace(cursor: Cursor, value: bytes) -> None:
    """Let digests be made as in another database, from which an archive brings the secret."""
    cursor.execute("UPDATE guerdon.setting SET value = %s WHERE name = 'digest_secret'", (value,))
