"""Let a year of real grocery baskets move everything that reports count.

The orders, their lines and their dates are real. Invented, by fixed numbers and without chance: channels, refunds,
redemptions and what is given back, who refers whom, touches, shares, surveys, decisions of operators, and erasures.
"""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from operations.demo.data import GroceryYear, data_folder
from schemas.codec import CommittedSchemas
from schemas.events import Activity, Decision, Erasure, Purchase, Redemption, Refund, Share, Signup, Touch
from tests.system.batches import admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from schemas.events import Event

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BATCH = 2_000

PROGRAMME = """\
schema: guerdon/1
programme: insight
timezone: America/New_York
currency: USD
points: {validity: 90d, liability_per_point: 0.01, price: 0.02}
costs: {gift: {mug: 3.20}, coupon: {free-coffee: 1.50}}
margin: 1%
refunds: {window: 90d}
tiers:
  metric: spent
  window: lifetime
  levels: [{id: basic, from: 0}, {id: silver, from: 500.00}, {id: gold, from: 2500.00}]
metrics:
  spent: {sum: purchase.amount}
referral: {claim_window: 30d}
catalogue:
- {id: voucher, points: 300, kind: coupon}
rules:
- {id: welcome, on: signup, campaign: hello, give: [{points: 50}], limits: [{times: 1, per: member}]}
- id: point-a-dollar
  on: purchase
  campaign: everyday
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]
  limits: [{max: 300, per: member, every: day}]
- id: big-basket
  on: purchase
  campaign: baskets
  hold: 3d
  when: {purchase.amount: {gte: 50.00}}
  give: [{points: 25}]
  limits: [{max: 40000, per: campaign}]
- id: tried
  on: purchase
  campaign: trial
  cohort: {salt: trial-1, treat: 50%, planned: 2000}
  when: {purchase.channel: web}
  give: [{points: 3}]
- id: friend
  on: referral
  campaign: friends
  when: {referral.event: purchase, referral.number: 1}
  give: [{points: 200}]
- id: coffee
  on: purchase
  campaign: drinks
  when: {items: {some: {category: COFFEE}}}
  give: [{coupon: {template: free-coffee, valid: 30d}}]
  limits: [{times: 1, per: member, every: month}]
- {id: thanks, on: share, campaign: shares, give: [{gift: mug}], limits: [{times: 1, per: member, every: month}]}
- id: asked
  on: activity
  campaign: surveys
  when: {activity.kind: survey}
  give: [{points: 5}]
"""


class Order(NamedTuple):
    """Hold an order with its number in the whole year and among its member's."""

    purchase: Purchase
    number: int
    nth: int


def events(every_nth_household: int, code_of: Callable[[str], str]) -> list[Event]:
    """Return the events of some households in the order of their times.

    Args:
        every_nth_household: 1 for all 2,469; their data are of the small half of the year's data for 20 and more.
        code_of: a member's referral code.
    """
    signups, orders = _real(every_nth_household)
    made: list[Event] = [*_signups(signups, code_of)]
    for order in orders:
        made.append(order.purchase)
        made += _after(order)
    made += _surveys_and_shares(orders)
    made += _decisions(signups)
    gone = {signup.member_id: orders[-1].purchase.occurred_at - 60 * DAY_MS for signup in signups[7::40]}
    kept = [event for event in made if event.occurred_at < gone.get(getattr(event, "member_id", ""), 2**62)]
    kept += [
        Erasure(event_id=f"erase-{who}", member_id=who, source="invented", occurred_at=at) for who, at in gone.items()
    ]
    return sorted(kept, key=lambda event: (event.occurred_at, event.event_id))


def _real(every_nth_household: int) -> tuple[list[Signup], list[Order]]:
    """Return signups and orders of every nth household, with invented channels."""
    year = GroceryYear(data_folder(), small=False)
    chosen = {f"household-{number}" for number in year.households[::every_nth_household]}
    signups: list[Signup] = []
    orders: list[Order] = []
    nth: dict[str, count[int]] = {}
    for event in year.events():
        if event.member_id not in chosen:
            continue
        if isinstance(event, Signup):
            signups.append(structs.replace(event, channel=("store", "web", "email")[_hash(event.member_id) % 3]))
            nth[event.member_id] = count(1)
        else:
            channel = "web" if _hash(event.order_id) % 3 == 0 else "store"
            purchase = structs.replace(event, channel=channel, items=event.items[:5] if event.items else None)
            # the first five lines, as reports by line need no more; the order's amount is their sum
            lines = sum(item.amount for item in purchase.items or ())
            purchase = structs.replace(purchase, amount=lines, gross=max(lines, event.gross or 0))
            orders.append(Order(purchase, len(orders) + 1, next(nth[event.member_id])))
    return signups, orders


