"""Keep the uses of limits in ended periods beside the members' states, in pages like those of old lots.

A page is written when a state holds `USES_MAX` uses, so the end of a period costs no row of its own. A late event or a
refund that concerns an ended period brings all pages of the member back into the state; the uses that are still needed
then become one page. At every fourth new page the pages that nothing can need any more are dropped.
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
"""The live generation's table of uses; other generations have their own (`engine.store.generations.shadows`)."""

LOOKED_AT_EVERY = 4
"""The number of new pages of a member after which old ones are looked at, and dropped if nothing can need them."""

_HEAD = b"\0\5\0\0\0\2%b"
_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder(dict[str, list[LimitUse]]).decode


def recall(cursor: Cursor, member: Member, table: str = LIVE) -> None:
    """Bring a member's pages back into the state; the caller holds the shard's head and will `save` the member."""
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
    """Turn pages of states with many uses, before the states are saved, and drop pages that nothing can need.

    Args:
        cursor: belongs to the transaction.
        members: the members whose states are about to be saved.
        judge: returns the judge of an activated version.
        table: the generation's table of uses.
    """
    rows: list[bytes] = []
    recalled: list[tuple[int, str]] = []
    turned: list[tuple[int, str, int]] = []
    for member in members:
        # pages that came back into the state are written again, or not at all
        state, kept_ms = member.state, 0
        if member.recalled:
            recalled.append((member.shard, member.member_id))

        # turn a page; now and then without the uses that nothing can need
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
    """Return the row of a page that was just turned, for COPY."""
    number, ended_ms = member.state.use_pages, max(use.ended_ms for uses in page.values() for use in uses)
    fields = (pack_integer(number), pack_timestamp(ended_ms), pack_bytes(_encode(page)))
    return b"".join((_HEAD % member.shard.to_bytes(2), member.packed_id, *fields))
