"""Follow the topic of reward events as docs/reward-events.md tells to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import gcd
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from engine.store.database import transaction
from operations.rows import dictionaries, plain
from operations.setup.initialise import OUTPUT_TOPIC
from schemas.partitioning import SHARDS, murmur2
from tests.places import DOCS

if TYPE_CHECKING:
    from confluent_kafka import Message

    from operations.settings import Settings

GUIDE = DOCS / "reward-events.md"
Place = tuple[int, int]


@dataclass(slots=True)
class Followed:
    """Hold what a follower keeps, and the places (shard, pos) of all events that came, repetitions included."""

    kept: dict[int, tuple[tuple[str, int], dict[int, dict[str, Any]]]] = field(default_factory=dict)
    came: list[Place] = field(default_factory=list)
    order: list[tuple[Any, ...]] = field(default_factory=list)
    beginnings: list[Place] = field(default_factory=list)
    incarnations: set[str] = field(default_factory=set)
    generations: set[int] = field(default_factory=set)
    schema_ids: set[int] = field(default_factory=set)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return what is kept, by shard and position."""
        return [events[pos] for _, (_, events) in sorted(self.kept.items()) for pos in sorted(events)]


def guide() -> dict[str, Any]:
    """Run the guide's lines, and return what they define."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    path = GUIDE.parents[1] / "schemas/avro/reward_event.avsc"
    names: dict[str, Any] = {}
    exec(code.replace('"schemas/avro/reward_event.avsc"', repr(str(path))), names)  # noqa: S102  the lines are ours
    return names


def follow(settings: Settings, followed: Followed | None = None) -> Followed:
    """Read the topic from its beginning to its end, with what was kept of it before, if anything."""
    topic = settings.topic_prefix + OUTPUT_TOPIC
    consumer = Consumer(
        {**settings.kafka_config(), "group.id": f"{settings.group_id}-follower", "enable.partition.eof": True}
    )
    partitions = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    take, left, followed = guide()["take"], set(partitions), followed or Followed()
    while left:
        message = consumer.poll(10)
        assert message is not None, "the broker delivers nothing"
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error  # noqa: SLF001  its public name begins so
            left.discard(message.partition())
            continue
        take(message, followed.kept)
        _check(message, len(partitions), followed)
    consumer.close()
    return followed


def _check(message: Message, partitions: int, followed: Followed) -> None:
    """Note a message, and hold its key, partition and headers to say the same as its event."""
    key, value, headers = message.key(), message.value(), dict(message.headers() or [])
    assert list(headers) == ["incarnation", "generation", "shard", "pos"]
    incarnation = headers["incarnation"]
    assert isinstance(incarnation, bytes)
    assert re.fullmatch(rb"|\d{25}", incarnation), "followers of earlier releases read every header as a number"
    followed.incarnations.add(incarnation.decode())
    followed.generations.add(int(headers["generation"] or 0))
    place = int(headers["shard"] or 0), int(headers["pos"] or 0)
    if value is None:
        assert key == b""
        assert (message.partition() or 0) % gcd(partitions, SHARDS) == place[0] % gcd(partitions, SHARDS)
        followed.beginnings.append(place)
        return
    assert key is not None
    followed.schema_ids.add(int.from_bytes(value[1:5]))
    followed.came.append(place)
    followed.order.append((incarnation, headers["generation"], message.partition(), *place))
    assert message.partition() == (murmur2(key) & 0x7FFFFFFF) % partitions, "not as Kafka's default partitioner"
    edition, events = followed.kept[place[0]]
    if edition == (incarnation.decode(), int(headers["generation"] or 0)):
        event = events[place[1]]
        assert (event["shard"], event["pos"], event["member_id"].encode()) == (*place, key)


def logged(settings: Settings) -> list[dict[str, Any]]:
    """Return what the view of reward events holds, by shard, in order."""
    with transaction(settings.database_url) as cursor:
        return dictionaries(cursor, "SELECT * FROM guerdon.identified_reward_event ORDER BY shard, pos")


def assert_followed(settings: Settings, followed: Followed | None = None) -> Followed:
    """Hold the topic, followed, to be the view row by row and in order, and return what came.

    With what was kept before by a follower who goes on, it must be the view as well.
    """
    followed = follow(settings, followed)
    assert_in_order(followed)
    got = list(map(_plain, followed.events))
    wanted = logged(settings)
    for ours, theirs in zip(got, wanted, strict=False):
        assert ours == theirs
    assert len(got) == len(wanted), "reward events are missing in the topic, or too many"
    return followed


def assert_in_order(followed: Followed) -> None:
    """Hold every position to have come first after the lesser ones of its shard, in its partition and edition."""
    seen: dict[tuple[Any, ...], set[int]] = {}
    for *where, pos in followed.order:
        before = seen.setdefault(tuple(where), set())
        assert pos in before or pos > max(before, default=0), f"{where}: {pos} came after {max(before)}"
        before.add(pos)


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in event.items()}
