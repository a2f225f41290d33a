"""Draw programmes with extreme terms, and events with every odd value that admission lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.bounds import OCCURRED_AT_MS_FIRST
from schemas.events import (
    INT64_MAX,
    OCCURRED_AT_MS_END,
    Decision,
    Item,
    MemberEvent,
    Profile,
    Purchase,
    Redemption,
    Refund,
    RefundItem,
    Signup,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

DAY_MS = 86_400_000
MOST_MONEY = "92233720368547758.07"
AMOUNTS = (0, 1, 99, 100, 1_000, 5_000, 2**62, INT64_MAX - 1, INT64_MAX)
QUANTITIES = ("0", "1", "0.5", "999999999999")


def programme(rng: Random) -> str:
    """Return a programme whose terms lie at the edges of what a file may say."""

    def length() -> str:
        return rng.choice(["1m", "1h", "1d", "31d", "1mo", "12mo", "100y"])

    metric = rng.choice(["status", "orders", "spend"])
    top = MOST_MONEY if metric == "spend" else INT64_MAX
    money = rng.choice([MOST_MONEY, "0.01", "100.00"])
    every = rng.choice(["day", "31d", "lifetime"])
    return f"""
schema: guerdon/1
programme: extremes
timezone: {rng.choice(["America/New_York", "Asia/Shanghai", "Pacific/Apia", "Africa/Monrovia"])}
currency: USD
points: {{validity: {rng.choice(["none", length()])}, round_expiry: {rng.choice(["none", "day", "month", "year"])}}}
refunds: {{window: {length()}, negative: {rng.choice(["only_pending", "within_balance", "unlimited"])}}}
metrics:
  orders: {{count: purchase}}
  spend: {{sum: purchase.amount}}
  recent: {{sum: purchase.amount, over: {length()}}}
tiers:
  metric: {metric}
  window: {rng.choice(["lifetime", "calendar_year", "anniversary", f"rolling {length()}"])}
  downgrade: {rng.choice(["never", "one_down", "balance_based"])}
  grace: {rng.choice(["none", length()])}
  levels:
  - {{id: a, from: 0}}
  - {{id: b, from: 1, benefits: [x]}}
  - {{id: c, from: 100, benefits: [x, y]}}
  - {{id: d, from: {top}}}
catalogue:
- {{id: mug, points: {rng.choice([1, 30, INT64_MAX])}, kind: gift, stock: {rng.choice([1, INT64_MAX])}}}
- {{id: off, points: 5, kind: coupon, min_order: {money}}}
- {{id: pay, kind: money, points_per: {{{rng.choice([1, 100, INT64_MAX])}: {money}}},
   max_share: {rng.choice(["0.01%", "1/3", "100%"])}, min_points: {rng.choice([1, INT64_MAX])}}}
reserve_for: {length()}
rules:
- {{id: base, on: purchase, hold: {length()}, give: [{{points: {{rate: 100, per: 1.00, of: purchase.amount}}}}]}}
- {{id: earned, on: purchase, give: [{{status: {{rate: 1, per: 1.00, of: purchase.amount}}}},
   {{cash: {{rate: 5%, of: purchase.amount}}}}],
   limits: [{{max: {rng.choice([MOST_MONEY, "50"])}, per: member, every: {every}, unit: USD}}]}}
- {{id: most, on: purchase, give: [{{points: {{amount: {INT64_MAX}, validity: {length()}}}}}],
   limits: [{{max: {INT64_MAX}, per: member, every: {every}}}]}}
- {{id: times, on: purchase, phase: boost, give: [{{multiply: {{phase: base, by: 100}}}}]}}
- {{id: recent, on: purchase, when: {{history.recent: {{gte: 1.00}}, history.orders: {{lt: 4}}}}, give: [{{badge: Q}}]}}
- {{id: things, on: purchase, give: [{{coupon: {{template: T, valid: {length()}}}}},
   {{benefit: {{id: B, for: {length()}}}}}, {{gift: {{sku: S, quantity: {INT64_MAX}}}}}]}}
- {{id: birthday, on: birthday, give: [{{points: 5}}, {{status: 50}}]}}
- {{id: years, on: anniversary, give: [{{points: 5}}]}}
- {{id: risen, on: tier, when: {{tier.to: c}}, give: [{{points: {{amount: 7, validity: 1m}}}}, {{status: 60}},
   {{benefit: {{id: B, for: 1m}}}}]}}
{_challenges(rng, length)}
"""


def _challenges(rng: Random, length: Callable[[], str]) -> str:
    """Return rules with challenges, and rules on these, that count for one another."""

    def goal(what: str) -> str:
        within = rng.choice(["", f", within: {length()}"])
        return f"challenge: {{{what}{within}, repeat: {rng.choice(['never', 'after_completion'])}}}"

    return f"""
