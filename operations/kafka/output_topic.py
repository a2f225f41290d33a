"""Ask the brokers for the id of the topic of reward events: a topic that is made again gets another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    import threading

    from confluent_kafka.admin import AdminClient

TIMEOUT_S = 10.0
LOOK_S = 0.2
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # the answer of brokers that give topics no ids


def topic_id(admin: AdminClient, topic: str, stop: threading.Event | None = None) -> str | None:
    """Return the id that the cluster gave `topic` when it was made; None where it gives none.

    The caller must hold `admin` in a variable meanwhile: the answer dies with it.

    Raises:
        InputError: there is no such topic.
        ServiceUnreachable: Kafka does not answer, or `stop` was set meanwhile.
    """
    future = admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_S)[topic]
    while True:
        try:
            identifier = str(future.result(LOOK_S).topic_id)
        except TimeoutError:
            if stop is not None and stop.is_set():
                raise ServiceUnreachable(f"Kafka did not say before the stop which making of {topic} this is") from None
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise missing(topic) from error
            raise ServiceUnreachable(
                f"Kafka does not answer ({error.args[0].str()}); start it with `guerdon up` or correct "
                "KAFKA_BOOTSTRAP_SERVERS"
            ) from error
        else:
            return None if identifier == _NO_ID else identifier


def missing(topic: str) -> InputError:
    """Return the error for a topic that does not exist."""
    return InputError(f"Kafka has no topic {topic}; run `guerdon init` to create it, or set `publish_rewards = false`")
