"""`guerdon publish` names each bad line, and sends the good ones in order to the partitions that shards expect."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections import defaultdict
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from typer.testing import CliRunner

from cli.intake import events as cli_events
from operations.intake import publish
from operations.intake.publish import BadLine, Reading, publish_events
from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.errors import InputError, ServiceUnreachable
from schemas.events import TOPIC_TYPES, Decision, Event, Purchase, Share, Signup, Touch, key_of
from schemas.partitioning import shard_of
from schemas.rejection import Reason
from tests.system.load import await_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.services.kafka import LocalKafka

HEAD: dict[str, Any] = {"member_id": "m1", "occurred_at": "2024-05-01T18:30:00Z"}
GOOD = {**HEAD, "type": "share", "event_id": "e1", "object": "o", "channel": "link"}
NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}


def lines(*objects: Any) -> str:
    return "".join((obj if isinstance(obj, str) else json.dumps(obj)) + "\n" for obj in objects)


def read(*files: Path | str) -> tuple[list[Event], list[BadLine]]:
    bad: list[BadLine] = []
    return list(Reading([str(file) for file in files], bad.append).events()), bad


def purchase(number: int, member_id: str) -> Purchase:
    return Purchase(
        event_id=f"e{number}", member_id=member_id, occurred_at=number, order_id=f"o{number}", currency="USD", amount=1
    )


def test_each_bad_line_is_named_with_file_line_and_reason_and_the_good_ones_are_read(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(lines(GOOD, "{", "", {**GOOD, "chanel": "x"}, {**GOOD, "event_id": "e2"}), "utf-8")
    events, bad = read(file)
    assert [event.event_id for event in events] == ["e1", "e2"]
    assert [(line.line, line.reason) for line in bad] == [(2, Reason.UNDECODABLE), (4, Reason.UNKNOWN_FIELD)]
    assert str(bad[1]).startswith(f"{file}:4: unknown_field: chanel: ")


def test_a_file_may_begin_with_a_byte_order_mark_and_end_without_a_newline(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    events, bad = read(file)
    assert (len(events), bad) == (1, [])


def test_a_line_beyond_the_limit_is_refused_without_losing_the_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "LINE_BYTES_MAX", 1_000)
    file = tmp_path / "events.jsonl"
    file.write_text(lines("x" * 5_000, GOOD, "x" * 1_000, "x" * 1_001, GOOD), "utf-8")
    events, bad = read(file)
    assert len(events) == 2
    assert [(line.line, line.reason) for line in bad] == [
        (1, Reason.TOO_LARGE),
        (3, Reason.TOO_LARGE),
        (4, Reason.TOO_LARGE),
    ]


def test_standard_input_is_named_by_a_dash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(lines(GOOD), "utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(GOOD, "nonsense").encode())))
    events, bad = read(file, "-")
    assert len(events) == 2
    assert [str(line)[:18] for line in bad] == ["standard input:2: "]
    assert Reading([str(file), "-"], bad.append).bytes_total is None
    assert Reading([str(file)], bad.append).bytes_total == file.stat().st_size


def test_an_operators_decision_is_no_event_of_upstream(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(lines({**HEAD, "type": "decision", "event_id": "d", "action": "adjust", "amount": 5}), "utf-8")
    events, bad = read(file)
    assert events == []
    assert "guerdon adjust" in bad[0].message


def test_a_file_that_cannot_be_read_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.jsonl: it cannot be read"):
        Reading([str(tmp_path / "missing.jsonl")], print)
    with pytest.raises(InputError, match="is a folder"):
        Reading([str(tmp_path)], print)


def test_a_broker_that_does_not_answer_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "METADATA_TIMEOUT_S", 0.2)
    with pytest.raises(ServiceUnreachable, match="guerdon up"):
        publish_events(NOWHERE, Encoder(), [])


def test_a_kafka_setting_that_cannot_be_used_is_named() -> None:
    with pytest.raises(InputError, match=r"no\.such\.setting"):
        publish_events({**NOWHERE, "no.such.setting": "1"}, Encoder(), [])


# With the broker ------------------------------------------------------------------------------------------------------


def create_topics(bootstrap: str, prefix: str, partitions: int, *names: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [NewTopic(f"{prefix}{name}", partitions, 1) for name in names or TOPIC_TYPES]
    for done in admin.create_topics(topics).values():
        done.result(10)
    await_topics({"bootstrap.servers": bootstrap}, [topic.topic for topic in topics])


def consume(bootstrap: str, topic: str, partitions: int, count: int) -> Iterator[tuple[int, str, bytes]]:
    """Yield partition, key and value of `count` messages of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    deadline_s = time.monotonic() + 30
    try:
        seen = 0
        while seen < count:
            assert time.monotonic() < deadline_s, f"{seen} of {count} messages arrived"
            for message in consumer.consume(1_000, 0.2):
                assert message.error() is None
                partition, key, value = message.partition(), message.key(), message.value()
                assert partition is not None
                assert key is not None
                assert value is not None
                yield partition, bytes(key).decode(), value
                seen += 1
    finally:
        consumer.close()