- {{id: twice, on: purchase, when: {{member.tier: {{ne: d}}}},
   {goal("count: 2, where: {purchase.amount: {gte: 1.00}}")},
   give: [{{points: {{rate: 3, per: 1.00, of: purchase.amount}}}}, {{status: 20}}, {{coupon: C}}],
   limits: [{{times: {rng.choice([1, 3])}, per: member, every: {rng.choice(["day", "lifetime"])}}}]}}
- {{id: much, on: purchase, {goal(f"sum: purchase.amount, gte: {rng.choice(['10.00', '50.00', MOST_MONEY])}")},
   give: [{{points: 11}}, {{cash: {{amount: 2.00}}}}, {{status: 3}}]}}
- {{id: climbs, on: tier, {goal("count: 2")}, give: [{{points: 13}}]}}
- {{id: well-done, on: challenge, when: {{challenge.rule: twice}}, give: [{{badge: W}}, {{status: 4}}]}}
- {{id: pairs, on: challenge, {goal("count: 2")}, give: [{{points: 17}}, {{status: 6}}]}}
"""


def next_ms(rng: Random, at_ms: int) -> int:
    """Return the time of the next event: mostly later, at times at either end of what is allowed."""
    chance = rng.random()
    if chance < 0.05:
        return rng.choice([OCCURRED_AT_MS_FIRST, OCCURRED_AT_MS_END - 1])
    if chance < 0.2:
        return max(OCCURRED_AT_MS_FIRST, at_ms - rng.choice([1, DAY_MS, 40 * DAY_MS, 4_000 * DAY_MS]))
    return min(OCCURRED_AT_MS_END - 1, at_ms + rng.choice([0, 1, 1_000, 3_600_000, DAY_MS, 31 * DAY_MS, 366 * DAY_MS]))


def event(rng: Random, number: int, at_ms: int) -> MemberEvent | Profile:
    """Return an event of one member that is odd in as many ways as its type has fields."""
    head: dict[str, Any] = {"event_id": f"e{number}", "member_id": "m", "occurred_at": at_ms}
    order_id = rng.choice([f"o{rng.randrange(8)}", f"o{number}"])
    kind = rng.choices(("purchase", "refund", "redemption", "decision", "signup", "profile"), (5, 4, 6, 3, 1, 1))[0]

    if kind == "purchase":
        amount = rng.choice(AMOUNTS)
        return Purchase(**head, order_id=order_id, currency="USD", amount=amount, items=_lines(rng, amount))
    if kind == "refund":
        return Refund(**head, order_id=order_id, refund_id=f"r{rng.choice([number, 1, 2])}", **_returned(rng))
    if kind == "redemption":
        action = rng.choice(["reserve", "capture", "void", "spend", "restore"])
        return Redemption(
            **head, action=action, redemption_id=f"x{rng.randrange(number // 4 + 1)}",  # type: ignore[arg-type]
            reward=rng.choice([None, None, "mug", "off", "pay", "unknown"]), amount=rng.choice([None, *AMOUNTS]),
            unit=rng.choice([None, "points", "USD"]), order_id=rng.choice([None, order_id]),
            order_amount=rng.choice([None, *AMOUNTS]),
        )  # fmt: skip
    if kind == "decision":
        return Decision(
            **head, action=rng.choice(["adjust", "adjust", "opening", "referral_void"]),
            amount=rng.choice([None, -1, -500, -INT64_MAX, *AMOUNTS]),
            unit=rng.choice([None, "points", "status", "USD", "EUR"]),
            expires_at=rng.choice([None, OCCURRED_AT_MS_FIRST, OCCURRED_AT_MS_END - 1]),
            tier=rng.choice([None, "c", "unknown"]),
        )  # fmt: skip

    birthday = rng.choice([None, "1980-02-29", "--06-01", "2999-12-31"])
    return (Signup if kind == "signup" else Profile)(**head, birthday=birthday)


def _lines(rng: Random, amount: int) -> tuple[Item, ...] | None:
    if rng.random() < 0.5:
        return None
    first = rng.choice([0, amount // 3, amount])
    return (
        Item(line_id="1", sku="s", quantity=rng.choice(QUANTITIES), amount=first),
        Item(line_id="2", sku="s", quantity="1", amount=amount - first),
    )


def _returned(rng: Random) -> dict[str, Any]:
    chance = rng.random()
    if chance < 0.3:
        return {"amount": rng.choice(AMOUNTS)}
    if chance < 0.4:
        return {"items": ()}
    if chance < 0.7:
        quantity = rng.choice([None, *QUANTITIES])
        return {"items": (RefundItem(line_id=rng.choice("129"), amount=rng.choice(AMOUNTS), quantity=quantity),)}
    return {}
