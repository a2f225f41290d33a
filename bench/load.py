"""Make the load: purchases like a shop's, the same for every round."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from operations.intake.producer import encoder_for
from operations.intake.publish import publish_events
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.settings import Settings

PROGRAMME = """\
schema: guerdon/1
programme: bench
timezone: America/New_York
currency: USD
rules:
- id: base
  on: purchase
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]
  limits: [{max: 500, per: member, every: day}]
- id: big-basket
  on: purchase
  when: {purchase.amount: {gte: 50.00}}
  give: [{points: 25}]
- id: app-boost
  on: purchase
  when: {purchase.channel: [app, web], purchase.amount: {gte: 20.00, lt: 50.00}}
  give: [{points: 5}]
"""
"""Three rules; each of the events below gives 1.7 reward events on average."""

FIRST_AT_MS = 1_700_000_000_000
STEP_MS = 50


def purchases(count: int, members: int, prefix: str = "e") -> Iterator[Purchase]:
    """Yield `count` purchases of `members` members in the order of their times, the same ones each time."""
    chance = random.Random(7)  # noqa: S311  a load, not a secret
    for number in range(count):
        yield Purchase(
            event_id=f"{prefix}{number}",
            member_id=f"member-{chance.randrange(members):06d}",
            occurred_at=FIRST_AT_MS + number * STEP_MS,
            order_id=f"order-{prefix}{number}",
            currency="USD",
            amount=chance.randrange(500, 9_000),
            channel=chance.choice(("app", "web", "store")),
            store="s-17",
        )


def publish(settings: Settings, count: int, members: int) -> float:
    """Publish the load, and return the rate of publishing in events per second."""
    start_s = time.perf_counter()
    publish_events(
        settings.kafka_config(), encoder_for(None), purchases(count, members), topic_prefix=settings.topic_prefix
    )
    return count / (time.perf_counter() - start_s)
