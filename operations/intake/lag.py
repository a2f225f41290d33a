"""Measure how far the worker, the topic of reward events and the projections are behind."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from engine.store.database import transaction
from engine.store.kafka import publication
from operations.intake import offsets
from operations.kafka import reward_events
from operations.kafka.cleanup_policies import compacted
from operations.kafka.ends import Ends
from operations.kafka.places import compare_place
from operations.rows import dictionaries
from operations.setup.initialise import OUTPUT_TOPIC
from schemas.errors import InputError
from schemas.events import TOPIC_TYPES

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from operations.settings import Settings

OFF = "off, as the setting `facts` says: they are folded when it is true again"
"""Stands in place of what the facts wait for."""


def lag_rows(settings: Settings) -> list[dict[str, Any]]:
    """Return how far each topic and each projection is behind, and why it is stopped if it is.

    The topic of reward events is among them. `held` counts events behind a transaction that is open since
    `held_since`: they are no part of the lag, as the broker does not deliver them.
    """
    # the input topics
    topics: dict[str, dict[str, Any]] = {}
    read = {settings.topic_prefix + name for name in TOPIC_TYPES}
    for row in offsets.listed(settings):
        if row["lag"] is None or row["topic"] not in read:
            continue  # a topic that is gone, or was read before the topics moved: `offsets list` has them
        topic = topics.setdefault(
            row["topic"], {"what": row["topic"], "lag": 0, "held": 0, "unit": "events", "held_since": "", "stopped": ""}
        )
        topic["lag"] += row["lag"]
        topic["held"] += row["held"]
        topic["held_since"] = min(filter(None, (topic["held_since"], row["held_since"])), default="")
        topic["stopped"] = topic["stopped"] or row["stopped"] or ""

    # the projections and the topic of reward events
    with transaction(settings.database_url) as cursor:
        projections = dictionaries(
            cursor,
            """
            SELECT f.projection AS what, f.lag, 0 AS held, f.log || ' events' AS unit, '' AS held_since,
                   concat_ws('; ', g.set_aside || ' set aside: `guerdon projection verify ' || f.projection || '`',
                             CASE WHEN f.projection = 'facts' THEN %s END) AS stopped
            FROM (SELECT projection, log, sum(lag)::bigint AS lag FROM reward.freshness GROUP BY projection, log) f
            LEFT JOIN (
                SELECT b.projection, count(*) AS set_aside
                FROM guerdon.projection_gap JOIN guerdon.live_build b USING (build) GROUP BY b.projection
            ) g USING (projection)
            ORDER BY f.projection
            """,
            (_facts_wait(settings, cursor),),
        )
        output = _output(settings, cursor) if settings.publish_rewards else []
    return [*topics.values(), *output, *projections]


def _facts_wait(settings: Settings, cursor: Cursor) -> str | None:
    """Return what the facts wait for, by the worker that said it last, or that they are off; None where they go on."""
    if not settings.facts:
        return OFF
    cursor.execute("SELECT facts_wait FROM guerdon.worker ORDER BY seen_at DESC LIMIT 1")
    row = cursor.fetchone()
    return None if row is None else row[0]


def _output(settings: Settings, cursor: Cursor) -> list[dict[str, Any]]:
    topic = settings.topic_prefix + OUTPUT_TOPIC
    row = {"what": topic, "lag": publication.lag(cursor), "held": 0, "unit": "reward events"}
    return [row | {"held_since": "", "stopped": reward_events.why_stopped(settings, cursor)}]


def remarks(settings: Settings) -> list[str]:
    """Return a sentence for each fact about the topics that an operator should know and that lag does not show."""
    topics = [settings.topic_prefix + topic for topic in TOPIC_TYPES]
    sentences = []
    with closing(Ends(settings.kafka_config())) as ends:
        with suppress(KafkaException):  # this user may not see the topics' configuration, or they are not there yet
            sentences += compacted(ends.client(), topics, settings.bootstrap_servers)
        try:
            compare_place(settings, ends)
        except InputError as error:
            sentences.append(str(error))
    return sentences
