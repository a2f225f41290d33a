"""Show how far each partition was taken, and set it anew where the broker lost what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from engine.store import offsets
from engine.store.database import transaction
from operations.kafka_causes import KafkaCauses
from operations.rows import dictionaries
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operations.settings import Settings

TIMEOUT_S = 10.0


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Return each partition's position, what became of its offsets, its lag, and why it is stopped if it is."""
    with transaction(settings.database_url) as cursor:
        rows = dictionaries(
            cursor,
            """
            SELECT topic, partition, next_offset, accepted, duplicate, quarantined, passed, high_at, stopped
            FROM guerdon.consumer_offset ORDER BY topic, partition
            """,
        )
    ends = _ends(settings, [(row["topic"], row["partition"]) for row in rows])
    for row in rows:
        row["lag"] = max(0, ends[row["topic"], row["partition"]][1] - row["next_offset"])
    return rows


def reset(settings: Settings, topic: str, why: str) -> list[dict[str, Any]]:
    """Read the stopped partitions of `topic` on from the first offset that the broker still has.

    What was deleted before it was read is lost to Guerdon; the reason is kept beside the topic for who asks later. The
    same events met again count once, as everywhere.

    Raises:
        InputError: no partition of `topic` is stopped.
    """
    with transaction(settings.database_url) as cursor:
        stopped = dictionaries(
            cursor,
            """
            SELECT partition, next_offset, stopped FROM guerdon.consumer_offset
            WHERE topic = %s AND stopped IS NOT NULL ORDER BY partition FOR UPDATE
            """,
            (topic,),
        )
        if not stopped:
            raise InputError(f"no partition of {topic} is stopped; `guerdon offsets list` shows all")
        ends = _ends(settings, [(topic, row["partition"]) for row in stopped])
        identifier = topic_ids(settings.kafka_config(), [topic])[topic]
        for row in stopped:
            low, _ = ends[topic, row["partition"]]
            offsets.begin_again(cursor, (topic, row["partition"]), low, f"{why} (was {row['next_offset']})")
            row["continues_at"] = low
        offsets.keep_topic_id(cursor, topic, identifier)
    return stopped


def topic_ids(kafka: Mapping[str, Any], topics: list[str]) -> dict[str, str]:
    """Return the id that the cluster gave each topic when it was made: one made anew has another."""
    admin = AdminClient({"log_level": 0, **kafka})  # held by name: the answers die with it
    described = admin.describe_topics(TopicCollection(topics), request_timeout=TIMEOUT_S)
    return {topic: str(future.result().topic_id) for topic, future in described.items()}


def _ends(settings: Settings, partitions: list[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    causes = KafkaCauses({**settings.kafka_config(), "group.id": f"{settings.group_id}-status"})
    consumer = Consumer(causes.config)
    try:
        return {each: consumer.get_watermark_offsets(TopicPartition(*each), timeout=TIMEOUT_S) for each in partitions}
    except KafkaException as error:
        causes.listen(consumer)
        raise ServiceUnreachable(causes.why(error, right="DESCRIBE on the topics")) from error
    finally:
        consumer.close()
