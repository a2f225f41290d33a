"""Give a year of real households invented referrals; their orders and dates are real."""

from __future__ import annotations

import json
import threading
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from engine.programme.file.load import load_programme
from engine.store.cursor import one
from engine.store.database import ANALYST, transaction
from operations.demo.data import GroceryYear, data_folder
from operations.rows import dictionaries
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from operations.verify.checks import verify
from projections.runner import finish
from schemas.codec import Encoder
from schemas.events import Purchase, Refund, Signup, key_of
from schemas.json_events import event_to_object
from tests.system.load import TOPIC_OF, Message

if TYPE_CHECKING:
    from schemas.events import Event

DAY_MS = 86_400_000
APART_MS = 2 * DAY_MS
"""Referrers sign up at least this long before or after their referees, and while the referees buy nothing.

Workers in the test are never that far apart; nearer events of two partitions have no order among them.
"""
WITHIN_MS = 30 * DAY_MS

PROGRAMME = """\
schema: guerdon/1
programme: households
timezone: America/New_York
currency: USD
referral: {claim_window: 30d}
rules:
- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1}, give: [{points: 200}]}
- id: each
  on: referral
  when: {referral.event: purchase}
  give: [{points: {rate: 1, per: 1.00, of: referral.amount}}]
- {id: spent, on: referral, when: {referral.event: purchase, referral.spend: {gte: 300.00}}, give: [{points: 7}]}
- {id: welcome, on: purchase, when: {member.referrer: {exists: true}}, give: [{points: 50}]}
"""
"""Rules on referrals read `referral.*` only, and each order of a referee says whether their referrer was known."""


class Households(NamedTuple):
    """Hold the events in the order of their times, and how many households name a referrer of each kind."""

    events: list[Event]
    before: int
    after: int
    too_late: int

    @property
    def end_ms(self) -> int:
        """Return an instant by which every waiting signup is decided."""
        return self.events[-1].occurred_at + 2 * WITHIN_MS

    def messages(self) -> list[Message]:
        """Return the events as they are sent."""
        encoder = Encoder()
        return [
            Message(TOPIC_OF[type(event)], key_of(event).encode(), encoder.encode(event), event)
            for event in self.events
        ]


def households(orders_max: int | None = None) -> Households:
    """Return 5 % of the year's households, each with its first orders; of every three members two name a referrer.

    Most referrers signed up before. Some come within the time for which a signup waits, some after it. Every ninth
    order is returned a day later, a part of it or all.
    """
    year = GroceryYear(data_folder(), small=True)
    orders: dict[str, list[Purchase]] = {}
    signups: list[Signup] = []
    for event in year.events():
        if isinstance(event, Signup):
            signups.append(event)
        else:
            orders.setdefault(event.member_id, []).append(structs.replace(event, items=None))

    first_orders = {who: own[:orders_max] for who, own in orders.items()}
    events: list[Event] = []
    counts = [0, 0, 0]
    for number, signup in enumerate(signups):
        named, kind = (None, 0) if number % 3 == 0 else _referrer(number, signups, first_orders)
        if named is not None:
            counts[kind] += 1
        events.append(structs.replace(signup, referrer_id=named))

    ninth = count(1)
    for own in first_orders.values():
        for order in own:
            events.append(order)
            if (number := next(ninth)) % 9 == 0:
                events.append(_refund(order, number))
    return Households(sorted(events, key=lambda event: event.occurred_at), *counts)


def _refund(order: Purchase, number: int) -> Refund:
    return Refund(
        event_id=f"refund-{order.order_id}", source=order.source, member_id=order.member_id, order_id=order.order_id,
        occurred_at=order.occurred_at + DAY_MS, refund_id="r", amount=order.amount // 2 if number % 2 else None,
    )  # fmt: skip


def _referrer(number: int, signups: list[Signup], orders: dict[str, list[Purchase]]) -> tuple[str | None, int]:
    """Return who refers a member: 0, somebody who was there before, 1 who comes in time, 2 who comes too late."""
    signup = signups[number]
    if number % 5 == 1:
        bought = [order.occurred_at for order in orders[signup.member_id]]
        for other in signups[number + 1 :]:
            after_ms = other.occurred_at - signup.occurred_at
            is_quiet = all(abs(at_ms - other.occurred_at) > APART_MS for at_ms in bought)
            if after_ms > WITHIN_MS + APART_MS or (APART_MS < after_ms < WITHIN_MS - APART_MS and is_quiet):
                return other.member_id, 1 if after_ms < WITHIN_MS else 2
    earlier = [other for other in signups[:number] if other.occurred_at < signup.occurred_at - APART_MS]
    return (earlier[number * 7 % len(earlier)].member_id, 0) if earlier else (None, 0)


def in_memory(households_: Households) -> dict[str, Any]:
    """Return what `simulate` says of the events in the order of their times."""
    programme = load_programme(PROGRAMME, "p").programme
    assert programme is not None
    lines = [Line("e", n, json.dumps(event_to_object(event)).encode()) for n, event in enumerate(households_.events, 1)]
    return compared(simulate_lines(programme, lines, households_.end_ms).document())


def in_views(database_url: str) -> dict[str, Any]:
    """Return what the views say once everything is folded and verified."""
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.forwarded") == (0,)
        assert one(cursor, "SELECT count(*) FROM guerdon.waiting_referral") == (0,)
    with transaction(database_url, role=ANALYST) as cursor:
        return compared(
            {
                "balances": dictionaries(cursor, "SELECT * FROM reward.member_balance"),
                "referrals": dictionaries(cursor, "SELECT * FROM reward.referral"),
                "reward_events": dictionaries(cursor, "SELECT * FROM reward.reward_event"),
            }
        )


def compared(document: dict[str, Any]) -> dict[str, Any]:
    """Return every member's balance and rewards, and every referral's status."""
    given: dict[str, list[tuple[Any, ...]]] = {}
    for row in document["reward_events"]:
        if row["unit"] == "points":
            reward = (row["event_id"], row["type"], row["rule_id"], row["amount"], row["reason"])
            given.setdefault(row["member_id"], []).append(reward)
    return {
        "balances": {row["member_id"]: row["available"] for row in document["balances"]},
        "given": {who: sorted(rows, key=repr) for who, rows in given.items()},
        "referrals": sorted(
            (row["referee_id"], row["referrer_id"], row["status"], row["reason"]) for row in document["referrals"]
        ),
    }
