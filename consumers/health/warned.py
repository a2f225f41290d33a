"""Warn an operator of settings and topics that are not as they look, before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaException

from consumers.source.fixed import overruled
from operations.kafka.cleanup_policies import compacted

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from operations.settings import Settings

log = structlog.get_logger()


def warn(settings: Settings, client: AdminClient, topics: list[str]) -> None:
    """Warn of settings that are not taken, and of topics that Kafka compacts, as `client` finds out."""
    for sentence in overruled(settings.kafka, settings.group_protocol):
        log.warning("setting stays", why=sentence)
    try:
        for sentence in compacted(client, topics, settings.bootstrap_servers):
            log.warning("topic is compacted", why=sentence)
    except KafkaException as error:
        log.info("cleanup policy unknown", why=error.args[0].str())
