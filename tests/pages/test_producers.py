"""The producers of docs/events.md, run as they stand: each sends the same events, and each event counts once."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.database import transaction
from operations.services.jars import kafka_jars
from schemas.codec import Encoder
from schemas.event_page import EXAMPLES
from schemas.json_events import decode_json
from schemas.writer_schemas import committed_ids
from tests.places import DOCS, ROOT
from tests.places import EXAMPLES as PROGRAMMES
from tests.services.packages import program
from tests.system.load import activate, make_topics, producer_of
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from operations.settings import Settings

PAGE = (DOCS / "events.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```\w+ (\w+\.\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
ORDER = json.dumps(json.loads(BLOCKS["order.jsonl"]))
LINES = [line for line in EXAMPLES.read_text("utf-8").splitlines() if '"type": "decision"' not in line]
PATIENCE_S = 60


def run(command: list[str], told: str, environment: Mapping[str, str]) -> str:
    """Run a producer in the project's folder with lines on standard input, and return what it prints."""
    done = subprocess.run(
        command, input=told, capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=ROOT,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(folder: Path, name: str) -> str:
    """Write a block of the page into a file, and return its path."""
    path = folder / name
    path.write_text(BLOCKS[name], "utf-8")
    return str(path)


def messages_of_node(folder: Path, lines: list[str], prefix: str) -> list[dict[str, Any]]:
    """Return the messages that the producer in Node makes of lines of JSON."""
    command = [program("node", "nodejs"), written(folder, "producer.mjs")]
    told = run(command, "\n".join(lines), {"GUERDON_TOPIC_PREFIX": prefix})
    return [json.loads(line) for line in told.splitlines()]


def test_node_writes_every_type_as_guerdon_does(tmp_path: Path) -> None:
    encoder = Encoder()
    messages = messages_of_node(tmp_path, LINES, "guerdon.")
    assert len(messages) == len(LINES)
    for line, message in zip(LINES, messages, strict=True):
        assert base64.b64decode(message["value"]) == encoder.encode(decode_json(line)), line


@pytest.mark.kafka
def test_what_three_producers_send_counts_once(settings: Settings, tmp_path: Path) -> None:
    make_topics(settings, 4)
    activate(settings.database_url, (PROGRAMMES / "bakery" / "programme.yaml").read_text("utf-8"))
    places = {"KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "GUERDON_TOPIC_PREFIX": settings.topic_prefix}
    program("mvn", "maven")
    javac = program("javac", "openjdk-17-jdk-headless")

    run([sys.executable, written(tmp_path, "producer.py")], "\n".join([*LINES, ORDER]), places)
    run([javac.removesuffix("c"), "-cp", f"{kafka_jars()}/*", written(tmp_path, "Producer.java")], "", places)
    producer = producer_of(settings)
    for message in messages_of_node(tmp_path, [*LINES, ORDER], settings.topic_prefix):
        producer.produce(message["topic"], base64.b64decode(message["value"]), message["key"])
    assert producer.flush(PATIENCE_S) == 0

    summary = catch_up(settings, "events")
    assert (summary.accepted, summary.duplicate, summary.quarantined) == (len(LINES) + 1, len(LINES) + 2, 0)
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT sum(amount) FROM reward.reward_event WHERE member_id = 'ann' AND event_id = 'p-7'")
        assert cursor.fetchone() == (21,)


def test_the_producer_in_java_names_the_id_of_the_newest_schema() -> None:
    assert f"PURCHASE = {committed_ids()['Purchase']};" in BLOCKS["Producer.java"]