@pytest.mark.kafka
def test_events_reach_the_topics_of_their_types_and_decode_equal(kafka_bootstrap: str, topic_prefix: str) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 4)
    sent: dict[str, list[Event]] = {
        "purchases": [purchase(1, "m1")],
        "signups": [Signup(event_id="s", member_id="m1", occurred_at=1, birthday="--02-29")],
        "shares": [
            Share(event_id="e", member_id="m1", occurred_at=1, object="o", channel="link"),
            Touch(event_id="t", occurred_at=1, referral_code="C", visitor="v"),
        ],
    }
    outcome = publish_events(
        {"bootstrap.servers": kafka_bootstrap}, Encoder(), chain(*sent.values()), topic_prefix=topic_prefix
    )
    assert (outcome.published, outcome.failed, outcome.interrupted) == (4, 0, False)
    decoder = Decoder(CommittedSchemas(), 10_000)
    for topic, expected in sent.items():
        arrived = [
            (key, decoder.decode(topic, value)[1])
            for _, key, value in consume(kafka_bootstrap, f"{topic_prefix}{topic}", 4, len(expected))
        ]
        assert sorted(arrived, key=repr) == sorted(((key_of(event), event) for event in expected), key=repr)


@pytest.mark.kafka
@pytest.mark.parametrize("partitions", [3, 8, 64])
def test_a_member_goes_in_order_to_the_partition_of_its_shard(
    kafka_bootstrap: str, topic_prefix: str, partitions: int
) -> None:
    create_topics(kafka_bootstrap, topic_prefix, partitions)
    events = [purchase(number, f"member-{number % 200}") for number in range(2_000)]
    publish_events({"bootstrap.servers": kafka_bootstrap}, Encoder(), events, topic_prefix=topic_prefix)
    decoder = Decoder(CommittedSchemas(), 10_000)
    orders: dict[str, list[int]] = defaultdict(list)
    for partition, key, value in consume(kafka_bootstrap, f"{topic_prefix}purchases", partitions, len(events)):
        if partitions in (8, 64):
            assert partition == shard_of(key) % partitions
        orders[key].append(decoder.decode("purchases", value)[1].occurred_at)
    assert len(orders) == 200
    assert all(times == sorted(times) and len(times) == 10 for times in orders.values())


@pytest.mark.kafka
def test_a_full_queue_holds_the_reading_back_and_loses_nothing(kafka_bootstrap: str, topic_prefix: str) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1, "purchases")
    config = {"bootstrap.servers": kafka_bootstrap, "queue.buffering.max.messages": 10, "linger.ms": 0}
    progress: list[int] = []
    outcome = publish_events(
        config,
        Encoder(),
        (purchase(number, "m") for number in range(3_000)),
        topic_prefix=topic_prefix,
        on_progress=progress.append,
    )
    assert outcome.published == 3_000
    assert progress == [1_000, 2_000, 3_000, 3_000]
    arrived = list(consume(kafka_bootstrap, f"{topic_prefix}purchases", 1, 3_000))
    assert len(arrived) == 3_000


@pytest.mark.kafka
def test_a_rate_is_kept(kafka_bootstrap: str, topic_prefix: str) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1, "purchases")
    started_s = time.monotonic()
    events = (purchase(number, "m") for number in range(41))
    publish_events({"bootstrap.servers": kafka_bootstrap}, Encoder(), events, topic_prefix=topic_prefix, rate_per_s=100)
    assert time.monotonic() - started_s >= 0.4


@pytest.mark.kafka
def test_a_missing_topic_asks_for_init(kafka_bootstrap: str, topic_prefix: str) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1, "purchases")
    share = Share(event_id="e", member_id="m", occurred_at=1, object="o", channel="link")
    with pytest.raises(InputError, match=rf"{topic_prefix}shares does not exist; run `guerdon init`"):
        publish_events(
            {"bootstrap.servers": kafka_bootstrap}, Encoder(), [purchase(1, "m"), share], topic_prefix=topic_prefix
        )
    assert len(list(consume(kafka_bootstrap, f"{topic_prefix}purchases", 1, 1))) == 1


