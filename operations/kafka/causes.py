"""Find out why Kafka does not do what was asked: a password, a certificate, a right, or a broker that is away.

librdkafka's errors say "Broker transport failure" for nearly all of these. The cause stands in lines that it logs. So
each client gets a logger that remembers the last of them, and shows none unless an operator asks for it.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVEL_HEARD = 6
"""librdkafka's level for the line that a connection was ended: of a wrong protocol nothing else shows."""

PYTHON_LEVELS = (50, 50, 50, 40, 30, 20, 20, 10)
"""The level that confluent-kafka logs by, for each of librdkafka's levels 0 to 7."""

ANSWERED_S = 10.0
LISTEN_S = 0.5
AT_ONCE_MS = 5_000
HEARD_S = 60.0
"""For how long a line counts as the cause: librdkafka repeats the same one every 30 s at most."""

LINE = re.compile(
    r"\]: (?:\w+://)?(?P<at>[^\s/]+)(?:/\w+)?: (?P<reason>.*?)"
    r"(?: \(after (?P<ms>\d+)ms in state (?P<state>\w+)[^)]*\))?$",
    re.DOTALL,
)

WRITTEN_TO = "the topic that is written to"
# Patterns of librdkafka's lines, each with the sentence for a person; {user} is the user in the settings.
MEANINGS = (
    (
        r"Unsupported SASL mechanism.*mechanisms: (?P<offered>.+)",
        "Kafka at {at} does not know the SASL mechanism {mechanism}: set KAFKA__SASL_MECHANISM to one of {offered}",
    ),
    (
        "mechanism handshake failed",
        "Kafka at {at} takes no user and password there ({reason}): correct the port, or KAFKA__SECURITY_PROTOCOL",
    ),
    (
        "SASL|Authentication failed",
        "Kafka at {at} refused the user {user}: {reason}; correct KAFKA__SASL_USERNAME and KAFKA__SASL_PASSWORD",
    ),
    (
        "PLAINTEXT broker listener",
        "Kafka at {at} speaks no TLS there: correct the port, or KAFKA__SECURITY_PROTOCOL",
    ),
    (
        "certificate verify failed|certificate could not be verified|authentication failed.*certificate",
        "the certificate of Kafka at {at} has no authority that is known here: correct KAFKA__SSL_CA_LOCATION",
    ),
    (
        "alert (?P<alert>bad certificate|certificate required|unknown ca|certificate unknown|handshake failure)",
        "Kafka at {at} wants a certificate ({alert}): set KAFKA__SSL_CERTIFICATE_LOCATION and KAFKA__SSL_KEY_LOCATION",
    ),
    ("SSL", "no TLS with Kafka at {at} ({reason}): correct the port, or KAFKA__SSL_…"),
    ("Failed to resolve", "there is no host {host}: correct KAFKA_BOOTSTRAP_SERVERS"),
    (
        "Fatal error: .*(acquire idempotence PID|Cluster authorization failed)",
        "{who} may not write to Kafka: whoever runs Kafka must grant WRITE on " + WRITTEN_TO,
    ),
    (
        "Fatal error: .*Topic authorization failed",
        "{who} may not write to Kafka: whoever runs Kafka must grant WRITE on " + WRITTEN_TO,
    ),
    (
        "^(Connect to|Connection setup|Failed to connect|Socket open)",
        "Kafka is away at {at} since {since} ({reason}): start it by `guerdon up`, or correct KAFKA_BOOTSTRAP_SERVERS",
    ),
)  # fmt: skip
ENDED = "Disconnected|Receive failed|receive 0 after POLLIN"
RIGHTS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic {what}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the group {what}",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster",
}


class _Heard(NamedTuple):
    """Hold the sentence for a line of librdkafka's, and when the line came."""

    at_s: float
    sentence: str


