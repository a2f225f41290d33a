"""Follow the topic of reward events as docs/reward-events.md tells to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from engine.store.database import transaction
from operations.initialise import OUTPUT_TOPIC
from operations.rows import dictionaries, plain
from schemas.partitioning import murmur2

if TYPE_CHECKING:
    from confluent_kafka import Message

    from operations.settings import Settings

GUIDE = Path(__file__).parents[1] / "docs" / "reward-events.md"
Place = tuple[int, int]


@dataclass(slots=True)
class Followed:
    """Hold what a follower took, and the places (shard, pos) of everything that came, repetitions included."""

    events: list[dict[str, Any]] = field(default_factory=list)
    came: list[Place] = field(default_factory=list)
    generations: set[int] = field(default_factory=set)
    schema_ids: set[int] = field(default_factory=set)


def guide() -> dict[str, Any]:
    """Run the guide's lines, and return what they define."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    path = GUIDE.parents[1] / "schemas/avro/reward_event.avsc"
    names: dict[str, Any] = {}
    exec(code.replace('"schemas/avro/reward_event.avsc"', repr(str(path))), names)  # noqa: S102  the lines are ours
    return names


def follow(settings: Settings) -> Followed:
    """Read the topic from its beginning to its end."""
    topic = settings.topic_prefix + OUTPUT_TOPIC
    consumer = Consumer(
        {**settings.kafka_config(), "group.id": f"{settings.group_id}-follower", "enable.partition.eof": True}
    )
    partitions = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    fresh, left, followed = guide()["fresh"], set(partitions), Followed()
    last: dict[tuple[int, int, int], int] = {}
    while left:
        message = consumer.poll(10)
        assert message is not None, "the broker delivers nothing"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error  # noqa: SLF001  its public name begins so
            left.discard(message.partition())
            continue
        _take(message, fresh(message, last), len(partitions), followed)
    consumer.close()
    return followed


def _take(message: Message, event: dict[str, Any] | None, partitions: int, followed: Followed) -> None:
    key, value, headers = message.key(), message.value(), dict(message.headers() or [])
    assert key is not None
    assert value is not None
    followed.schema_ids.add(int.from_bytes(value[1:5]))
    place = int(headers["shard"] or 0), int(headers["pos"] or 0)
    followed.came.append(place)
    followed.generations.add(int(headers["generation"] or 0))
    assert message.partition() == (murmur2(key) & 0x7FFFFFFF) % partitions, "not as Kafka's default partitioner"
    if event is not None:
        assert (event["shard"], event["pos"], event["member_id"].encode()) == (*place, key)
        followed.events.append(event)


def logged(settings: Settings) -> list[dict[str, Any]]:
    """Return what the view of reward events holds, by shard, in order."""
    with transaction(settings.database_url) as cursor:
        return dictionaries(cursor, "SELECT * FROM reward.reward_event ORDER BY shard, pos")


def assert_followed(settings: Settings) -> Followed:
    """Hold the topic, followed, to be the view row by row, and return what came.

    The guide's lines drop what stands before the last position seen in its partition and shard: whatever came out of
    order would be missing here.
    """
    followed = follow(settings)
    got = sorted(map(_plain, followed.events), key=lambda event: (event["shard"], event["pos"]))
    wanted = logged(settings)
    for ours, theirs in zip(got, wanted, strict=False):
        assert ours == theirs
    assert len(got) == len(wanted), "reward events are missing in the topic, or too many"
    return followed


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in event.items()}