@pytest.mark.kafka
def test_a_decision_has_no_topic(kafka_bootstrap: str, topic_prefix: str) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1, "purchases")
    decision = Decision(event_id="d", member_id="m", occurred_at=1, action="adjust")
    with pytest.raises(InputError, match="no topic carries a decision"):
        publish_events({"bootstrap.servers": kafka_bootstrap}, Encoder(), [decision], topic_prefix=topic_prefix)


@pytest.mark.kafka
def test_a_message_that_is_too_large_is_counted_and_the_others_are_sent(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1, "purchases")
    large = Purchase(
        event_id="large", member_id="m", occurred_at=1, order_id="o", currency="USD", amount=1, channel="x" * 2_000_000
    )
    outcome = publish_events(
        {"bootstrap.servers": kafka_bootstrap},
        Encoder(),
        [purchase(1, "m"), large, purchase(2, "m")],
        topic_prefix=topic_prefix,
    )
    assert (outcome.published, outcome.failed) == (2, 1)
    assert outcome.first_failure is not None
    assert "event large" in outcome.first_failure


@pytest.mark.kafka
def test_an_interruption_still_sends_what_was_read(kafka_bootstrap: str, topic_prefix: str) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1, "purchases")

    def interrupted() -> Iterator[Event]:
        for number in range(50):
            yield purchase(number, "m")
        raise KeyboardInterrupt

    outcome = publish_events(
        {"bootstrap.servers": kafka_bootstrap}, Encoder(), interrupted(), topic_prefix=topic_prefix
    )
    assert (outcome.published, outcome.interrupted) == (50, True)
    assert len(list(consume(kafka_bootstrap, f"{topic_prefix}purchases", 1, 50))) == 50


@pytest.mark.kafka
def test_a_broker_that_dies_ends_the_publishing_with_a_count_instead_of_hanging(
    kafka_service: LocalKafka, topic_prefix: str
) -> None:
    create_topics(kafka_service.address, topic_prefix, 1, "purchases")

    def events_until_it_dies() -> Iterator[Event]:
        for number in count():
            if number == 1_000:
                kafka_service.kill()
            yield purchase(number, "m")

    config = {"bootstrap.servers": kafka_service.address, "message.timeout.ms": 1_000}
    outcome = publish_events(config, Encoder(), events_until_it_dies(), topic_prefix=topic_prefix)
    assert outcome.failed > 0
    assert outcome.first_failure is not None
    assert outcome.first_failure.startswith(f"key b'm' of {topic_prefix}purchases: ")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    cli_events.register(app)
    app.callback()(lambda: None)
    return app


@pytest.mark.kafka
def test_the_command_publishes_the_good_lines_names_the_bad_ones_and_leaves_with_2(
    app: typer.Typer, kafka_bootstrap: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topics(kafka_bootstrap, topic_prefix, 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", topic_prefix)
    Path("good.jsonl").write_text(lines(GOOD), "utf-8")
    Path("mixed.jsonl").write_text(lines(GOOD, {**GOOD, "object": 5}), "utf-8")

    good = CliRunner().invoke(app, ["publish", "good.jsonl"])
    assert (good.exit_code, good.stdout) == (0, "published 1 event\n")
    mixed = CliRunner().invoke(app, ["publish", "mixed.jsonl", "-"], input=lines(GOOD))
    assert isinstance(mixed.exception, InputError)
    assert mixed.exception.exit_code == 2
    assert str(mixed.exception).startswith("1 line was not published, 2 events were; ")
    assert mixed.stdout == "published 2 events\n"
    assert mixed.stderr == "mixed.jsonl:2: wrong_type: object: expected a text, got an integer\n"
    result = CliRunner().invoke(app, ["publish", "mixed.jsonl", "--json"])
    assert json.loads(result.stdout) == {
        "published": 1,
        "failed": 0,
        "first_failure": None,
        "bad": [
            {
                "file": "mixed.jsonl",
                "line": 2,
                "reason": "wrong_type",
                "message": "object: expected a text, got an integer",
            }
        ],
    }
    assert len(list(consume(kafka_bootstrap, f"{topic_prefix}shares", 1, 4))) == 4


def test_reading_the_help_loads_no_kafka_client() -> None:
    code = "import sys, cli.intake.events; sys.exit('confluent_kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
