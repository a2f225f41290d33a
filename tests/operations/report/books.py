"""Write a history in which points move in every way, in PostgreSQL and without Kafka."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from schemas.events import Decision, Erasure, Purchase, Redemption, Refund, Share
from schemas.rewards import HONOURED, Posting, RewardEvent
from tests.strategies.movements import Entry
from tests.strategies.reward_histories import append
from tests.system.batches import SCHEMAS, admitted

if TYPE_CHECKING:
    from schemas.events import Event

PROGRAMME = """
schema: guerdon/1
programme: books
timezone: Europe/Berlin
currency: EUR
points: {validity: 2mo, liability_per_point: 0.005}
refunds: {window: 90d}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: big, on: purchase, when: {purchase.amount: {gte: 500.00}}, hold: 14d, give: [{points: 300}]}
- {id: slow, on: share, hold: 14d, give: [{points: 40}]}
"""


def ms(text: str) -> int:
    """Return an instant that is written in UTC, such as 2024-05-02T10:00, in ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def _event(kind: Any, at: str, member_id: str, **fields: Any) -> Event:
    made: Event = kind(event_id=f"{member_id}-{at}", member_id=member_id, occurred_at=ms(at), **fields)
    return made


def bought(at: str, member_id: str, order_id: str, amount: int) -> Event:
    """Return a purchase."""
    return _event(Purchase, at, member_id, order_id=order_id, currency="EUR", amount=amount)


def refunded(at: str, member_id: str, order_id: str, amount: int) -> Event:
    """Return a refund."""
    return _event(Refund, at, member_id, order_id=order_id, refund_id=f"{order_id}-{at}", amount=amount)


def shared(at: str, member_id: str) -> Event:
    """Return a share, which brings 40 points that are on hold for 14 days."""
    return _event(Share, at, member_id, object="menu", channel="link")


def redeemed(at: str, member_id: str, action: str, amount: int) -> Event:
    """Return a step of the member's one redemption."""
    return _event(Redemption, at, member_id, action=action, redemption_id=f"{member_id}-r", amount=amount)


def decided(at: str, member_id: str, action: str, amount: int, **fields: Any) -> Event:
    """Return an operator's decision on points."""
    return _event(
        Decision, at, member_id, action=action, amount=amount, unit="points", source="operator", reason="-", **fields
    )


TO_JUNE = [
    # ann: 100 granted, 20 captured of 30 reserved, 5 restored, 40 reversed
    bought("2024-05-02T10:00", "ann", "o1", 10_000),
    redeemed("2024-05-10T10:00", "ann", "reserve", 30),
    redeemed("2024-05-11T10:00", "ann", "capture", 20),
    redeemed("2024-05-20T10:00", "ann", "restore", 5),
    refunded("2024-06-05T10:00", "ann", "o1", 4_000),
    # bob: 200 brought along, 40 on hold until 29 May, 10 added and 7 taken by hand
    decided("2024-05-03T10:00", "bob", "opening", 200, expires_at=ms("2024-12-31T23:00")),
    shared("2024-05-15T10:00", "bob"),
    decided("2024-06-20T10:00", "bob", "adjust", 10),
    decided("2024-06-25T10:00", "bob", "adjust", -7),
]
"""The events of May and June."""

FROM_JULY = [
    # eve: of May, and recorded after May and June were closed
    bought("2024-05-30T10:00", "eve", "o9", 2_000),
    # cid: half an hour into July in Berlin; an order that goes back while a part of its points is on hold
    shared("2024-06-30T22:30", "cid"),
    bought("2024-07-03T10:00", "cid", "o3", 60_000),
    refunded("2024-07-05T10:00", "cid", "o3", 60_000),
    # ann: her 45 lapse on 2 July; the rest of the order goes back: 45 out of expired, 15 she owes; 10 pay a part
    refunded("2024-07-10T10:00", "ann", "o1", 6_000),
    bought("2024-07-12T10:00", "ann", "o2", 1_000),
]
"""The events of July, and one that is late."""

IN_AUGUST = [
    _event(Erasure, "2024-08-01T10:00", "bob"),
    bought("2024-08-25T10:00", "fay", "o4", 8_000),
]
"""The events of August."""


def commit(database_url: str, events: list[Event], *clocks: str) -> None:
    """Record events one by one, then let time come to instants in UTC."""
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for event in events:
            worker.commit(Batch([admitted(event)]))
        for at in clocks:
            move = ClockMove(ms(at), everywhere=True, hourly=False, reached_ms=ms(at))
            while worker.commit(Batch(clock=move)).ticks:
                pass


def come_to(database_url: str, at: str) -> None:
    """Let time come to an instant in UTC, also in a log in which nothing is due."""
    commit(database_url, [], at)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch(clock=ClockMove(ms(at), hourly=False, reached_ms=ms(at), shards=(0,))))


def honour(database_url: str, at: str, amount: int) -> None:
    """Log what only a replay writes: a lot for dan that covers a redemption which his balance cannot pay."""
    posting = Posting(type="points.adjusted", unit="points", debit="issued", credit="active", reason=HONOURED)
    append(database_url, [Entry("dan", [RewardEvent(posting, amount, sha256(b"dan").digest(), ms(at))])])
