"""Fill the column of profiles once, from the signups and profiles in a log that is older than the column."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from psycopg2.extras import execute_values

from engine.member.profile import profile_after
from engine.store.members import personal, profiles
from engine.store.members.member_states import decode_state
from schemas.canonical import event_identity
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def fill_profiles(cursor: Cursor) -> None:
    """Write the profile of every member with a key, without the events that wait for a release."""
    for shard in range(SHARDS):
        cursor.execute(
            """
            SELECT e.member_id, k.key, m.state, e.seq, e.kind::text, e.source, e.event_id, e.payload, e.sealed
            FROM guerdon.source_event e
            JOIN guerdon.member_key k ON k.shard = e.shard AND k.member_id = e.member_id AND k.key IS NOT NULL
            JOIN guerdon.member_state m ON m.shard = e.shard AND m.member_id = e.member_id
            WHERE e.shard = %s AND e.sealed IS NOT NULL
            ORDER BY e.member_id, e.seq
            """,
            (shard,),
        )

        filled = [
            (shard, member_id, _sealed(list(rows))) for member_id, rows in groupby(cursor.fetchall(), itemgetter(0))
        ]
        if filled:
            execute_values(
                cursor,
                """
                UPDATE guerdon.member_state m SET personal = nullif(p.personal, ''::bytea)
                FROM (VALUES %s) AS p (shard, member_id, personal)
                WHERE m.shard = p.shard AND m.member_id = p.member_id
                """,
                filled,
            )


def _sealed(rows: list[tuple[Any, ...]]) -> bytes:
    """Return one member's profile, sealed, after their events up to the first that waits."""
    member_id, key, state = rows[0][0], bytes(rows[0][1]), decode_state(bytes(rows[0][2]))
    profile = None
    for *_, seq, kind, source, event_id, payload, sealed in rows:
        if not state.suspended_since or seq < state.suspended_since:
            identity = event_identity(source, event_id)
            event: Any = personal.unseal(kind, bytes(payload), bytes(sealed), identity, key)
            profile = profile_after(profile, event)
    return profiles.sealed(member_id, profile, key)
