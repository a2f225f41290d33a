"""Keep the parts of members' ledgers beside their states: pages of lots, refunded orders, redemptions and more.

Parts are read only for members whose lots move, and written back where they have changed. A state's newest lots become
a page when there are `PAGE_LOTS` of them, so a grant costs no row of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import msgpack
from psycopg2.extras import execute_values

from engine.ledger.forget import forget
from engine.member.pages import LedgerRedemption, Page, Refunded
from engine.member.parts import Parts
from engine.member.referral import Referred
from engine.member.state import is_full, turn_page
from engine.store.logs.binary_copy import copy_rows, pack_bytes, pack_text
from schemas.events import Refund

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.programme.rules.judge import Judge
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member

_ROW = b"\0\4\0\0\0\x02%b"
_encode = msgpack.Encoder().encode
_PAGE, _REFUNDED, _REDEMPTION, _WAITING, _REFERRED = "page", "order", "redemption", "waiting", "referral"
_DECODERS: dict[str, msgpack.Decoder[Any]] = {
    _PAGE: msgpack.Decoder(Page),
    _REFUNDED: msgpack.Decoder(Refunded),
    _REDEMPTION: msgpack.Decoder(LedgerRedemption),
    _WAITING: msgpack.Decoder(list[Refund]),
    _REFERRED: msgpack.Decoder(Referred),
}

LIVE = "guerdon.member_ledger"
"""The live generation's table of parts; other generations have their own (`engine.store.generations.shadows`)."""


def open_ledgers(cursor: Cursor, members: Iterable[Member], table: str = LIVE) -> None:
    """Read the parts of those `members` whose parts are not open; the caller holds their shards' heads."""
    # most members have nothing in the table
    closed = [member for member in members if member.parts is None]
    for member in closed:
        member.parts, member.stored_parts = Parts(), {}
    stored = {(m.shard, m.member_id): m for m in closed if m.stored and (m.state.pages or m.state.is_booked)}
    if not stored:
        return

    cursor.execute(
        f"""
        SELECT l.shard, l.member_id, l.part, l.body
        FROM unnest(%s::smallint[], %s::text[]) AS w (shard, member_id)
        JOIN {table} l ON l.shard = w.shard AND l.member_id = w.member_id
        """,
        ([shard for shard, _ in stored], [member_id for _, member_id in stored]),
    )
    for shard, member_id, part, body in cursor.fetchall():
        member = stored[shard, member_id]
        member.stored_parts[part] = bytes(body)
        _place(member.parts or Parts(), part, bytes(body))


def save(cursor: Cursor, members: Iterable[Member], judge: Callable[[int], Judge], table: str = LIVE) -> None:
    """Turn pages of full states, forget parts that nothing can need any more, and write the changed parts."""
    new: list[bytes] = []
    changed: list[tuple[int, str, str, bytes]] = []
    gone: list[tuple[int, str, str]] = []
    for member in members:
        # a full state gives its lots to a page
        if is_full(member.state):
            page = turn_page(member.state)
            if member.parts is None:
                new.append(page_row(member, member.state.pages, page))
            else:  # an open ledger has the page before anything is forgotten
                member.parts.pages[member.state.pages] = page
        if member.parts is None:
            continue

        # compare the open parts with the stored ones
        forget(member.parts, member.state, judge)
        bodies = encoded_parts(member.parts)
        for part, body in bodies.items():
            if member.stored_parts.get(part) != body:
                changed.append((member.shard, member.member_id, part, body))
        gone += [(member.shard, member.member_id, part) for part in member.stored_parts if part not in bodies]
        member.parts, member.stored_parts = None, {}

    if new:
        copy_rows(cursor, f"{table} (shard, member_id, part, body)", new)
    _write(cursor, changed, gone, table)


def page_row(member: Member, number: int, page: Page) -> bytes:
    """Return the row of a new page, for COPY."""
    part = pack_text(f"{_PAGE}:{number}")
    return b"".join((_ROW % member.shard.to_bytes(2), member.packed_id, part, pack_bytes(_encode(page))))


def encode_page(page: Page) -> bytes:
    """Return a page as it is stored."""
    return _encode(page)


def _write(
    cursor: Cursor, changed: list[tuple[int, str, str, bytes]], gone: list[tuple[int, str, str]], table: str
) -> None:
    if changed:
        execute_values(
            cursor,
            f"""
            INSERT INTO {table} (shard, member_id, part, body) VALUES %s
            ON CONFLICT (shard, member_id, part) DO UPDATE SET body = excluded.body
            """,
            changed,
        )

    if gone:
        execute_values(
            cursor,
            f"""
            DELETE FROM {table} l USING (VALUES %s) AS g (shard, member_id, part)
            WHERE l.shard = g.shard AND l.member_id = g.member_id AND l.part = g.part
            """,
            gone,
        )


def _place(parts: Parts, part: str, body: bytes) -> None:
    kind, _, name = part.partition(":")
    value = _DECODERS[kind].decode(body)
    if kind == _PAGE:
        parts.pages[int(name)] = value
    else:
        others: dict[str, dict[str, Any]] = {
            _REFUNDED: parts.refunded,
            _REDEMPTION: parts.redemptions,
            _WAITING: parts.waiting,
            _REFERRED: parts.referred,
        }
        others[kind][name] = value


def encoded_parts(parts: Parts) -> dict[str, bytes]:
    """Return every part as it is stored, by name."""
    named: dict[str, Any] = {f"{_PAGE}:{number}": page for number, page in parts.pages.items()}
    named |= {f"{_REFUNDED}:{order_id}": order for order_id, order in parts.refunded.items()}
    named |= {f"{_REDEMPTION}:{identifier}": redemption for identifier, redemption in parts.redemptions.items()}
    named |= {f"{_WAITING}:{order_id}": refunds for order_id, refunds in parts.waiting.items()}
    named |= {f"{_REFERRED}:{referee_id}": referred for referee_id, referred in parts.referred.items()}
    return {part: _encode(value) for part, value in named.items()}
