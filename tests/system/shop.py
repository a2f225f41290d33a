"""Make half a year of a small shop in which everything moves: what analysts read, and their questions, stand on it."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from operations.report.experiments.decide import Choice, decide
from operations.report.liability.close import close_month
from projections.runner import finish
from schemas.events import (
    Activity,
    Erasure,
    Item,
    Purchase,
    Redemption,
    Refund,
    RefundItem,
    Share,
    Signup,
    Touch,
)
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.events import Event, RedemptionAction

DAY_MS = 86_400_000
START_MS = int(datetime(2026, 1, 1, 8, tzinfo=UTC).timestamp() * 1000)
DAYS = 181
DAYS_A_TICK = 3
MEMBERS = 24
EMAIL, VISITOR = "email-of-", "visitor-"

PROGRAMME = """\
schema: guerdon/1
programme: shop
timezone: Europe/Berlin
currency: EUR
rules:
- {id: welcome, on: signup, campaign: welcome, give: [{points: 100}], limits: [{times: 1, per: member}]}
- {id: spend, on: purchase, campaign: daily, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
- id: spring
  on: purchase
  campaign: spring
  phase: bonus
  active: {from: 2026-03-01, until: 2026-06-01}
  give: [{points: 20}, {coupon: {template: five-off, valid: 30d}}]
  limits: [{max: 400, unit: points, per: campaign, every: month}]
- {id: held, on: purchase, campaign: held, when: {purchase.amount: {gte: 80.00}}, hold: 14d, give: [{points: 30}]}
- {id: share, on: share, campaign: shares, give: [{points: 5}], limits: [{times: 2, per: member, every: week}]}
- {id: critic, on: activity, when: {activity.kind: review}, give: [{badge: critic}], limits: [{times: 1, per: member}]}
- {id: trial, on: purchase, campaign: trial, when: {purchase.channel: web}, cohort: {salt: web, treat: 50%},
   limits: [{times: 1, per: member}], give: [{badge: tester}]}
- {id: friend, on: referral, campaign: friends, when: {referral.event: purchase, referral.number: 1},
   give: [{points: 150}, {cash: {amount: 2.00}}]}
- {id: winner, on: contest, when: {contest.id: race}, give: [{points: 10}]}
- {id: risen, on: tier, when: {tier.to: gold}, give: [{gift: tote}]}
points: {validity: 90d}
refunds: {window: 60d}
reserve_for: 3d
referral: {claim_window: 30d}
tiers: {metric: status, window: rolling 120d, levels: [{id: basic, from: 0}, {id: gold, from: 400, benefits: [lounge]}]}
contests:
- {id: race, metric: points, period: month, winners: 1}
catalogue:
- {id: mug, points: 120, kind: gift, stock: 6}
- {id: pay, kind: money, points_per: {10: 0.10}}
"""


class Shop:
    """Draw the events of the shop in their order; the same every time."""

    def __init__(self) -> None:
        self._chance = random.Random(16)  # noqa: S311  a test must repeat
        self._number = 0
        self._orders: dict[str, list[Purchase]] = {}

    def days(self, codes: dict[str, str]) -> Iterator[tuple[int, list[Event]]]:
        """Yield each day's end in ms with its events; `codes` has the referral codes of members who joined before."""
        joined: list[str] = []
        for day in range(DAYS):
            self._at_ms = START_MS + day * DAY_MS
            events: list[Event] = []
            if day % 5 == 0 and len(joined) < MEMBERS:
                events += self._signup(f"member-{len(joined):02}", joined, codes)
                joined.append(f"member-{len(joined):02}")
            for member_id in joined:
                if self._chance.random() < 0.12:
                    events += self._deed(member_id)
            yield START_MS + (day + 1) * DAY_MS - 1, events

    def _fields(self, member_id: str) -> dict[str, Any]:
        self._number += 1
        self._at_ms += self._chance.randrange(1, 20) * 60_000
        return {"event_id": f"e{self._number}", "member_id": member_id, "occurred_at": self._at_ms}

    def _signup(self, member_id: str, joined: list[str], codes: dict[str, str]) -> list[Event]:
        """Let a member join: some follow the link of a friend, and one claims a code that nobody has."""
        referrer = next((each for each in self._chance.sample(joined, len(joined)) if each in codes), None)
        visitor, channel = f"{VISITOR}{member_id}", self._chance.choice(("link", "qr", None))
        events: list[Event] = []
        by: dict[str, Any] = {"visitor": visitor}
        if referrer is not None and self._chance.random() < 0.7:
            code = codes[referrer]
            fields = self._fields(member_id)
            del fields["member_id"]
            events.append(Touch(**fields, referral_code=code, visitor=visitor, channel=channel))
            by = {"referral_code": code, "visitor": visitor}
        elif referrer is not None:
            by = {"referral_code": "NOBODY22"}
        signup = Signup(
            **self._fields(member_id), **by, channel=channel, birthday="1990-04-01",
            identity={"email": f"{EMAIL}{member_id}"},
        )  # fmt: skip
        return [*events, signup]

    def _deed(self, member_id: str) -> list[Event]:
        """Let a member do one thing; a reservation is carried out or called off a little later."""
        what = self._chance.choices(("buy", "return", "redeem", "share", "survey", "review"), (10, 2, 3, 2, 1, 1))[0]
        fields = self._fields(member_id)
        orders = self._orders.setdefault(member_id, [])
        if what == "return" and orders:
            return [self._refund(fields, self._chance.choice(orders[-3:]))]
        if what == "redeem":
            return self._redeem(fields, member_id)
        if what == "share":
            channel = self._chance.choice(("mail", "chat"))
            return [Share(**fields, object=f"shoe-{self._number % 4}", channel=channel, verified=True)]
        if what == "survey":
            return [Activity(**fields, kind="survey", score=self._chance.randrange(11))]
        if what == "review":
            return [Activity(**fields, kind="review", object=f"sku-{self._number % 5}")]
        orders.append(self._purchase(fields))
        return [orders[-1]]

    def _purchase(self, fields: dict[str, Any]) -> Purchase:
        items = tuple(
            Item(
                line_id=str(line), sku=f"sku-{self._chance.randrange(5)}", quantity=self._chance.choice(("1", "2.5")),
                amount=self._chance.randrange(300, 6_000), category=self._chance.choice(("food", "books")),
            )
            for line in range(1, self._chance.randrange(2, 4))
        )  # fmt: skip
        amount = sum(item.amount for item in items)
        coupons = ("five-off",) if self._chance.random() < 0.2 else None
        return Purchase(
            **fields, order_id=f"o{self._number}", currency="EUR", amount=amount, gross=amount + 100 * len(items),
            items=items, coupons=coupons, channel=self._chance.choice(("web", "shop")), store="s1", brand="b",
        )  # fmt: skip

    def _refund(self, fields: dict[str, Any], order: Purchase) -> Refund:
        part: dict[str, Any] = {}
        if self._chance.random() < 0.5 and order.items:
            part = {"items": (RefundItem(line_id=order.items[0].line_id, amount=order.items[0].amount),)}
        elif self._chance.random() < 0.5:
            part = {"amount": order.amount // 3}
        return Refund(**fields, order_id=order.order_id, refund_id=f"r{self._number}", **part)

    def _redeem(self, fields: dict[str, Any], member_id: str) -> list[Event]:
        redemption_id = f"x{self._number}"
        if self._chance.random() < 0.3:
            return [Redemption(**fields, action="spend", redemption_id=redemption_id, reward="mug")]
        events: list[Event] = [Redemption(**fields, action="reserve", redemption_id=redemption_id, amount=30)]
        then: tuple[RedemptionAction | None, ...] = ("capture", "void", None)
        action = self._chance.choice(then)
        if action is not None:
            events.append(Redemption(**self._fields(member_id), action=action, redemption_id=redemption_id))
        if action == "capture" and self._chance.random() < 0.3:
            events.append(Redemption(**self._fields(member_id), action="restore", redemption_id=redemption_id))
        return events


def fill(database_url: str) -> None:
    """Let the shop's half year be judged and projected, day by day, and January be closed, and the trial be decided.

    The clock moves every few days, and at the end.
    """
    activate(database_url, PROGRAMME)
    codes: dict[str, str] = {}
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for day, (end_ms, events) in enumerate(Shop().days(codes), 1):
            if events:
                worker.commit(Batch([admitted(event) for event in events]))
            if day % DAYS_A_TICK and day < DAYS:
                continue
            while worker.commit(Batch(clock=ClockMove(end_ms, everywhere=True, hourly=False, reached_ms=end_ms))).ticks:
                pass
            with transaction(database_url) as cursor:
                cursor.execute("SELECT member_id, code FROM guerdon.member_code")
                codes.update(cursor.fetchall())
    finish(database_url, threading.Event())
    close_month(database_url, "2026-01", "keeper", "books of January")
    decide(database_url, "web", Choice.DROP, actor="keeper", reason="it does not pay")


def erase(database_url: str, *member_ids: str) -> None:
    """Erase members after the half year."""
    with transaction(database_url) as cursor:
        (first,) = one(cursor, "SELECT count(*) FROM guerdon.member_key WHERE key IS NULL")
    at_ms = START_MS + DAYS * DAY_MS
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for number, member_id in enumerate(member_ids, first):
            gone = Erasure(event_id=f"gone-{number}", member_id=member_id, occurred_at=at_ms + number)
            worker.commit(Batch([admitted(gone)]))
    finish(database_url, threading.Event())
