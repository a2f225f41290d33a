"""The end of the topic is read where the brokers allow it, and where they do not, that is said and nothing stops."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import admin as kafka_admin
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from consumers.output.topic_tail import NotAllowed, TailReader
from operations.services import kafka as local_kafka
from operations.services.kafka import LocalKafka
from operations.setup.initialise import OUTPUT_TOPIC
from tests.consumers.output.follower import assert_followed
from tests.consumers.output.test_publisher import log, rounds
from tests.system.load import activate, make_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.settings import Settings
    from tests.services.servers import Servers

pytestmark = pytest.mark.kafka

WITH_RIGHTS = (
    local_kafka.PROPERTIES
    + """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""
)


@pytest.fixture
def strict(settings: Settings, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Return settings of a broker on which a topic that has rights gives no others."""
    monkeypatch.setattr(local_kafka, "PROPERTIES", WITH_RIGHTS)
    with servers.own(LocalKafka) as service:
        own = settings.model_copy(update={"kafka_bootstrap_servers": service.address})
        make_topics(own, 4)
        activate(own.database_url)
        yield own


def allow(settings: Settings, *operations: str) -> None:
    """Give everybody these rights on the topic of reward events."""
    kafka: Any = kafka_admin  # what it offers is not all in its type hints
    admin = AdminClient({**settings.kafka_config()})
    topic = settings.topic_prefix + OUTPUT_TOPIC
    for name in operations:
        binding = kafka.AclBinding(
            kafka.ResourceType.TOPIC, topic, kafka.ResourcePatternType.LITERAL, "User:ANONYMOUS", "*",
            kafka.AclOperation[name], kafka.AclPermissionType.ALLOW,
        )  # fmt: skip
        for done in admin.create_acls([binding]).values():
            done.result(20)


def test_without_the_right_to_read_its_topic_a_worker_says_so_and_publishes(strict: Settings) -> None:
    allow(strict, "WRITE", "DESCRIBE")
    reader = TailReader(strict.kafka_config(), strict.group_id, strict.topic_prefix + OUTPUT_TOPIC, b"")
    with pytest.raises(NotAllowed):
        reader.read(4, threading.Event(), lambda: None)
    log(strict, 0, 10)
    with capture_logs() as said:
        assert rounds(strict) == 20
    lines = [line for line in said if line["event"] == "topic not compared"]
    assert lines
    assert "grant READ on it" in lines[0]["why"]
    allow(strict, "READ")
    assert_followed(strict)
