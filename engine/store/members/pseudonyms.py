"""Give erased members the names under which analysts see them: keyed hashes of their ids.

A pseudonym is `erased:` and the hex digits of HMAC-SHA256(the installation's secret for pseudonyms, member_id). That
secret is made from the database's own. It cannot be the same: a referral code is made of HMAC(database's secret,
member_id), so a pseudonym under it would give away the member's code, and the code the member's pseudonym.
"""

from __future__ import annotations

from hmac import digest
from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from engine.store import digest_secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor

PREFIX = "erased:"

_PURPOSE = b"guerdon pseudonyms"


def pseudonym_of(member_id: str, secret: bytes) -> str:
    """Return the name under which views show an erased member; `secret` is that of the database."""
    key = digest(secret, _PURPOSE, "sha256")
    return PREFIX + digest(key, member_id.encode(), "sha256").hex()


def give(cursor: Cursor, owners: Iterable[tuple[int, str]]) -> None:
    """Let every view show these members, each as shard and member_id, under their pseudonyms from the commit on."""
    secret = digest_secret.read(cursor)
    execute_values(
        cursor,
        "INSERT INTO guerdon.pseudonym (member_id, pseudonym, shard) VALUES %s ON CONFLICT DO NOTHING",
        [(member_id, pseudonym_of(member_id, secret), shard) for shard, member_id in sorted(set(owners))],
    )


def give_all(cursor: Cursor) -> None:
    """Give pseudonyms to all erased members of a database that had none for them before."""
    cursor.execute("SELECT shard, member_id FROM guerdon.member_key WHERE key IS NULL")
    give(cursor, cursor.fetchall())


def shown_as(cursor: Cursor, member_ids: Iterable[str]) -> dict[str, str]:
    """Return the pseudonym of each of these members who is erased."""
    asked = sorted(set(member_ids))
    if not asked:
        return {}
    cursor.execute("SELECT member_id, pseudonym FROM guerdon.pseudonym WHERE member_id = ANY(%s)", (asked,))
    return dict(cursor.fetchall())
