"""List the settings of librdkafka that exactly-once rests on, and those that Guerdon takes under another name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CONSUMER = {
    "enable.auto.commit": "false",  # positions are in PostgreSQL, in the transaction that takes the events
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",  # never to begin elsewhere in silence
    "enable.partition.eof": "true",  # how a partition is known to be at its end, behind transaction markers too
    "isolation.level": "read_committed",  # what was aborted never happened
    "allow.auto.create.topics": "false",  # a misspelt prefix must not make empty topics
}
"""The settings of the worker's consumer. Where an operator sets another value, this one stays and the worker says so.
"""

ASSIGNMENT = {"classic": "partition.assignment.strategy", "consumer": "group.remote.assignor"}
"""The setting that divides the partitions, by group protocol: always `range`, as one number of all topics belongs
together."""

PRODUCER = {
    "partitioner": "murmur2_random",  # the shard's own hash: with 1, 2, 4 … 64 partitions a shard lies in one
    "enable.idempotence": "true",
    "acks": "all",
    # a message that is given up while the next one arrives would be a hole that no repetition fills: followers drop
    # positions below the last one that they have seen
    "enable.gapless.guarantee": "true",
    "message.timeout.ms": "0",
}
"""The settings of the producer of reward events."""

ELSEWHERE = {
    "group.id": "GUERDON_GROUP_ID",
    "group.protocol": "GUERDON_GROUP_PROTOCOL",
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
}
"""Settings that Guerdon takes by a name of its own, which counts."""

_SAME = {"-1": "all", "1": "true", "0": "false"}


def of_consumer(group_id: str, group_protocol: str) -> dict[str, str]:
    """Return the consumer's fixed settings."""
    return {
        **CONSUMER,
        "group.id": group_id,
        "group.protocol": group_protocol,
        ASSIGNMENT[group_protocol]: "range",
    }


def overruled(settings: Mapping[str, str], group_protocol: str) -> list[str]:
    """Return a sentence for each setting of an operator's that is not taken."""
    fixed = {**CONSUMER, **PRODUCER, ASSIGNMENT[group_protocol]: "range"}
    sentences = []
    for name, value in sorted(settings.items()):
        if name in ELSEWHERE:
            sentences.append(f"Kafka's setting {name} is not taken from KAFKA__… or [kafka]: use {ELSEWHERE[name]}")
        elif name in fixed and not _is_same(name, value, fixed[name]):
            sentences.append(
                f"Kafka's setting {name} stays {fixed[name]}, as exactly-once rests on it: {value} is not taken; "
                f"leave {name} out of KAFKA__… and [kafka]"
            )
    return sentences


def _is_same(name: str, value: str, fixed: str) -> bool:
    plain = value.strip().lower()
    return plain == fixed or (_SAME.get(plain) == fixed and (name == "acks" or plain != "-1"))
