"""Pack the rows of facts in the format of PostgreSQL's binary COPY, each column in the order of its table here.

A row is bytes from begin to end, so `difference` compares what a fold would write with what a table has, byte by byte.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from psycopg2 import sql

from engine.store.logs.binary_copy import NULL, pack_bigint, pack_bytes, pack_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor
    from engine.store.logs.bare_log import BareEvent
    from projections.facts.members import Member
    from projections.facts.orders import RefundFact
    from schemas.events import Activity, Item, Purchase, Redemption, Share, Signup, Touch

TEXTS_MAX = 100_000
"""The most texts that are kept packed, such as names of articles and categories."""

REVISION = 1
"""An order has one revision in this release."""


class Table(NamedTuple):
    """Name a table of facts, its columns as its rows have them, and the columns of its key after `build`."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ("shard", "seq")


_HEAD = ("build", "shard", "seq", "occurred_at", "recorded_at")
PURCHASE = Table(
    "fact_purchase",
    (*_HEAD, "amount", "refunded", "number", "revision", "gross", "member_id", "order_id", "event_id", "source",
     "currency", "channel", "store", "brand", "coupons"),
)  # fmt: skip
LINE = Table(
    "fact_purchase_line",
    ("build", "shard", "seq", "line", "amount", "refunded", "quantity", "line_id", "sku", "category", "brand"),
    ("shard", "seq", "line"),
)
REFUND = Table(
    "fact_refund",
    (*_HEAD, "purchase_seq", "amount", "applied_at", "outcome", "member_id", "order_id", "refund_id", "event_id"),
)
ACTIVITY = Table("fact_activity", (*_HEAD, "quantity", "score", "member_id", "kind", "object", "campaign"))
SHARE = Table("fact_share", (*_HEAD, "verified", "member_id", "object", "channel", "campaign"))
TOUCH = Table("fact_touch", (*_HEAD, "code", "visitor", "channel"))
SIGNUP = Table("fact_signup", (*_HEAD, "member_id", "referrer_id", "code", "visitor", "channel"))
REDEMPTION = Table(
    "fact_redemption",
    (*_HEAD, "amount", "order_amount", "member_id", "action", "redemption_id", "reward", "unit", "order_id"),
)
MEMBER = Table(
    "fact_member",
    ("build", "shard", "member_id", "first_seq", "first_event_at", "first_recorded_at", "orders", "waiting", "net",
     "gross", "joined_at", "joined_channel", "first_order_at", "last_order_at", "erased_at", "rolled"),
    ("shard", "member_id"),
)  # fmt: skip

TABLES = (PURCHASE, LINE, REFUND, ACTIVITY, SHARE, TOUCH, SIGNUP, REDEMPTION, MEMBER)


def target(cursor: Cursor, table: Table) -> str:
    """Return a table and its columns as COPY reads them."""
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in table.columns)
    return sql.SQL("{} ({})").format(sql.Identifier("guerdon", table.name), columns).as_string(cursor)


_COUNT = Struct(">h").pack
_START = "ii ih iq iq iq"
_EVENT = Struct(f">h {_START}").pack
_BOUGHT = Struct(f">h {_START} iq iq ii ii").pack
_LINE = Struct(">h ii ih iq").pack
_AMOUNTS = Struct(">ii iq iq").pack
_WHO = Struct(">ii ih").pack
_FIRST = Struct(">iq iq iq ii ii").pack
_NUMERIC = Struct(">hhHH").pack
_BOOLEAN = {None: NULL, True: b"\0\0\0\1\1", False: b"\0\0\0\1\0"}
_ARRAY = Struct(">iii").pack
_LENGTH = Struct(">i").pack
_DIMENSION = Struct(">ii").pack
_TEXT_OID = 25
_NEGATIVE = 0x4000


class _Texts(dict[str | None, bytes]):
    """Hold packed texts that come again and again."""

    def __missing__(self, text: str | None) -> bytes:
        if len(self) >= TEXTS_MAX:
            self.clear()
        packed = self[text] = pack_text(text)
        return packed


class _Numerics(dict[str, bytes]):
    """Hold packed decimals, as most quantities come again and again."""

    def __missing__(self, text: str) -> bytes:
        if len(self) >= TEXTS_MAX:
            self.clear()
        packed = self[text] = pack_numeric(text)
        return packed


_texts, _numerics = _Texts(), _Numerics()


def pack_numeric(text: str) -> bytes:
    """Pack a canonical decimal, such as "1.5", as a numeric field."""
    negative, digits = text.startswith("-"), text.removeprefix("-")
    whole, _, decimals = digits.partition(".")
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    padded = whole + decimals + "0" * (-len(decimals) % 4)

    # groups of four digits, without those of zeros at both ends
    groups = [int(padded[at : at + 4]) for at in range(0, len(padded), 4)]
    weight = len(whole) // 4 - 1
    while groups and not groups[0]:
        del groups[0]
        weight -= 1
    while groups and not groups[-1]:
        del groups[-1]
    head = _NUMERIC(len(groups), weight if groups else 0, _NEGATIVE if negative else 0, len(decimals))
    body = head + b"".join(map(_COUNT, groups))
    return _LENGTH(len(body)) + body


