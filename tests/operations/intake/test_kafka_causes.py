"""Every command names the cause that keeps Kafka from answering, and never the password."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AclOperation, AdminClient, ResourceType  # type: ignore[attr-defined]  # public
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from consumers.output.producer import Output
from consumers.source import source as source_module
from consumers.source.source import topics_of
from consumers.worker import Worker
from engine.live.batch import Batch
from operations.intake import offsets
from operations.intake.producer import encoder_for
from operations.intake.publish import Published, publish_events
from operations.kafka.causes import KafkaCauses
from operations.services.lifecycle import look
from operations.services.processes import free_port
from operations.settings import Settings, load_settings
from operations.setup.initialise import OUTPUT_TOPIC, create_topics
from schemas.codec import CommittedSchemas
from schemas.errors import GuerdonError, InputError, ServiceUnreachable
from tests.chaos.conftest import FULL
from tests.places import ROOT
from tests.services.guarded_kafka import PASSWORDS, GuardedKafka
from tests.system.batches import admitted, commit, purchase
from tests.system.load import activate
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from operations.services.kafka import LocalKafka
    from tests.services.servers import Servers

pytestmark = pytest.mark.xdist_group("guarded kafka")

SASL = {
    "security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "ann",
    "sasl.password": PASSWORDS["ann"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _plain() -> None:
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def guarded(servers: Servers) -> Iterator[GuardedKafka]:
    with servers.own(GuardedKafka) as service:
        yield service


def tls(guarded: GuardedKafka, authority: str = "ca.pem") -> dict[str, str]:
    return {"security.protocol": "ssl", "ssl.ca.location": str(guarded.folder / authority)}


CAUSES: dict[str, tuple[str, Callable[[GuardedKafka], dict[str, str]], str]] = {
    "a wrong password": (
        "sasl", lambda _: SASL | {"sasl.password": "wr0ng-guess"},
        r"refused the user ann: .*Invalid username or password; correct KAFKA__SASL_USERNAME and KAFKA__SASL_PASSWORD",
    ),
    "no password": ("sasl", lambda _: {}, r"ends connections at once: it wants TLS or a password there"),
    "no TLS": ("tls", lambda _: {}, r"ends connections at once: it wants TLS or a password there"),
    "TLS to a plain port": ("broker", tls, r"Kafka at 127\.0\.0\.1:\d+ speaks no TLS there|no TLS with Kafka at"),
    "a password to a plain port": ("broker", lambda _: SASL, r"takes no user and password there"),
    "another mechanism": (
        "sasl", lambda _: SASL | {"sasl.mechanism": "SCRAM-SHA-256"},
        r"does not know the SASL mechanism SCRAM-SHA-256: set KAFKA__SASL_MECHANISM to one of PLAIN",
    ),
    "another authority": (
        "tls", lambda guarded: tls(guarded, "other-ca.pem"),
        r"has no authority that is known here: correct KAFKA__SSL_CA_LOCATION",
    ),
    "no certificate": (
        "mutual", tls, r"wants a certificate \(bad certificate\): set KAFKA__SSL_CERTIFICATE_LOCATION",
    ),
    "nobody there": ("nowhere", lambda _: {}, r"Kafka is away at 127\.0\.0\.1:\d+ since \d\d:\d\d:\d\dZ \(.*refused\)"),
}  # fmt: skip


def settings_at(guarded: GuardedKafka, listener: str, kafka: dict[str, str], **more: Any) -> Settings:
    servers = f"127.0.0.1:{free_port()}" if listener == "nowhere" else guarded.at(listener)
    return load_settings(bootstrap_servers=servers, kafka=kafka, home=guarded.home, **more)


@pytest.mark.kafka
@pytest.mark.parametrize("case", CAUSES)
def test_status_tells_the_cause(case: str, guarded: GuardedKafka) -> None:
    listener, kafka, sentence = CAUSES[case]
    (silent,) = [each for each in look(settings_at(guarded, listener, kafka(guarded))) if each.name == "kafka"]
    assert not silent.answers
    words = silent.why or ""
    assert_matches(sentence, words)
    assert "wr0ng-guess" not in words
    assert PASSWORDS["ann"] not in words


def assert_matches(pattern: str, text: str) -> None:
    import re  # noqa: PLC0415  beside its only use

    assert re.search(pattern, text), text


@pytest.mark.kafka
@pytest.mark.parametrize("case", ["a wrong password", "another authority", "no password"] if FULL else ["no password"])
def test_every_command_tells_the_same_cause(
    case: str, guarded: GuardedKafka, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (("operations.intake.publish", "METADATA_TIMEOUT_S"),
                         ("consumers.output.producer", "METADATA_TIMEOUT_S"),
                         ("consumers.source.source", "WATERMARK_TIMEOUT_S"), ("operations.intake.offsets", "TIMEOUT_S"),
                         ("operations.setup.initialise", "ADMIN_TIMEOUT_S")):  # fmt: skip
        monkeypatch.setattr(f"{module}.{name}", 3.0)
    listener, kafka, sentence = CAUSES[case]
    settings = settings_at(guarded, listener, kafka(guarded), database_url=database_url)
    activate(database_url)
    commit(database_url, Batch([admitted(purchase(1))]))
    commands: list[Callable[[], object]] = [
        lambda: create_topics(settings, 1),
        lambda: publish_events(settings.kafka_config(), encoder_for(None), [purchase(1)]),
        lambda: Worker(settings, CommittedSchemas()),
        lambda: Output(settings, threading.Event(), lambda _point: None),
        lambda: offsets._spans(settings, [("guerdon.purchases", 0)]),  # noqa: SLF001  what `status` and `offsets list` ask
    ]
    for command in commands:
        with pytest.raises(ServiceUnreachable, match=sentence):
            command()


@pytest.fixture
def prepared(guarded: GuardedKafka, database_url: str, topic_prefix: str) -> Settings:
    """Return settings of a user who has no right at all, to topics that exist."""
    activate(database_url)
    mighty = settings_at(guarded, "broker", {}, database_url=database_url, topic_prefix=topic_prefix)
    create_topics(mighty, 1)
    return settings_at(
        guarded, "sasl", SASL, database_url=database_url, topic_prefix=topic_prefix, group_id=f"{topic_prefix}group"
    )


@pytest.mark.kafka
def test_each_right_that_is_missing_is_named_until_all_are_there(
    guarded: GuardedKafka, prepared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "REFUSED_AGAIN_S", 0.5)
    prefix, topics = prepared.topic_prefix, topics_of(prepared)
    what = r"the user ann has no right to the topic {} in Kafka: whoever runs it must grant {}"
    with pytest.raises(ServiceUnreachable, match=what.format(f"{prefix}extra[.a-z]*", "CREATE on the topic")):
        create_topics(prepared.model_copy(update={"topic_prefix": f"{prefix}extra"}), 1)
    with pytest.raises(InputError, match=what.format(topics[0], "READ and DESCRIBE")):
        Worker(prepared, CommittedSchemas())
    # which of the two comes first is librdkafka's affair
    unknown = what.format(f"{prefix}purchases", "WRITE and DESCRIBE on the topic")
    with pytest.raises(GuerdonError, match=rf"{unknown}|may not write .* WRITE on the topic {prefix}purchases"):
        publish_events(prepared.kafka_config(), encoder_for(None), [purchase(1)], topic_prefix=prefix)
    for topic in topics:
        guarded.allow("ann", ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    with pytest.raises(ServiceUnreachable, match=r"the user ann may not write to Kafka: .* must grant WRITE"):
        raise_failure(publish_events(prepared.kafka_config(), encoder_for(None), [purchase(1)], topic_prefix=prefix))
    silent = prepared.model_copy(update={"publish_rewards": False})
    with capture_logs() as lines, running(silent) as worker:
        group = f"the user ann has no right to the group {prepared.group_id} in Kafka: whoever runs it must grant READ"
        eventually(lambda: len(said(lines, group)) >= 3, "the group's right is named, again and again")
        guarded.allow("ann", ResourceType.GROUP, prefix, AclOperation.READ)
        reading = what.format(topics[0], "READ and DESCRIBE").split(" in Kafka")[0].rsplit(" ", 1)[0]
        eventually(lambda: bool(said(lines, reading)), "the topics' right is named")
        for topic in topics:
            guarded.allow("ann", ResourceType.TOPIC, topic, AclOperation.READ)
        mighty = settings_at(guarded, "broker", {})
        publish_events(mighty.kafka_config(), encoder_for(None), [purchase(1)], topic_prefix=prefix)
        eventually(lambda: worker.summary.accepted == 1, "it goes on by itself")
    assert PASSWORDS["ann"] not in str(lines)


def raise_failure(outcome: Published) -> None:
    """Say what `guerdon publish` would, where the producer had time to report it by message."""
    if outcome.first_failure is not None:
        raise ServiceUnreachable(outcome.first_failure)


def said(lines: list[Any], words: str) -> list[Any]:
    return [line for line in lines if words in line.get("why", "")]


@pytest.mark.kafka
def test_who_may_not_write_reward_events_is_told_so(guarded: GuardedKafka, prepared: Settings) -> None:
    topic = prepared.topic_prefix + OUTPUT_TOPIC
    with pytest.raises(InputError, match=f"no right to the topic {topic} in Kafka: .* WRITE and DESCRIBE"):
        Output(prepared, threading.Event(), lambda _point: None)
    commit(prepared.database_url, Batch([admitted(purchase(1, amount=9_900))]))
    for each in (*topics_of(prepared), topic):
        guarded.allow("ann", ResourceType.TOPIC, each, AclOperation.DESCRIBE)
    for each in topics_of(prepared):
        guarded.allow("ann", ResourceType.TOPIC, each, AclOperation.READ)
    guarded.allow("ann", ResourceType.GROUP, prepared.topic_prefix, AclOperation.READ)
    with capture_logs() as lines, running(prepared):
        eventually(lambda: bool(said(lines, "may not write to Kafka")), "the publisher names the right")
        guarded.allow("ann", ResourceType.TOPIC, topic, AclOperation.WRITE)
        eventually(lambda: lag_of(prepared) == 0, "it is published as soon as it may be")
    (first, *_) = [line for line in lines if line["event"] == "publisher pauses"]
    assert first["why"].startswith("the user ann may not write to Kafka: whoever runs Kafka must grant WRITE")


def lag_of(settings: Settings) -> int:
    from engine.store.database import transaction  # noqa: PLC0415  as above
    from engine.store.kafka import publication  # noqa: PLC0415  beside its only use

    with transaction(settings.database_url) as cursor:
        return publication.lag(cursor)


@pytest.mark.kafka
def test_an_idle_worker_says_that_the_broker_is_away_and_since_when(
    kafka_service: LocalKafka, database_url: str, tmp_path: Path
) -> None:
    activate(database_url)
    settings = load_settings(bootstrap_servers=kafka_service.address, database_url=database_url, home=tmp_path)
    create_topics(settings, 1)
    with capture_logs() as lines, running(settings) as worker:
        eventually(lambda: any(line["event"] == "assigned" for line in lines), "it has its partitions")
        kafka_service.kill()
        away = f"Kafka is away at {settings.bootstrap_servers}"
        eventually(lambda: any(line["event"] == "worker waits for Kafka" for line in said(lines, away)), "it says so")
        kafka_service.start()
        publish_events(settings.kafka_config(), encoder_for(None), [purchase(1)])
        eventually(lambda: worker.summary.accepted == 1, "it goes on")
        eventually(lambda: any(line["event"] == "worker has Kafka again" for line in lines), "it says that, too")
    assert [line for line in lines if line["event"] == "clock pauses"] == []


PROGRAM = """
import sys, time, threading
from consumers.health.logging import log_to_stderr
from consumers.output.producer import Output, NotTaken
from operations.settings import load_settings
log_to_stderr()
output = Output(load_settings(), threading.Event(), lambda _point: None)
try:
    output.advance()
