"""Find what the events of one fold stand on: members and orders of earlier folds, and refunds that wait.

Each is found by its key. `OFFSET 0` keeps PostgreSQL from flattening the subquery; without statistics it would
otherwise read all of one table for each row of another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from engine.store.logs.bare_log import Range
from projections.facts.orders import Order, RefundFact
from schemas.events import Purchase, Refund, Touch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from engine.store.cursor import Cursor
    from engine.store.logs.bare_log import BareEvent, BareLog
    from projections.facts.orders import OrderKey


class MemberRow(NamedTuple):
    """Say what the row of a member has: how many orders were counted, how many refunds wait, and the row's era."""

    orders: int
    waiting: int
    era: int | None
    rolled: memoryview | None = None
    """The packed state of the member for the rollups; None: there is none."""


NO_ROW = MemberRow(0, 0, None)
"""Stands for the row of a member without events in earlier folds."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """Hold what earlier folds have written about the members and orders of a fold.

    It is empty where whole shards are folded, from the first event on.
    """

    members: dict[tuple[int, str], MemberRow] = field(default_factory=dict)
    """The rows of members, by shard and member_id."""

    orders: dict[OrderKey, Order] = field(default_factory=dict)
    waiting: dict[OrderKey, list[RefundFact]] = field(default_factory=dict)


def earlier_of(cursor: Cursor, log: BareLog, build: int, events: Sequence[BareEvent]) -> Earlier:
    """Return what `build` has about the members and orders of `events`, which it has not folded yet."""
    returned = {_place_of(each) for each in events if type(each.event) is Refund}
    members = _members(cursor, build, events)

    # few members have refunds that wait
    of_waiting = {owner for owner, row in members.items() if row.waiting}
    bought = {
        _place_of(each)
        for each in events
        if of_waiting and type(each.event) is Purchase and (each.shard, each.event.member_id) in of_waiting
    }
    return Earlier(members, _orders(cursor, log, build, returned), _waiting(cursor, log, build, returned | bought))


_OrderPlace = tuple[int, str, str]
"""A shard, a member_id and an order_id."""


def _place_of(each: BareEvent) -> _OrderPlace:
    event = each.event
    assert isinstance(event, Purchase | Refund)  # asked for these alone
    return each.shard, event.member_id, event.order_id


def _members(cursor: Cursor, build: int, events: Sequence[BareEvent]) -> dict[tuple[int, str], MemberRow]:
    owners = {(each.shard, each.event.member_id) for each in events if type(each.event) is not Touch}  # type: ignore[attr-defined]
    cursor.execute(
        """
        SELECT w.shard, w.member_id, m.orders, m.waiting, m.era, m.rolled
        FROM unnest(%(shards)s::smallint[], %(members)s::text[]) AS w (shard, member_id)
        CROSS JOIN LATERAL (
            SELECT * FROM guerdon.fact_member n
            WHERE n.build = %(build)s AND n.shard = w.shard AND n.member_id = w.member_id ORDER BY n.era DESC LIMIT 1
        ) m
        """,
        {"build": build, "shards": [shard for shard, _ in owners], "members": [member_id for _, member_id in owners]},
    )
    return {(shard, member_id): MemberRow(*row) for shard, member_id, *row in cursor.fetchall()}


def _orders(cursor: Cursor, log: BareLog, build: int, wanted: Collection[_OrderPlace]) -> dict[OrderKey, Order]:
    """Return orders as their refunds of earlier folds have left them."""
    if not wanted:
        return {}
    where = _columns(wanted) | {"build": build}
    cursor.execute(
        f"""
        SELECT p.shard, p.seq, p.number
        FROM {_WANTED} CROSS JOIN LATERAL (
            SELECT * FROM guerdon.fact_purchase n
            WHERE n.build = %(build)s AND n.shard = w.shard AND n.member_id = w.member_id AND n.order_id = w.order_id
            OFFSET 0
        ) p
        """,
        where,
    )
    numbers = {(shard, seq): number for shard, seq, number in cursor.fetchall()}
    if not numbers:
        return {}

    # each order, and then what has come about it, in the order of the log
    cursor.execute(
        """
        SELECT r.shard, r.seq FROM unnest(%(shards)s::smallint[], %(seqs)s::bigint[]) AS w (shard, seq)
        CROSS JOIN LATERAL (
            SELECT * FROM guerdon.fact_refund n
            WHERE n.build = %(build)s AND n.shard = w.shard AND n.purchase_seq = w.seq OFFSET 0
        ) r
        """,
        {"build": build, "shards": [shard for shard, _ in numbers], "seqs": [seq for _, seq in numbers]},
    )
    refunds = [Range(shard, seq - 1, seq) for shard, seq in cursor.fetchall()]
    orders: dict[OrderKey, Order] = {}
    for each in log.read(Range(shard, seq - 1, seq) for shard, seq in numbers):
        assert isinstance(each.event, Purchase)  # it has a row
        key = (each.event.member_id, each.event.order_id)
        orders[key] = Order(each, each.event, numbers[each.shard, each.seq])
    for each in log.read(refunds) if refunds else ():
        assert isinstance(each.event, Refund)  # as above
        orders[each.event.member_id, each.event.order_id].take(RefundFact(each, each.event))
    return orders


def _waiting(
    cursor: Cursor, log: BareLog, build: int, wanted: Collection[_OrderPlace]
) -> dict[OrderKey, list[RefundFact]]:
    if not wanted:
        return {}
    cursor.execute(
        f"""
        SELECT r.shard, r.seq
        FROM {_WANTED} CROSS JOIN LATERAL (
            SELECT * FROM guerdon.fact_refund n
            WHERE n.build = %(build)s AND n.shard = w.shard AND n.member_id = w.member_id AND n.order_id = w.order_id
              AND n.outcome = 'waiting'
            OFFSET 0
        ) r
        """,
        _columns(wanted) | {"build": build},
    )
    places = [Range(shard, seq - 1, seq) for shard, seq in cursor.fetchall()]
    waiting: dict[OrderKey, list[RefundFact]] = {}
    for each in log.read(places) if places else ():
        assert isinstance(each.event, Refund)  # it has a row
        waiting.setdefault((each.event.member_id, each.event.order_id), []).append(RefundFact(each, each.event))
    return waiting


_WANTED = "unnest(%(shards)s::smallint[], %(members)s::text[], %(orders)s::text[]) AS w (shard, member_id, order_id)"


def _columns(wanted: Iterable[_OrderPlace]) -> dict[str, object]:
    places = list(wanted)
    return {
        "shards": [shard for shard, _, _ in places],
        "members": [member_id for _, member_id, _ in places],
        "orders": [order_id for _, _, order_id in places],
    }
