"""Keep the uses of limits in ended periods beyond the members' states, in pages as old lots are.

A page is written when a state holds `USES_MAX` of them, so the end of a period costs no row of its own. Pages are read
for a late event, or a refund, that a period of theirs concerns: then all of a member's come back into the state, and
what is still needed of them becomes one page. Those of which nothing is known any more are dropped when new ones are
written, at every fourth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import msgpack
from psycopg2.extras import execute_values

from engine.member.state import LimitUse, bring_back_uses, has_many_uses, turn_uses
from engine.programme.rules.limits import kept_from_ms
from engine.store.logs.binary_copy import copy_rows, pack_bytes, pack_integer, pack_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.programme.rules.judge import Judge
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member

LIVE = "guerdon.member_use"
"""Where the live generation keeps uses; every other one has a table of its own (`engine.store.generations.shadows`)."""

LOOKED_AT_EVERY = 4
"""Pages of a member after which the ones before are looked at, and dropped where they are not known any more."""

_HEAD = b"\0\5\0\0\0\2%b"
_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(dict[str, list[LimitUse]]).decode


def recall(cursor: Cursor, member: Member, table: str = LIVE) -> None:
    """Bring the pages of a member back into their state; the caller holds their shard's head and will `save` them."""
    state = member.state
    cursor.execute(
        f"SELECT body FROM {table} WHERE shard = %s AND member_id = %s ORDER BY page",
        (member.shard, member.member_id),
    )
    for (body,) in cursor.fetchall():
        bring_back_uses(state, _decode(body))
    state.use_pages = 0
    member.recalled = True


def save(cursor: Cursor, members: Iterable[Member], judge: Callable[[int], Judge], table: str = LIVE) -> None:
    """Turn what states hold too much of into pages, before the states are saved, and drop what is not known any more.

    Args:
        cursor: of the transaction.
        members: whose states are about to be saved.
        judge: returns the judge of an activated version.
        table: the generation's.
    """
    rows: list[bytes] = []
    recalled: list[tuple[int, str]] = []
    turned: list[tuple[int, str, int]] = []
    for member in members:
        state, kept_ms = member.state, 0
        if member.recalled:
            recalled.append((member.shard, member.member_id))
        if state.ended and has_many_uses(state):
            if state.version and (member.recalled or state.use_pages % LOOKED_AT_EVERY == 0):
                kept_ms = kept_from_ms(judge(state.version).programme, state.clock_ms)
                if state.use_pages:
                    turned.append((member.shard, member.member_id, kept_ms))
            page = turn_uses(state, kept_ms)
            if page is not None:
                rows.append(_row(member, page))
        member.recalled = False
    if recalled:
        execute_values(
            cursor,
            f"DELETE FROM {table} WHERE (shard, member_id) IN (VALUES %s)",
            recalled,
            template="(%s::smallint, %s)",
        )
    if turned:
        execute_values(
            cursor,
            f"""
            DELETE FROM {table} u USING (VALUES %s) AS t (shard, member_id, kept_ms)
            WHERE u.shard = t.shard AND u.member_id = t.member_id AND u.ended_at < to_timestamp(t.kept_ms / 1000.0)
            """,
            turned,
        )
    if rows:
        copy_rows(cursor, f"{table} (shard, member_id, page, ended_at, body)", rows)


def _row(member: Member, page: dict[str, list[LimitUse]]) -> bytes:
    """Pack a page that was just turned."""
    number, ended_ms = member.state.use_pages, max(use.ended_ms for uses in page.values() for use in uses)
    fields = (pack_integer(number), pack_timestamp(ended_ms), pack_bytes(_encode(page)))
    return b"".join((_HEAD % member.shard.to_bytes(2), member.packed_id, *fields))