except NotTaken as error:
    print(error)
"""


@pytest.mark.kafka
def test_no_line_of_librdkafkas_own_stands_among_the_workers_lines(guarded: GuardedKafka, prepared: Settings) -> None:
    guarded.allow("ann", ResourceType.TOPIC, prepared.topic_prefix, AclOperation.DESCRIBE)
    commit(prepared.database_url, Batch([admitted(purchase(1, amount=9_900))]))
    environment = {
        "PATH": "/usr/bin", "GUERDON_DATABASE_URL": prepared.database_url, "GUERDON_HOME": str(prepared.home),
        "GUERDON_TOPIC_PREFIX": prepared.topic_prefix, "KAFKA_BOOTSTRAP_SERVERS": prepared.bootstrap_servers,
        **{f"KAFKA__{name.upper().replace('.', '_')}": value for name, value in SASL.items()},
    }  # fmt: skip
    quiet = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    ours = {"topic not compared", "incarnation begins"}  # as this user may not read what it writes
    assert {json.loads(line)["event"] for line in quiet.stderr.splitlines()} <= ours
    assert quiet.stdout.startswith("the user ann may not write to Kafka")
    loud = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment | {"KAFKA__LOG_LEVEL": "3"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in loud.stderr.splitlines()]
    assert {line["event"] for line in lines} - ours == {"librdkafka"}
    assert any("Fatal error" in line.get("line", "") for line in lines)


def test_the_level_of_librdkafkas_lines_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA__LOG_LEVEL", "7")
    monkeypatch.setenv("KAFKA__SESSION_TIMEOUT_MS", "9000")
    kafka = load_settings(bootstrap_servers="127.0.0.1:1").kafka_config()
    assert (kafka["log_level"], kafka["session.timeout.ms"]) == ("7", "9000")
    Consumer({"group.id": "g", **kafka}).close()


def test_lines_that_are_old_explain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    causes = KafkaCauses({"bootstrap.servers": "127.0.0.1:1"})
    error = KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001  the library's public name for it
    causes.log(
        40, "%s", "FAIL [x] [thrd:y]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused"
    )
    assert causes.why(error).startswith("Kafka is away at 127.0.0.1:1 since ")
    monkeypatch.setattr("operations.kafka.causes.HEARD_S", -1.0)
    assert causes.why(error).startswith("Kafka does not answer at 127.0.0.1:1 (")
    monkeypatch.setattr("operations.kafka.causes.HEARD_S", 60.0)
    causes.answered()
    assert causes.why(error).startswith("Kafka does not answer at 127.0.0.1:1 (")


def test_a_sentence_is_raised_as_ours() -> None:
    causes = KafkaCauses({"bootstrap.servers": f"127.0.0.1:{free_port()}", "socket.timeout.ms": 1_000})
    client = AdminClient(causes.config)
    for future in client.create_topics([NewTopic("t", 1, 1)], request_timeout=1.0).values():
        with pytest.raises(KafkaException) as failed:
            future.result()
        causes.listen(client)
        assert causes.why(failed.value).startswith("Kafka is away at 127.0.0.1:")
    assert issubclass(ServiceUnreachable, GuerdonError)
