"""Notice topics that Kafka compacts: as the member is the key, it deletes all events of a member but the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined]  # public, though not listed

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

ANSWERED_S = 5.0


def compacted(admin: AdminClient, topics: list[str], servers: str = "…") -> list[str]:
    """Return a sentence for each of `topics` that is compacted.

    Raises:
        KafkaException: Kafka does not answer, or this user may not see the topics' configuration.
    """
    wanted = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    sentences = []
    for resource, future in admin.describe_configs(wanted, request_timeout=ANSWERED_S).items():
        policy = future.result().get("cleanup.policy")
        if policy is not None and "compact" in str(policy.value):
            sentences.append(
                f"the topic {resource.name} has cleanup.policy={policy.value}: Kafka deletes events of it before or "
                "after they are read; run `kafka-configs.sh --bootstrap-server "
                f"{servers} --alter --topic {resource.name} --add-config cleanup.policy=delete`"
            )
    return sentences
