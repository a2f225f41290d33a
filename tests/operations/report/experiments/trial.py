"""Make a history of an experiment at random, and find slowly what its members have bought."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from operations.report.catalogue import report
from operations.report.frame import Asked
from schemas.events import Purchase, Redemption, Refund, Signup
from tests.system.load import START_MS

if TYPE_CHECKING:
    from schemas.events import Event

MEMBERS = 280
HOUR_MS = 3_600_000
BERLIN = ZoneInfo("Europe/Berlin")
PROGRAMME = """\
schema: guerdon/1
programme: shop
timezone: Europe/Berlin
currency: EUR
points: {liability_per_point: 0.02}
margin: 25%
referral: {block: []}
rules:
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: trial, on: purchase, when: {purchase.channel: app}, cohort: {salt: spring, treat: 50%, planned: 2000},
   give: [{points: 30}]}
"""


def is_treated(member: str, treat: int = 5_000) -> bool:
    """Say by the definition in the language's pages whether a member is treated."""
    return int.from_bytes(sha256(b"spring\0" + member.encode()).digest()[:8], "big") % 10_000 < treat


def history(seed: int = 16) -> list[Event]:
    """Return signups, orders, refunds and redemptions, some of the orders late, and some members referred by others."""
    chance = random.Random(seed)  # noqa: S311  a history for a test
    members = [f"m{number}" for number in range(MEMBERS)]
    events: list[Event] = []
    for number, member in enumerate(members):
        referrer = chance.choice(members[:number]) if number and chance.random() < 0.2 else None
        events.append(
            Signup(event_id=f"s{number}", member_id=member, occurred_at=START_MS + number, referrer_id=referrer)
        )
    orders: list[Purchase] = []
    for number in range(MEMBERS * 5):
        at_ms = START_MS + (number + 1) * HOUR_MS
        member = chance.choice(members)
        if chance.random() < 0.8 or not orders:
            late = chance.choice([0, 0, 0, 200 * HOUR_MS])
            order = Purchase(
                event_id=f"p{number}", order_id=f"o{number}", member_id=member, currency="EUR",
                occurred_at=max(START_MS + HOUR_MS, at_ms - late), amount=chance.randint(100, 20_000),
                channel=chance.choice(["app", "store"]),
            )  # fmt: skip
            orders.append(order)
            events.append(order)
        elif chance.random() < 0.5:
            order = orders.pop(chance.randrange(len(orders)))  # no order is refunded twice
            amount = chance.choice([None, order.amount // 3])
            events.append(
                Refund(
                    event_id=f"r{number}", member_id=order.member_id, order_id=order.order_id, refund_id=f"r{number}",
                    occurred_at=at_ms, amount=amount,
                )
            )  # fmt: skip
        else:
            events.append(
                Redemption(
                    event_id=f"x{number}", member_id=member, redemption_id=f"x{number}", action="spend", amount=20,
                    occurred_at=at_ms,
                )
            )  # fmt: skip
    return events


class Sides(NamedTuple):
    """Hold by member what the slow arithmetic finds: the metric since they entered, and before."""

    y: dict[str, int]
    x: dict[str, int]
    refunded: dict[str, int]
    earlier: dict[str, int]
    """How many orders they had before."""

    def of(self, numbers: dict[str, int], *, treated: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array([each for member, each in numbers.items() if is_treated(member) == treated], dtype=np.int64)


def by_hand(events: list[Event]) -> Sides:
    entered: dict[str, tuple[int, int]] = {}
    for place, event in enumerate(events):
        if isinstance(event, Purchase) and event.channel == "app":
            entered.setdefault(event.member_id, (event.occurred_at, place))
    refunds: dict[str, int] = {}
    amounts = {event.order_id: event.amount for event in events if isinstance(event, Purchase)}
    for event in events:
        if isinstance(event, Refund):
            refunds[event.order_id] = amounts.get(event.order_id, 0) if event.amount is None else event.amount

    sides = Sides(*(dict.fromkeys(entered, 0) for _ in range(4)))
    for place, event in enumerate(events):
        if isinstance(event, Purchase) and event.member_id in entered:
            refunded = refunds.get(event.order_id, 0)
            is_since = (event.occurred_at, place) >= entered[event.member_id]
            (sides.y if is_since else sides.x)[event.member_id] += event.amount - refunded
            sides.refunded[event.member_id] += refunded if is_since else 0
            sides.earlier[event.member_id] += not is_since
    return sides


def bought(member: str, number: int, amount: int = 500) -> Purchase:
    return Purchase(
        event_id=f"p{number}", order_id=f"o{number}", member_id=member, currency="EUR", amount=amount, channel="app",
        occurred_at=START_MS + number * HOUR_MS,
    )  # fmt: skip


def experiments(database_url: str, **asked: Any) -> dict[str, Any]:
    data: dict[str, Any] = report(database_url, "experiments", Asked(**asked))["data"]
    return data
