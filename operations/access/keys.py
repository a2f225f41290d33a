"""Make, list and revoke the keys with which machines call the API, and know a key again.

A key reads `gdn_ID_SECRET`. The database keeps SHA-256 of the secret, which has 256 random bits: nobody can be shown a
key a second time, and nobody who reads the table can call the API.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.cursor import one
from engine.store.database import transaction
from operations.access.scopes import Scope, scopes_of
from operations.intake.submit import OWN_SOURCE
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.store.cursor import Cursor

KEYS_OF_A_CLIENT_MAX = 2
"""Two, so that a client can change from one key to the next without a pause."""

SECRET_BYTES = 32

_CLIENT = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_KEY = re.compile(r"gdn_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")

_IS_VALID = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"


class NewKey(NamedTuple):
    """Hold a key that was made just now, with the secret that nobody is shown again."""

    key_id: str
    key: str


class Grant(NamedTuple):
    """Hold what a key allows, and to whom."""

    key_id: str
    client: str
    scopes: frozenset[Scope]
    expires_at: datetime | None


def create(database_url: str, client: str, scopes: Sequence[str], *, days: int | None = None) -> NewKey:
    """Make a key for a client, valid for `days` days, or until it is revoked.

    Raises:
        InputError: the client's name has odd letters, a scope is unknown, or the client has two valid keys already.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    if not _CLIENT.fullmatch(client):
        raise InputError(
            f'"{client}" cannot be the name of a client: take small letters from a to z, digits and . _ -, a letter '
            "first, 63 at most"
        )
    if client == OWN_SOURCE:
        raise InputError(f'"{client}" is the source of Guerdon\'s own events; take another name for the client')
    granted = scopes_of(scopes)
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    with transaction(database_url) as cursor:
        # one at a time, so that two commands at once cannot make three keys
        cursor.execute("LOCK TABLE guerdon.api_key IN SHARE ROW EXCLUSIVE MODE")
        (count,) = one(cursor, f"SELECT count(*) FROM guerdon.api_key WHERE client = %s AND {_IS_VALID}", (client,))
        if count >= KEYS_OF_A_CLIENT_MAX:
            raise InputError(
                f"{client} has {count} valid keys already; revoke one by `guerdon key revoke ID` "
                "(`guerdon key list` names them)"
            )
        cursor.execute(
            """
            INSERT INTO guerdon.api_key (key_id, client, digest, scopes, created_by, expires_at)
            VALUES (%s, %s, %s, %s, session_user, now() + %s * interval '1 day')
            """,
            (key_id, client, _digest(secret), list(granted), days),
        )
    return NewKey(key_id, f"gdn_{key_id}_{secret}")


def revoke(database_url: str, key_id: str) -> str:
    """Make a key worthless for good, and return the name of its client.

    Raises:
        AnswerIsNo: there is no such key, or it was revoked before.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        cursor.execute(
            "UPDATE guerdon.api_key SET revoked_at = now() WHERE key_id = %s AND revoked_at IS NULL RETURNING client",
            (key_id,),
        )
        row = cursor.fetchone()
    if row is None:
        raise AnswerIsNo(f'there is no valid key "{key_id}"; `guerdon key list` names all')
    return str(row[0])


def keys(database_url: str) -> list[dict[str, Any]]:
    """Return every key without its secret, the newest first.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        return dictionaries(
            cursor,
            f"""
            SELECT key_id, client, scopes, {_IS_VALID} AS valid, created_at, created_by, expires_at, revoked_at,
                   last_used_at
            FROM guerdon.api_key ORDER BY created_at DESC, key_id
            """,
        )


def recognise(cursor: Cursor, key: str) -> Grant | None:
    """Return what a key allows; None: it is no key, or none that is valid."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    key_id, secret = match.groups()
    cursor.execute(
        f"SELECT digest, client, scopes, expires_at FROM guerdon.api_key WHERE key_id = %s AND {_IS_VALID}", (key_id,)
    )
    row = cursor.fetchone()
    if row is None or not hmac.compare_digest(bytes(row[0]), _digest(secret)):
        return None
    # a scope of a later release means nothing here
    known = frozenset(Scope(name) for name in row[2] if name in set(Scope))
    return Grant(key_id, row[1], known, row[3])


def note_use(cursor: Cursor, key_ids: Sequence[str]) -> None:
    """Note that keys were used just now."""
    cursor.execute("UPDATE guerdon.api_key SET last_used_at = now() WHERE key_id = ANY(%s)", (list(key_ids),))


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
