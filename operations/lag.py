"""Measure how far the worker, the topic of reward events and the projections are behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store import publication
from engine.store.database import transaction
from operations import offsets, reward_events
from operations.initialise import OUTPUT_TOPIC
from operations.rows import dictionaries

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from operations.settings import Settings


def lag_rows(settings: Settings) -> list[dict[str, Any]]:
    """Return a row a topic, also that of reward events, and a row a projection: how far behind, and why if stopped."""
    topics: dict[str, dict[str, Any]] = {}
    for row in offsets.listed(settings):
        topic = topics.setdefault(row["topic"], {"what": row["topic"], "lag": 0, "unit": "events", "stopped": ""})
        topic["lag"] += row["lag"]
        topic["stopped"] = topic["stopped"] or row["stopped"] or ""
    with transaction(settings.database_url) as cursor:
        projections = dictionaries(
            cursor,
            """
            SELECT projection AS what, sum(lag)::bigint AS lag, 'reward events' AS unit, '' AS stopped
            FROM reward.freshness GROUP BY projection ORDER BY projection
            """,
        )
        output = _output(settings, cursor) if settings.publish_rewards else []
    return [*topics.values(), *output, *projections]


def _output(settings: Settings, cursor: Cursor) -> list[dict[str, Any]]:
    topic = settings.topic_prefix + OUTPUT_TOPIC
    why = reward_events.stopped_why(settings, cursor)
    return [{"what": topic, "lag": publication.lag(cursor), "unit": "reward events", "stopped": why}]
