"""Seal the personal fields of `signup` and `profile` under a key of the member's own: to erase is to drop the key."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import msgpack, structs
from psycopg2.extras import execute_values

from engine.store.members import pseudonyms
from schemas.events import EVENT_TYPES, PERSONAL_FIELDS, Profile, Signup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor
    from schemas.events import Event

OWN_FORMAT = 0
"""The schema_id of payloads that Guerdon itself encoded, as MessagePack."""

_NONCE_BYTES = 12

Owner = tuple[int, str]
"""A shard and a member_id."""


class Erased(Exception):
    """Say that the member's key is gone: nobody can read what was sealed under it."""


def is_personal(event: Event) -> bool:
    """Whether `event` is of a type with personal fields."""
    return type(event) is Signup or type(event) is Profile


def keys_for(cursor: Cursor, owners: Iterable[Owner]) -> dict[Owner, bytes | None]:
    """Return the key of each member, made now where there is none; None for an erased member.

    The caller holds the shards' heads, so that nobody else makes a key for the same member.
    """
    wanted = sorted(set(owners))
    if not wanted:
        return {}
    cursor.execute(
        "SELECT shard, member_id, key FROM guerdon.member_key WHERE (shard, member_id) IN %s", (tuple(wanted),)
    )
    keys = {(shard, member_id): None if key is None else bytes(key) for shard, member_id, key in cursor.fetchall()}

    # the row of an erased member stays, without a key: no new key is made
    fresh = {owner: AESGCM.generate_key(256) for owner in wanted if owner not in keys}
    if fresh:
        execute_values(
            cursor,
            "INSERT INTO guerdon.member_key (shard, member_id, key) VALUES %s",
            [(*owner, key) for owner, key in fresh.items()],
        )
    return keys | fresh


def drop_keys(cursor: Cursor, owners: Iterable[Owner]) -> None:
    """Erase members: with the commit their keys are gone, and so is everything that was sealed under them.

    From then on analysts see them under their pseudonyms.
    """
    rows = sorted(set(owners))
    if rows:
        execute_values(
            cursor,
            """
            INSERT INTO guerdon.member_key (shard, member_id, key, erased_at) VALUES %s
            ON CONFLICT (shard, member_id) DO UPDATE SET key = NULL, erased_at = excluded.erased_at
            """,
            rows,
            template="(%s, %s, NULL, clock_timestamp())",
        )
        pseudonyms.give(cursor, rows)


def seal(event: Event, identity: bytes, key: bytes | None) -> tuple[bytes, bytes | None]:
    """Return the payload without the personal fields, and those fields sealed; None if there are none, or no key."""
    personal = {name: value for name in PERSONAL_FIELDS if (value := getattr(event, name)) is not None}
    payload = msgpack.encode(structs.replace(event, **dict.fromkeys(PERSONAL_FIELDS)))
    if not personal or key is None:
        return payload, None
    nonce = os.urandom(_NONCE_BYTES)
    return payload, nonce + AESGCM(key).encrypt(nonce, msgpack.encode(personal), identity)


def unseal(kind: str, payload: bytes, sealed: bytes | None, identity: bytes, key: bytes | None) -> Event:
    """Return the whole event of a payload in Guerdon's own format.

    Raises:
        Erased: there are sealed fields and the key is gone.
    """
    event = msgpack.decode(payload, type=EVENT_TYPES[kind])
    if sealed is None:
        return event
    if key is None:
        raise Erased(kind)
    try:
        plain = AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], identity)
    except InvalidTag as error:
        raise Erased(kind) from error
    return structs.replace(event, **msgpack.decode(plain))
