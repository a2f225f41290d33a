"""Draw histories of a referrer and their referees, who buy and return, and sum what each event brought.

Each member's own events are in order, and so are those of all referees together. A test chooses how far the referrer is
ahead of the referees: that stands for the effects of batches and backlogs. The referrer's account forgets a referee's
order as any other, when the referrer's clock is a refund window and 7 days past its judgement.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from engine.member.windows import LATE_MS
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.scalars import instant_from_iso, iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.programme.model import Programme

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
START_MS = instant_from_iso("2024-01-05T10:00:00Z", "start")
WAITS_MS = (HOUR_MS, DAY_MS, 3 * DAY_MS, 20 * DAY_MS, 29 * DAY_MS, 50 * DAY_MS)
WINDOW_DAYS = 30
REFERRER, REFEREES = "ann", ("bob", "cat")
TEXT = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: USD
points: {validity: 60d}
refunds: {window: 30d, negative: unlimited}
referral: {claim_window: 7d, block: [self]}
metrics: {orders: {count: purchase}, spent: {sum: purchase.amount, over: 30d}}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}],
   limits: [{max: 60, per: member, every: day}]}
- {id: third, on: purchase, when: {history.orders: {gte: 2}}, give: [{points: 7}, {status: 1}]}
- {id: lately, on: purchase, when: {history.spent: {gte: 50.00}}, give: [{cash: {amount: 1.00}}],
   limits: [{times: 4, per: member}]}
- {id: welcome, on: purchase, when: {member.referrer: {exists: true}}, give: [{points: 50}],
   limits: [{times: 1, per: member}]}
- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1}, hold: 14d, give: [{points: 200}]}
- {id: share, on: referral, when: {referral.event: purchase}, give: [{cash: {rate: 5%, of: referral.amount}}],
   limits: [{max: 9.00, per: member}]}
- {id: regular, on: referral, when: {referral.spend: {gte: 60.00}}, give: [{points: 3}],
   limits: [{times: 5, per: member}]}
"""
Event = dict[str, Any]


@dataclass(frozen=True)
class Act:
    """Do something after a wait: buy for an amount, or return (a part of) one of the latest orders."""

    who: str
    wait: int
    amount: int | None
    order: int = 0


@dataclass
class History:
    """Hold what the referrer did, and what all referees did; each in the order of time."""

    own: list[Event] = field(default_factory=list)
    friends: list[Event] = field(default_factory=list)

    def all(self) -> list[Event]:
        """Return all events in the order of time."""
        return sorted(self.own + self.friends, key=_time)

    def delayed(self, by: Sequence[int]) -> list[Event]:
        """Return all events with each of a referee's delayed behind some later events of the referrer's.

        The delay is shorter where the referrer's account would forget an order before a refund that is in time.
        """
        delayed: list[Event] = []
        own = sorted(self.own, key=_time)
        for number, friend in enumerate(self.friends):
            least = sum(_time(event) < _time(friend) for event in own)
            behind = next(
                least + more
                for more in range(by[number % len(by)], -1, -1)
                if remembers(delayed + own[: least + more] + self.friends[number:])
            )
            delayed, own = [*delayed, *own[:behind], friend], own[behind:]
        return delayed + own


def remembers(events: Iterable[Event]) -> bool:
    """Whether the referrer's account remembers the order of each refund that is in time, if it judges in this order.

    Local days have 23 to 25 hours, so a day on either side counts as forgotten.
    """
    clock_ms, judged = 0, dict[tuple[str, str], tuple[int, int]]()
    for event in events:
        at_ms = instant_from_iso(_time(event), "occurred_at")
        order = (str(event["member_id"]), str(event.get("order_id")))
        if event["type"] == "refund" and order in judged:
            bought_ms, judged_ms = judged[order]
            is_in_time = at_ms <= bought_ms + (WINDOW_DAYS + 1) * DAY_MS
            if is_in_time and clock_ms > judged_ms + (WINDOW_DAYS - 1) * DAY_MS + LATE_MS:
                return False
        clock_ms = max(clock_ms, at_ms)
        if event["type"] == "purchase":
            judged[order] = (at_ms, clock_ms)
    return True


def _time(event: Event) -> str:
    return str(event["occurred_at"])


_acts = st.builds(
    Act,
    st.sampled_from((REFERRER, *REFEREES)),
    st.integers(0, len(WAITS_MS) - 1),
    st.none() | st.sampled_from((1_000, 2_500, 6_000, 10_000)),
    st.integers(0, 2),
)


def written(acts: Sequence[Act]) -> History:
    """Write acts as events, a second apart at least."""
    history, now_ms = History(), START_MS
    orders: dict[str, list[str]] = {}

    def add(kind: str, who: str, **fields: Any) -> None:
        event_id = f"e{len(history.own) + len(history.friends)}"
        head = {"type": kind, "event_id": event_id, "member_id": who, "occurred_at": iso_from_instant(now_ms)}
        (history.own if who == REFERRER else history.friends).append(head | fields)

    add("signup", REFERRER)
    for who in REFEREES:
        now_ms += 1_000
        add("signup", who, referrer_id=REFERRER)
    for number, act in enumerate(acts):
        now_ms += WAITS_MS[act.wait]
        theirs = orders.setdefault(act.who, [])
        if act.amount is not None:
            theirs.append(f"o{number}")
            add("purchase", act.who, order_id=theirs[-1], currency="USD", amount=act.amount)
        elif theirs:
            part = {"amount": 700} if act.order == 1 else {}
            add("refund", act.who, order_id=theirs[-1 - act.order % len(theirs)], refund_id=f"r{number}", **part)
    return history


def histories(least: int = 0) -> st.SearchStrategy[History]:
    """Return histories of at least `least` acts, besides the signups."""
    return st.lists(_acts, min_size=least, max_size=24).map(written)


DELAYS = st.lists(st.integers(0, 9), min_size=1, max_size=24)
"""Numbers of the referrer's own events by which the next events of referees are late."""


def named(events: Iterable[Event], suffix: str) -> list[Event]:
    """Return the same events of other members, under other names."""
    fields = ("member_id", "referrer_id", "event_id")
    return [
        event | {name: f"{value}{suffix}" for name in fields if (value := event.get(name)) is not None}
        for event in events
    ]


def simulated(programme: Programme, events: Iterable[Event], until_ms: int = 0) -> list[Event]:
    """Return the reward events of events that are judged in the order given."""
    lines = [Line("e", number, json.dumps(event).encode()) for number, event in enumerate(events, 1)]
    rewards: list[Event] = simulate_lines(programme, lines, until_ms).document()["reward_events"]
    return rewards


def brought(rewards: Iterable[Event]) -> dict[tuple[str, str], list[tuple[str, str | None, str, str | None, int]]]:
    """Return what each event brought each member: grants and reversals by rule, and refusals by reason.

    Settlements and expiries are left out: they depend on the balance at the time.
    """
    sums: dict[tuple[str, str], dict[tuple[str, str | None, str, str | None], int]] = {}
    for reward in rewards:
        kind = str(reward["type"])
        if kind.endswith((".granted", ".reversed")) or kind == "reward.refused":
            what = (kind, reward["rule_id"], str(reward["unit"]), reward["reason"])
            theirs = sums.setdefault((str(reward["member_id"]), str(reward["event_id"])), {})
            theirs[what] = theirs.get(what, 0) + int(reward["amount"])
    return {place: sorted(((*what, of) for what, of in those.items()), key=str) for place, those in sums.items()}
