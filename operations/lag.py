"""Measure how far the worker and the projections are behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.database import transaction
from operations import offsets
from operations.rows import dictionaries

if TYPE_CHECKING:
    from operations.settings import Settings


def lag_rows(settings: Settings) -> list[dict[str, Any]]:
    """Return a row a topic and a row a projection: what it is, how far behind, and why it is stopped if it is."""
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
    return [*topics.values(), *projections]