def pack_texts(texts: Iterable[str] | None) -> bytes:
    """Pack a field of the type text[]."""
    if texts is None:
        return NULL
    elements = [pack_text(text) for text in texts]
    body = _ARRAY(1 if elements else 0, 0, _TEXT_OID)
    if elements:
        body += _DIMENSION(len(elements), 1) + b"".join(elements)
    return _LENGTH(len(body)) + body


def purchase_row(build: int, bare: BareEvent, event: Purchase, number: int, refunded: int) -> bytes:
    """Return the row of an order; `number` counts the member's orders in the log."""
    texts = _texts
    head = _BOUGHT(
        len(PURCHASE.columns), 4, build, 2, bare.shard, 8, bare.seq, 8, bare.occurred_us, 8, bare.recorded_us, 8,
        event.amount, 8, refunded, 4, number, 4, REVISION,
    )  # fmt: skip
    return b"".join(
        (
            head, pack_bigint(event.gross), pack_text(event.member_id), pack_text(event.order_id),
            pack_text(event.event_id), texts[event.source], texts[event.currency], texts[event.channel],
            texts[event.store], texts[event.brand], pack_texts(event.coupons),
        )
    )  # fmt: skip


def line_rows(build: int, bare: BareEvent, items: Iterable[Item], refunded: Iterable[int]) -> bytes:
    """Return the rows of an order's lines, one after the other, with how much of each was returned."""
    texts, numerics, amounts = _texts, _numerics, _AMOUNTS
    head = _LINE(len(LINE.columns), 4, build, 2, bare.shard, 8, bare.seq)
    parts: list[bytes] = []
    for line, (item, returned) in enumerate(zip(items, refunded, strict=True), 1):
        parts += (
            head, amounts(4, line, 8, item.amount, 8, returned), numerics[item.quantity], texts[item.line_id],
            texts[item.sku], texts[item.category], texts[item.brand],
        )  # fmt: skip
    return b"".join(parts)


def refund_row(build: int, refund: RefundFact) -> bytes:
    """Return the row of a refund."""
    event = refund.event
    applied = NULL if refund.applied_us is None else pack_bigint(refund.applied_us)
    return b"".join(
        (
            _start(build, refund.bare, REFUND), pack_bigint(refund.purchase_seq), pack_bigint(refund.amount), applied,
            _texts[refund.outcome], pack_text(event.member_id), pack_text(event.order_id), pack_text(event.refund_id),
            pack_text(event.event_id),
        )
    )  # fmt: skip


def activity_row(build: int, bare: BareEvent, event: Activity) -> bytes:
    """Return the row of an activity."""
    return b"".join(
        (
            _start(build, bare, ACTIVITY), pack_bigint(event.quantity), pack_bigint(event.score),
            pack_text(event.member_id), _texts[event.kind], pack_text(event.object), _texts[event.campaign],
        )
    )  # fmt: skip


def share_row(build: int, bare: BareEvent, event: Share) -> bytes:
    """Return the row of a share."""
    return b"".join(
        (
            _start(build, bare, SHARE), _BOOLEAN[event.verified], pack_text(event.member_id), pack_text(event.object),
            _texts[event.channel], _texts[event.campaign],
        )
    )  # fmt: skip


def touch_row(build: int, bare: BareEvent, event: Touch) -> bytes:
    """Return the row of a touch."""
    return b"".join(
        (
            _start(build, bare, TOUCH), pack_text(event.referral_code), pack_text(event.visitor), _texts[event.channel],
        )
    )  # fmt: skip


def signup_row(build: int, bare: BareEvent, event: Signup) -> bytes:
    """Return the row of a signup."""
    return b"".join(
        (
            _start(build, bare, SIGNUP), pack_text(event.member_id), pack_text(event.referrer_id),
            pack_text(event.referral_code), pack_text(event.visitor), _texts[event.channel],
        )
    )  # fmt: skip


def redemption_row(build: int, bare: BareEvent, event: Redemption) -> bytes:
    """Return the row of a request to reserve, capture, void, spend or restore."""
    return b"".join(
        (
            _start(build, bare, REDEMPTION), pack_bigint(event.amount), pack_bigint(event.order_amount),
            pack_text(event.member_id), _texts[event.action], pack_text(event.redemption_id), _texts[event.reward],
            _texts[event.unit], pack_text(event.order_id),
        )
    )  # fmt: skip


def member_row(build: int, member: Member) -> bytes:
    """Return the row of a member, or the change of an earlier row."""
    return _COUNT(len(MEMBER.columns)) + member_fields(build, member)


def member_fields(build: int, member: Member) -> bytes:
    """Return the fields of a member's row without their count."""
    return b"".join(
        (
            _WHO(4, build, 2, member.shard), pack_text(member.member_id),
            _FIRST(
                8, member.first_seq, 8, member.first_event_us, 8, member.first_recorded_us, 4, member.orders, 4,
                member.waiting,
            ),
            _numerics[str(member.net)], _numerics[str(member.gross)], pack_bigint(member.joined_us),
            _texts[member.joined_channel], pack_bigint(member.first_order_us), pack_bigint(member.last_order_us),
            pack_bigint(member.erased_us), pack_bytes(member.rolled),
        )
    )  # fmt: skip


def _start(build: int, bare: BareEvent, table: Table) -> bytes:
    """Return the count of a row's fields and the five that each event has."""
    return _EVENT(len(table.columns), 4, build, 2, bare.shard, 8, bare.seq, 8, bare.occurred_us, 8, bare.recorded_us)
