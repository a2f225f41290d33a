"""Prepare the topics, tables and schemas for the worker. Each step leaves alone what exists already."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from engine.store.database import migrate
from operations.kafka.causes import KafkaCauses
from operations.kafka.cleanup_policies import compacted
from operations.kafka.ends import Ends
from operations.kafka.places import claim
from schemas.errors import ServiceUnreachable
from schemas.events import TOPIC_TYPES
from schemas.registry import register_all, registry_client
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    from operations.settings import Settings

OUTPUT_TOPIC = "reward-events"
ADMIN_TIMEOUT_S = 15.0


def initialise(settings: Settings, partitions: int) -> dict[str, object]:
    """Create topics with `partitions` each, migrate the database, register the schemas; return each step's result.

    Raises:
        InputError: the database reads other topics, or another cluster, than the settings name.
        ServiceUnreachable: Kafka, PostgreSQL or the registry does not answer.
    """
    done: dict[str, object] = {"database": f"at revision {migrate(settings.database_url)}"}
    with closing(Ends(settings.kafka_config(), ADMIN_TIMEOUT_S)) as ends:
        claim(settings, ends)
        done["topics"] = create_topics(settings, partitions)
        done["schemas"] = register_schemas(settings)
        topics = [settings.topic_prefix + name for name in TOPIC_TYPES]
        with suppress(KafkaException):  # a user who may not see the topics' configuration
            if sentences := compacted(ends.client(), topics, settings.bootstrap_servers):
                done["warning"] = "; ".join(sentences)
    return done


def create_topics(settings: Settings, partitions: int) -> str:
    """Create the topics that are missing, with the broker's own replication factor; return a sentence on it."""
    causes = KafkaCauses(settings.kafka_config())
    admin = AdminClient(causes.config)
    wanted = [settings.topic_prefix + name for name in (*TOPIC_TYPES, OUTPUT_TOPIC)]
    futures = admin.create_topics(
        [NewTopic(topic, num_partitions=partitions, replication_factor=-1) for topic in wanted],
        request_timeout=ADMIN_TIMEOUT_S,
    )

    created = 0
    for topic, future in futures.items():
        try:
            future.result()
            created += 1
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                causes.listen(admin)
                why = causes.why(error, topic, "CREATE on the topic, or make the topic itself")
                raise ServiceUnreachable(f"Kafka would not create the topic {topic}: {why}") from error
    return f"{created} created, {len(wanted) - created} there already"


def register_schemas(settings: Settings) -> str:
    """Register the schemas where there is a registry; return a sentence on it."""
    if settings.registry_url is None:
        return f"{len(committed_ids())} from the committed table (no registry is set)"
    return f"{len(register_all(registry_client(settings.registry_url), settings.registry_url))} registered"
