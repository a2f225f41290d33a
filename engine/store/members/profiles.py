"""Keep profiles sealed beside the states, and open one only when an event changes it or a rule reads it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import msgpack

from engine.member.profile import MemberProfile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member

NOTHING = b""
"""The stored form of an empty profile, or of one that nobody may read any more: the column is emptied."""

_NONCE_BYTES = 12
_decode = msgpack.Decoder(tuple[str | None, dict[str, str]]).decode


def open_profiles(cursor: Cursor, members: Iterable[Member]) -> None:
    """Put the stored profiles of `members` into their states, each once; the caller holds their shards' heads."""
    closed = {(member.shard, member.member_id): member for member in members if not member.opened}
    if not closed:
        return
    cursor.execute(
        """
        SELECT w.shard, w.member_id, m.personal, k.key
        FROM unnest(%s::smallint[], %s::text[]) AS w (shard, member_id)
        CROSS JOIN LATERAL (
            SELECT s.personal FROM guerdon.member_state s
            WHERE s.shard = w.shard AND s.member_id = w.member_id ORDER BY s.era DESC LIMIT 1
        ) m
        JOIN guerdon.member_key k ON k.shard = w.shard AND k.member_id = w.member_id
        WHERE m.personal IS NOT NULL AND k.key IS NOT NULL
        """,
        ([shard for shard, _ in closed], [member_id for _, member_id in closed]),
    )

    for shard, member_id, sealed, key in cursor.fetchall():
        closed[shard, member_id].state.profile = opened(member_id, bytes(sealed), bytes(key))
    for member in closed.values():
        member.opened = True


def sealed(member_id: str, profile: MemberProfile | None, key: bytes | None) -> bytes:
    """Return a profile as it is stored; NOTHING without a key."""
    if profile is None or key is None:
        return NOTHING
    nonce = os.urandom(_NONCE_BYTES)
    plain = msgpack.encode((profile.birthday, profile.attributes))
    return nonce + AESGCM(key).encrypt(nonce, plain, _belonging(member_id))


def opened(member_id: str, stored: bytes, key: bytes) -> MemberProfile:
    """Return the profile that was sealed for a member.

    Raises:
        ValueError: it was sealed for another member or under another key.
    """
    try:
        plain = AESGCM(key).decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], _belonging(member_id))
    except InvalidTag:
        raise ValueError(f'the profile of member "{member_id}" does not open with their key') from None
    return MemberProfile(*_decode(plain))


def _belonging(member_id: str) -> bytes:
    """Return the associated data that binds a sealed profile to its member: it opens in no other row."""
    return b"profile\0" + member_id.encode()
