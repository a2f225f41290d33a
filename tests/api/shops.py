"""Serve a small shop of a test's own, with topics, and let its members have points."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from operations.setup.initialise import create_topics
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable

    from operations.settings import Settings
    from tests.api.conftest import Api

PROGRAMME = """\
schema: guerdon/1
programme: shop
timezone: Europe/Berlin
currency: EUR
rules:
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
points: {validity: 90d}
reserve_for: 3d
catalogue:
- {id: mug, points: 120, kind: gift, stock: 2}
- {id: tea, points: 10, kind: coupon}
- {id: pay, kind: money, points_per: {10: 0.10}}
"""
_NOW = datetime.now(UTC).replace(microsecond=0)
BOUGHT_AT, AT = ((_NOW - timedelta(minutes=ago)).isoformat().replace("+00:00", "Z") for ago in (10, 5))
"""When members buy and redeem: a little ago, as the clock of a running worker makes what is older lapse."""


def served(settings: Settings, serving: Callable[..., Api], **more: Any) -> Api:
    """Return the API of an empty shop with topics, whose workers use these settings."""
    create_topics(settings, 2)
    activate(settings.database_url, PROGRAMME)
    return serving(
        settings.database_url, bootstrap_servers=settings.bootstrap_servers, topic_prefix=settings.topic_prefix,
        group_id=settings.group_id, **more,
    )  # fmt: skip


def buys(api: Api, member_id: str, euros: int) -> None:
    """Let a member buy for an amount, and so earn as many points."""
    order = {
        "type": "purchase", "event_id": f"p-{member_id}", "member_id": member_id, "occurred_at": BOUGHT_AT,
        "order_id": f"o-{member_id}", "currency": "EUR", "amount": euros * 100,
    }  # fmt: skip
    response = api.call("POST", "/v1/events", json={"events": [order]})
    assert response.status_code == 202, response.text


def redeem(api: Api, key: str | None, action: str, redemption_id: str, wait_s: int = 10, **fields: Any) -> Any:
    """Send a redemption of ann's, or another member's, under a key."""
    body = {"action": action, "redemption_id": redemption_id, "member_id": "ann", "occurred_at": AT, **fields}
    headers = {"Prefer": f"wait={wait_s}"} | ({} if key is None else {"Idempotency-Key": key})
    return api.call("POST", "/v1/redemptions", json=body, headers=headers)
