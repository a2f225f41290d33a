"""Make histories whose members go through everything that time brings, the same for the same seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from schemas.scalars import instant_from_iso, iso_from_instant

START_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

PROGRAMME = """\
schema: guerdon/1
programme: history
timezone: America/New_York
currency: USD
points: {validity: 40d, round_expiry: day}
refunds: {window: 90d, negative: unlimited}
reserve_for: 3d
metrics: {orders: {count: purchase, over: 14d}}
tiers:
  metric: status
  window: WINDOW
  downgrade: balance_based
  grace: 10d
  levels: [{id: basic, from: 0}, {id: silver, from: SILVER, benefits: [lounge]}, {id: gold, from: GOLD, benefits: [lounge, gate]}]
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}], hold: 2d}
- {id: soon, on: purchase, when: {purchase.amount: {gte: 40.00}}, give: [{points: 20}]}
- {id: often, on: purchase, when: {history.orders: {gte: 3}}, give: [{points: 9}], limits: [{max: 18, per: member, every: week}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: voucher, on: purchase, when: {purchase.amount: {gte: 60.00}}, give: [{coupon: {template: ten, valid: 6d}}]}
- {id: hello, on: tier, when: {tier.to: gold}, give: [{points: 50}]}
- {id: birthday, on: birthday, give: [{points: 30}]}
- {id: years, on: anniversary, give: [{points: 5}]}
"""  # noqa: E501  a programme has lines of its own length
WINDOWS = {"rolling 60d": (150, 300), "calendar_year": (900, 1400), "anniversary": (900, 1400)}
"""Windows of tiers, with the numbers that some members reach and lose again."""


def programme(window: str = "rolling 60d") -> str:
    """Return a programme with holds, validity, tiers with grace, birthdays and reservations that lapse."""
    silver, gold = WINDOWS[window]
    return PROGRAMME.replace("WINDOW", window).replace("SILVER", str(silver)).replace("GOLD", str(gold))


@dataclass(slots=True)
class History:
    """Make members' events; each member's times rise strictly, and between members there is no order."""

    members: int
    seed: int = 3
    days: int = 420
    lines: list[dict[str, Any]] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _at_ms: dict[str, int] = field(default_factory=dict)
    _orders: dict[str, list[str]] = field(default_factory=dict)
    _open: dict[str, list[str]] = field(default_factory=dict)
    _number: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  a test must repeat

    def fill(self, events: int) -> History:
        """Add `events` lines; the first of each member is a signup."""
        names = [f"member-{number}" for number in range(self.members)]
        step_ms = self.days * DAY_MS * self.members // events
        for name in names:
            self._at_ms[name] = START_MS + self._random.randrange(step_ms)
            day = self._random.randrange(1, 28)
            self._add(name, "signup", birthday=f"19{70 + day}-{self._random.randrange(1, 13):02}-{day:02}")
        while len(self.lines) < events:
            name = self._random.choice(names)
            self._at_ms[name] += self._random.randrange(1, 2 * step_ms)
            self._next(name)
        return self

    def _next(self, name: str) -> None:
        orders, opened = self._orders.setdefault(name, []), self._open.setdefault(name, [])
        chance = self._random.random()

        # 15 % refunds, 10 % new redemptions, 13 % steps of open ones, else orders
        if chance < 0.15 and orders:
            part = {} if chance < 0.05 else {"amount": self._random.randrange(1, 2_000)}
            self._add(name, "refund", order_id=self._random.choice(orders), refund_id=f"r{self._number}", **part)
        elif chance < 0.25:
            opened.append(f"x{self._number}")
            action = self._random.choice(("reserve", "reserve", "spend"))
            amount = self._random.randrange(1, 60)
            self._add(name, "redemption", action=action, redemption_id=opened[-1], amount=amount)
        elif chance < 0.38 and opened:
            action = self._random.choice(("capture", "void", "restore"))
            self._add(name, "redemption", action=action, redemption_id=self._random.choice(opened))
        else:
            orders.append(f"o{self._number}")
            amount = self._random.randrange(9_000)
            self._add(name, "purchase", order_id=orders[-1], currency="USD", amount=amount)

    def _add(self, name: str, kind: str, **fields: Any) -> None:
        self._number += 1
        head = {"type": kind, "event_id": f"e{self._number}", "member_id": name}
        self.lines.append({**head, "occurred_at": iso_from_instant(self._at_ms[name]), **fields})

    @property
    def in_time(self) -> list[dict[str, Any]]:
        """Return the lines in the order in which things happened."""
        return sorted(self.lines, key=lambda line: (instant_from_iso(line["occurred_at"], ""), line["member_id"]))

    @property
    def orders(self) -> list[dict[str, Any]]:
        """Return the purchases and refunds, member by member woven together in no order of time."""
        return [line for line in self.lines if line["type"] in ("purchase", "refund")]

    @property
    def end_ms(self) -> int:
        """Return when the last of the events occurred."""
        return max(self._at_ms.values())


PLACES = ("shard", "pos", "seq", "event_id", "recorded_at")
"""The fields that say where in the log a reward event stands, and which source event caused it: ticks change them."""


def compared(document: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what no tick may change: each member's reward events in order, everything else sorted."""
    parts: dict[str, Any] = {"reward_events": {}}
    for row in document["reward_events"]:
        fields = {name: value for name, value in row.items() if name not in PLACES}
        parts["reward_events"].setdefault(row["member_id"], []).append(fields)
    for name in ("balances", "tiers", "rewards"):
        rows = [{key: value for key, value in row.items() if key != "as_of"} for row in document[name]]
        parts[name] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    return parts