def _signups(signups: Sequence[Signup], code_of: Callable[[str], str]) -> Iterator[Event]:
    """Yield the signups: every fourth names a referrer, and their visitors have touched the referrer's code before."""
    for number, signup in enumerate(signups):
        if number % 4 != 1:
            yield signup
            continue
        referrer = signups[_hash(signup.member_id) % number]
        visitor = f"visitor-{number}"
        touched_ms = max(referrer.occurred_at + 1, signup.occurred_at - 5 * HOUR_MS)
        code = code_of(referrer.member_id)
        yield Touch(
            event_id=f"touch-{number}", source="invented", occurred_at=touched_ms, referral_code=code, visitor=visitor,
            channel=("link", "wechat")[number % 2],
        )  # fmt: skip
        if number % 8 == 1:
            # a friend of the friend looks at it, and does not sign up
            yield Touch(
                event_id=f"touch-again-{number}", source="invented", occurred_at=touched_ms + HOUR_MS,
                referral_code=code, visitor=f"{visitor}-friend",
            )  # fmt: skip
        named = None if number % 12 == 1 else code
        yield structs.replace(signup, referral_code=named, referrer_id=None if named else "nobody", visitor=visitor)


def _after(order: Order) -> Iterator[Event]:
    """Yield refunds and redemptions that follow an order."""
    purchase = order.purchase
    common: dict[str, Any] = {"source": "invented", "member_id": purchase.member_id}
    if order.number % 9 == 0:
        part = {0: None, 1: purchase.amount // 2, 2: purchase.amount}[order.number // 9 % 3]
        yield Refund(
            event_id=f"refund-{purchase.order_id}", order_id=purchase.order_id, refund_id="r1", amount=part,
            occurred_at=purchase.occurred_at + (1 + order.number % 45) * DAY_MS, **common,
        )  # fmt: skip
    if order.number % 90 == 0:
        yield Refund(
            event_id=f"refund-again-{purchase.order_id}", order_id=purchase.order_id, refund_id="r2",
            amount=purchase.amount + 1, occurred_at=purchase.occurred_at + 50 * DAY_MS, **common,
        )  # fmt: skip
    if order.nth % 6 == 0:
        named = f"redeem-{purchase.order_id}"
        yield Redemption(
            event_id=named, action="spend", redemption_id=named, reward="voucher", order_id=purchase.order_id,
            occurred_at=purchase.occurred_at + HOUR_MS, **common,
        )  # fmt: skip
        if order.nth % 18 == 0:
            yield Redemption(
                event_id=f"{named}-back", action="restore", redemption_id=named,
                occurred_at=purchase.occurred_at + 20 * DAY_MS, **common,
            )  # fmt: skip


def _surveys_and_shares(orders: Sequence[Order]) -> Iterator[Event]:
    for order in orders:
        at, who = order.purchase.occurred_at, order.purchase.member_id
        if order.nth % 7 == 3:
            answered = None if order.number % 4 == 0 else (10, 9, 8, 3, 10, 6)[order.number % 6]
            yield Activity(
                event_id=f"survey-{order.number}", member_id=who, source="invented", kind="survey", score=answered,
                occurred_at=at + 2 * HOUR_MS,
            )  # fmt: skip
        if order.nth % 11 == 5:
            yield Share(
                event_id=f"share-{order.number}", member_id=who, source="invented", object=order.purchase.order_id,
                channel=("wechat", "email")[order.number % 2], verified=order.number % 3 != 0, occurred_at=at + HOUR_MS,
            )  # fmt: skip


def _decisions(signups: Sequence[Signup]) -> Iterator[Event]:
    for number, signup in enumerate(signups[3::10]):
        yield Decision(
            event_id=f"adjust-{number}", member_id=signup.member_id, source="guerdon",
            occurred_at=signup.occurred_at + 30 * DAY_MS, action="adjust", unit="points",
            amount=(120, -40)[number % 2], reason="goodwill",
        )  # fmt: skip


def _hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:6], "big")


def write(database_url: str, made: Iterable[Event]) -> None:
    """Activate the programme, and judge the events as workers do, batch by batch, with ticks between them."""
    activate(database_url, PROGRAMME)
    rest = list(made)
    with closing(LiveTransaction(database_url, CommittedSchemas().lookup)) as live:
        for first in range(0, len(rest), BATCH):
            part = rest[first : first + BATCH]
            clock = ClockMove(until_ms=part[0].occurred_at - 1, reached_ms=part[0].occurred_at - 1)
            live.commit(Batch([admitted(event) for event in part], clock=clock))
        end_ms = rest[-1].occurred_at + DAY_MS
        end = ClockMove(until_ms=end_ms, everywhere=True, hourly=False, reached_ms=end_ms)
        while live.commit(Batch(clock=end)).ticks:
            pass