class KafkaCauses:
    """Listen to the lines that one client logs about its brokers, and live as long as the client.

    Args:
        kafka: the client's settings. Sentences show the addresses, the user and the mechanism, and never the password.
    """

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._asked_level = int(kafka.get("log_level", 0))
        self._heard: _Heard | None = None
        self._away_since_s: float | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Return the settings to make the client with: its own, and this object as its logger."""
        return {**self._kafka, "log_level": max(LEVEL_HEARD, self._asked_level), "logger": self}

    @property
    def _who(self) -> str:
        user = self._kafka.get("sasl.username")
        return f"the user {user}" if user else "this client"

    def log(self, level: int, form: str, *words: object) -> None:
        """Take in a line of librdkafka's: confluent-kafka calls this method of its `logger`."""
        text = " ".join((form % words).split())
        self._hear(text)
        if self._asked_level and level >= PYTHON_LEVELS[min(self._asked_level, 7)]:
            if structlog.is_configured():
                structlog.get_logger().info("librdkafka", line=text)
            else:
                print(text, file=sys.stderr)  # noqa: T201  the operator has asked for it

    def _hear(self, text: str) -> None:
        """Remember the sentence for a line, where it has one."""
        line = LINE.search(text)
        reason = line["reason"] if line else text
        for pattern, meaning in MEANINGS:
            match = re.search(pattern, reason)
            if match is not None:
                self._remember(meaning, line, match.groupdict(), reason)
                return

        # a connection that ends just after it began: so brokers answer a client with another protocol
        if line and re.search(ENDED, reason) and int(line["ms"] or 0) < AT_ONCE_MS and self._heard is None:
            self._remember(
                "Kafka at {at} ends connections at once: it wants TLS or a password there, or the port is not Kafka's; "
                "see KAFKA__SECURITY_PROTOCOL",
                line,
                {},
                reason,
            )

    def _remember(self, meaning: str, line: re.Match[str] | None, parts: dict[str, Any], reason: str) -> None:
        at = line["at"] if line else str(self._kafka.get("bootstrap.servers", "its address"))
        if "{since}" in meaning and self._away_since_s is None:
            self._away_since_s = time.time()
        words = {
            "at": at,
            "host": at.rsplit(":", 1)[0],
            "reason": reason,
            "user": self._kafka.get("sasl.username", "without a name"),
            "who": self._who,
            "mechanism": self._kafka.get("sasl.mechanism", self._kafka.get("sasl.mechanisms", "GSSAPI")),
            "since": time.strftime("%H:%M:%SZ", time.gmtime(self._away_since_s)),
            **parts,
        }
        self._heard = _Heard(time.monotonic(), meaning.format(**words))

    def answered(self) -> None:
        """Note that Kafka has answered: earlier lines no longer count."""
        self._heard = None
        self._away_since_s = None

    def listen(self, client: Any) -> None:
        """Let a client that failed, and that is not subscribed, log its lines; that takes a moment."""
        deadline_s = time.monotonic() + LISTEN_S
        while True:
            client.poll(LISTEN_S / 20)
            if self._heard is not None or time.monotonic() > deadline_s:
                return

    def why(self, error: Exception | KafkaError, what: str = "", right: str = "") -> str:
        """Return the cause of `error` in a sentence.

        Args:
            error: librdkafka's error, or an exception that carries it.
            what: the topic or group of the request.
            right: the right that is needed for it, such as READ and DESCRIBE.
        """
        kafka_error = error_of(error)
        code = None if kafka_error is None else kafka_error.code()

        # the error itself names a right, or a line has named the cause, or the error is all there is
        if code in RIGHTS and not (code == KafkaError.CLUSTER_AUTHORIZATION_FAILED and self._heard):
            place = RIGHTS[code].format(what=what) if what else RIGHTS[code].replace(" {what}", "")
            return f"{self._who} has no right to {place} in Kafka: whoever runs it must grant {right or 'it'}"
        if self._heard is not None and time.monotonic() - self._heard.at_s < HEARD_S:
            return self._heard.sentence.replace(WRITTEN_TO, f"the topic {what}" if what else WRITTEN_TO)
        servers = self._kafka.get("bootstrap.servers", "its address")
        words = " ".join((str(error) if kafka_error is None else kafka_error.str()).split())
        return (
            f"Kafka does not answer at {servers} ({words}): start it with `guerdon up`, or correct "
            "KAFKA_BOOTSTRAP_SERVERS"
        )


def error_of(error: Exception | KafkaError) -> KafkaError | None:
    """Return librdkafka's error within an exception."""
    if isinstance(error, KafkaError):
        return error
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0]
    return None


def is_about_access(error: KafkaError) -> bool:
    """Whether an error is about rights, or so general that its cause must be looked for in the log."""
    general = (KafkaError._FATAL, KafkaError._TRANSPORT, KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE)  # noqa: SLF001  public, though named so
    return error.code() in RIGHTS or error.code() in general


def refuse_hidden(client: Any, causes: KafkaCauses, topics: list[str], right: str) -> None:
    """Refuse topics that are not missing but hidden: Kafka does not list a topic that the user may not describe.

    Raises:
        InputError: a topic is hidden; the sentence names the right.
    """
    for topic in topics:
        error = client.list_topics(topic, timeout=ANSWERED_S).topics[topic].error
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise InputError(causes.why(error, topic, right))
