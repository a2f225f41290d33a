"""Tell by its cause why Kafka does not do what was asked: a password, a certificate, a right, or a broker that is away.

librdkafka's errors say "Broker transport failure" for nearly all of them. What the matter is stands in lines that it
logs, so each client is made with a logger that keeps the last of them; nothing of it reaches the screen unasked.
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
"""librdkafka's level at which it says that a connection was ended, which is all that a wrong protocol looks like."""

PYTHON_LEVELS = (50, 50, 50, 40, 30, 20, 20, 10)
"""What confluent-kafka makes of librdkafka's levels 0 to 7."""

ANSWERED_S = 10.0
LISTEN_S = 0.5
AT_ONCE_MS = 5_000
HEARD_S = 60.0
"""For how long a line tells why something fails: librdkafka repeats the same one every 30 s at most."""

LINE = re.compile(
    r"\]: (?:\w+://)?(?P<at>[^\s/]+)(?:/\w+)?: (?P<reason>.*?)"
    r"(?: \(after (?P<ms>\d+)ms in state (?P<state>\w+)[^)]*\))?$",
    re.DOTALL,
)

WRITTEN_TO = "the topic that is written to"
# What a line of librdkafka's says, and the sentence that tells a person; {user} is the one who was given.
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
    """Keep what librdkafka said: when, and the sentence that it comes to."""

    at_s: float
    sentence: str


class KafkaCauses:
    """Listen to what one client says of its brokers. Keep it as long as the client.

    Args:
        kafka: what the client is made with. Of it the addresses, the user and the mechanism appear in sentences, and
            never the password.
    """

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._asked_level = int(kafka.get("log_level", 0))
        self._heard: _Heard | None = None
        self._away_since_s: float | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Return what to make the client with, the listening included."""
        return {**self._kafka, "log_level": max(LEVEL_HEARD, self._asked_level), "logger": self}

    @property
    def _who(self) -> str:
        user = self._kafka.get("sasl.username")
        return f"the user {user}" if user else "this client"

    def log(self, level: int, form: str, *words: object) -> None:
        """Take in a line of librdkafka's; it is the `logger` that the client knows."""
        text = " ".join((form % words).split())
        self._hear(text)
        if self._asked_level and level >= PYTHON_LEVELS[min(self._asked_level, 7)]:
            if structlog.is_configured():
                structlog.get_logger().info("librdkafka", line=text)
            else:
                print(text, file=sys.stderr)  # noqa: T201  the operator has asked for it

    def _hear(self, text: str) -> None:
        found = LINE.search(text)
        reason = found["reason"] if found else text
        for pattern, meaning in MEANINGS:
            said = re.search(pattern, reason if found else text)
            if said is not None:
                self._keep(meaning, found, said.groupdict(), reason)
                return
        # ended at once, where a connection had only begun: so brokers answer who speaks another protocol
        if found and re.search(ENDED, reason) and int(found["ms"] or 0) < AT_ONCE_MS and self._heard is None:
            self._keep(
                "Kafka at {at} ends connections at once: it wants TLS or a password there, or the port is not Kafka's; "
                "see KAFKA__SECURITY_PROTOCOL",
                found,
                {},
                reason,
            )

    def _keep(self, meaning: str, found: re.Match[str] | None, said: dict[str, Any], reason: str) -> None:
        at = found["at"] if found else str(self._kafka.get("bootstrap.servers", "its address"))
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
            **said,
        }
        self._heard = _Heard(time.monotonic(), meaning.format(**words))

    def answered(self) -> None:
        """Note that Kafka has answered: what was heard before is of yesterday."""
        self._heard = None
        self._away_since_s = None

    def listen(self, client: Any) -> None:
        """Let a client that failed and is not subscribed hand over what it has to say; that takes it a moment."""
        deadline_s = time.monotonic() + LISTEN_S
        while True:
            client.poll(LISTEN_S / 20)
            if self._heard is not None or time.monotonic() > deadline_s:
                return

    def why(self, error: Exception | KafkaError, what: str = "", right: str = "") -> str:
        """Return in a sentence why `error` came about.

        Args:
            error: of librdkafka's, or an exception that carries it.
            what: the topic or group that was asked for.
            right: what one needs there, such as READ and DESCRIBE.
        """
        kafka_error = error_of(error)
        code = None if kafka_error is None else kafka_error.code()
        if code in RIGHTS and not (code == KafkaError.CLUSTER_AUTHORIZATION_FAILED and self._heard):
            place = RIGHTS[code].format(what=what) if what else RIGHTS[code].replace(" {what}", "")
            return f"{self._who} has no right to {place} in Kafka: whoever runs it must grant {right or 'it'}"
        if self._heard is not None and time.monotonic() - self._heard.at_s < HEARD_S:
            return self._heard.sentence.replace(WRITTEN_TO, f"the topic {what}" if what else WRITTEN_TO)
        servers = self._kafka.get("bootstrap.servers", "its address")
        told = " ".join((str(error) if kafka_error is None else kafka_error.str()).split())
        return (
            f"Kafka does not answer at {servers} ({told}): start it with `guerdon up`, or correct "
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
    """Whether an error is about rights, or so general that its cause stands elsewhere."""
    general = (KafkaError._FATAL, KafkaError._TRANSPORT, KafkaError._MSG_TIMED_OUT, KafkaError._PURGE_QUEUE)  # noqa: SLF001  public, though named so
    return error.code() in RIGHTS or error.code() in general


def refuse_hidden(client: Any, causes: KafkaCauses, topics: list[str], right: str) -> None:
    """Refuse topics that are not missing but hidden: Kafka lists none that the user may not describe.

    Raises:
        InputError: it names the right that is missing.
    """
    for topic in topics:
        error = client.list_topics(topic, timeout=ANSWERED_S).topics[topic].error
        if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise InputError(causes.why(error, topic, right))
