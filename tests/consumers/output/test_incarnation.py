"""The topic of reward events says so where it is no longer what the log says, and followers end with the log."""

from __future__ import annotations

import json
import re
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg2 import sql
from typer import Typer
from typer.testing import CliRunner

from cli.intake import rewards
from consumers.output import producer, topic_tail
from consumers.output.producer import Output
from engine.meaning import MEANING
from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.kafka import incarnations, publication
from operations.intake.lag import lag_rows
from operations.kafka import reward_events
from operations.kafka.reward_events import listed, publish_again
from operations.setup.initialise import OUTPUT_TOPIC, create_topics
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import SHARDS
from tests.consumers.output.follower import Followed, assert_followed, follow
from tests.consumers.output.test_publisher import lag, log, ready, rounds
from tests.system.load import PROGRAMME_WITHOUT_ORDER, activate, await_topics
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.settings import Settings

__all__ = ["ready"]

pytestmark = pytest.mark.kafka


def begun(settings: Settings) -> list[str]:
    """Return why each incarnation began, the first one first."""
    return [row["why"] for row in reversed(listed(settings))]


def change(settings: Settings, query: str, *parameters: object) -> None:
    with psycopg2.connect(settings.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(query, parameters)


def make_topic_anew(settings: Settings) -> None:
    topic = settings.topic_prefix + OUTPUT_TOPIC
    admin = AdminClient({**settings.kafka_config()})
    admin.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in admin.list_topics(timeout=5).topics, "the end of the topic")
    eventually(lambda: create_topics(settings, 4).startswith("1 created"), "the topic made again")
    await_topics(settings.kafka_config(), [topic])


@pytest.fixture
def copied(ready: Settings, other_database_url: str) -> Iterator[Settings]:
    """Return settings of a copy of the database as it is after 20 events, all published."""
    del other_database_url  # only its place is taken
    log(ready, 0, 20)
    rounds(ready)
    name = ready.database_url.rsplit("/", 1)[1]
    with closing(psycopg2.connect(ready.database_url, dbname="postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            copy = sql.Identifier(f"{name}_copy")
            cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(copy, sql.Identifier(name)))
            yield ready.model_copy(update={"guerdon_database_url": f"{ready.database_url}_copy"})
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(copy))


def test_a_database_whose_files_were_put_back_is_known_by_the_topic_and_only_its_end_is_sent_again(
    ready: Settings, copied: Settings
) -> None:
    log(ready, 20, 20)
    rounds(ready)
    followed = assert_followed(ready)
    assert rounds(copied) == SHARDS  # where each shard ends
    assert begun(copied) == ["the first one", "the log went back: the topic holds what it does not say"]
    assert_followed(copied, followed)
    assert len(followed.events) == 40
    log(copied, 100, 30)
    assert rounds(copied) == 60
    assert_followed(copied, followed)
    assert_followed(copied)


def test_a_log_that_went_back_and_grew_again_before_anybody_looked_is_known_by_what_it_says(
    ready: Settings, copied: Settings
) -> None:
    log(ready, 20, 20)
    rounds(ready)
    followed = assert_followed(ready)
    log(copied, 100, 60)
    rounds(copied)
    assert len(begun(copied)) == 2
    assert_followed(copied, followed)
    assert_followed(copied)


def test_a_topic_made_anew_while_a_worker_runs_gets_the_whole_log_again(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "LOOK_AT_TOPIC_S", 0.1)
    log(ready, 0, 40)
    with running(ready):
        eventually(lambda: lag(ready) == 0, "the topic at the head")
        followed = assert_followed(ready)
        make_topic_anew(ready)
        log(ready, 40, 20)
        eventually(lambda: len(begun(ready)) > 1 and lag(ready) == 0, "another incarnation, published")
    assert begun(ready)[1:] == ["the topic was deleted and made again"]
    assert len(assert_followed(ready, followed).events) == 120
    assert_followed(ready)


def test_status_says_that_the_topic_is_missing_or_was_made_anew(ready: Settings) -> None:
    log(ready, 0, 5)
    rounds(ready)
    topic = ready.topic_prefix + OUTPUT_TOPIC
    admin = AdminClient({**ready.kafka_config()})
    admin.delete_topics([topic])[topic].result(10)

    def sentence() -> str:
        (row,) = [row for row in lag_rows(ready) if row["what"] == topic]
        assert row["lag"] == 0
        return str(row["stopped"])

    eventually(lambda: sentence() != "", "a sentence")
    assert sentence().startswith(f"Kafka has no topic {topic}; run `guerdon init`")
    eventually(lambda: create_topics(ready, 4).startswith("1 created"), "the topic made again")
    eventually(lambda: "was deleted and made again" in sentence(), "the other sentence")
    rounds(ready)
    assert sentence() == ""
    assert_followed(ready)


def test_an_operator_has_the_log_sent_again_whole_or_from_an_instant_while_a_worker_runs(ready: Settings) -> None:
    log(ready, 0, 30)
    with transaction(ready.database_url) as cursor:
        from_ms = live_generation.now_ms(cursor) + 1  # later than what is recorded
        eventually(lambda: live_generation.now_ms(cursor) >= from_ms, "the next ms")
    log(ready, 30, 10)
    with running(ready):
        eventually(lambda: lag(ready) == 0 and bool(begun(ready)), "the topic at the head")
        followed = assert_followed(ready)
        again = publish_again(ready, "lost a copy", from_ms)
        assert again.reward_events == 20
        eventually(lambda: len(follow(ready).beginnings) == SHARDS and lag(ready) == 0, "sent again in part")
        partly = assert_followed(ready, Followed(kept=followed.kept))
        assert len(partly.came) == 80 + 20
        assert publish_again(ready, "lost another").reward_events == 80
        eventually(lambda: len(follow(ready).beginnings) == 2 * SHARDS and lag(ready) == 0, "sent again")
    whole = assert_followed(ready, Followed(kept=followed.kept))
    assert len(whole.came) == 80 + 20 + 80
    last, before, _ = listed(ready)
    assert (before["why"], before["incarnation"]) == ("lost a copy", again.incarnation)
    assert last["why"] == "lost another"
    assert " on " in last["begun_by"]
    assert last["incarnation"] > before["incarnation"]


def test_a_topic_that_lost_its_end_gets_it_again(ready: Settings) -> None:
    log(ready, 0, 20)
    rounds(ready)
    log(ready, 20, 10)
    change(
        ready,
        "UPDATE guerdon.publication_cursor c SET pos = h.pos FROM guerdon.generation_head h"
        " WHERE h.generation = c.generation AND h.shard = c.shard",
    )
    assert lag(ready) == 0
    rounds(ready)
    assert begun(ready)[1:] == ["the topic has lost its end"]
    assert_followed(ready)


def test_workers_that_begin_at_once_agree_on_one_incarnation(ready: Settings, copied: Settings) -> None:
    log(ready, 20, 20)
    rounds(ready)
    log(copied, 100, 40)
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            rounds(copied)
        except BaseException as error:  # noqa: BLE001  told to the test below
            errors.append(error)

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    rounds(copied)
    assert len(begun(copied)) == 2
    assert_followed(copied)


def test_a_generation_that_is_live_again_begins_an_incarnation_and_one_that_is_new_does_not(ready: Settings) -> None:
    log(ready, 0, 20)
    rounds(ready)
    followed = assert_followed(ready)
    change(ready, "UPDATE guerdon.generation SET status = 'retired' WHERE generation = 1")
    change(ready, "SELECT guerdon.create_generation(2, 'live')")
    change(ready, "UPDATE guerdon.generation SET meaning = %s WHERE generation = 2", MEANING)
    activate(ready.database_url, PROGRAMME_WITHOUT_ORDER)
    log(ready, 100, 10)
    rounds(ready)
    assert begun(ready) == ["the first one"]
    assert_followed(ready, followed)
    for live, retired, why in (
        (1, 2, "generation 1 is live and followers have 2"),
        (2, 1, "generation 2 is live and followers have 1"),
    ):
        change(ready, "UPDATE guerdon.generation SET status = 'retired' WHERE generation = %s", retired)
        change(ready, "UPDATE guerdon.generation SET status = 'live' WHERE generation = %s", live)
        rounds(ready)
        assert begun(ready)[-1] == why
        assert_followed(ready, followed)
        assert_followed(ready)


def test_what_an_earlier_release_has_sent_stands_and_nobody_begins_anew_for_the_update(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the messages be as that release sent them: without an incarnation, from cursors that know none."""
    log(ready, 0, 20)

    real = producer.Edition
    with monkeypatch.context() as earlier:
        earlier.setattr(producer, "Edition", lambda _incarnation, generation: real(b"", generation))
        earlier.setattr(Output, "_begin", lambda *_: 0)
        rounds(ready)
    change(ready, "UPDATE guerdon.publication_cursor SET begun = ''")
    change(ready, "DELETE FROM guerdon.incarnation")
    for _ in range(2):  # also where nothing is recorded before the next start
        assert rounds(ready) == 0
        assert begun(ready) == ["the first one"]
    log(ready, 20, 20)
    assert rounds(ready) == 40
    assert begun(ready) == ["the first one"]
    followed = assert_followed(ready)
    assert sorted(map(len, followed.incarnations)) == [0, 25]
    assert followed.beginnings == []
    assert len(followed.came) == 80


def test_retention_that_has_removed_what_would_be_compared_is_no_alarm(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_tail, "MESSAGES_MAX", 2)
    log(ready, 0, 40)
    rounds(ready)
    topic = ready.topic_prefix + OUTPUT_TOPIC
    admin = AdminClient({**ready.kafka_config()})
    for done in admin.delete_records([TopicPartition(topic, each, -1) for each in range(4)]).values():
        done.result(10)
    log(ready, 40, 1)
    rounds(ready)
    assert begun(ready) == ["the first one"]
    assert follow(ready).beginnings == []


def test_where_postgresql_may_not_be_asked_the_topic_alone_tells(ready: Settings, copied: Settings) -> None:
    for function in ("pg_control_system()", "pg_walfile_name(pg_lsn)"):
        change(ready, f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
        change(copied, f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    with transaction(copied.database_url) as cursor:
        assert incarnations.database_origin(cursor) == (None, None)
    log(ready, 20, 20)
    rounds(ready)
    assert begun(ready) == ["the first one"]
    rounds(copied)
    assert len(begun(copied)) == 2
    assert_followed(copied)


def test_a_promoted_standby_begins_an_incarnation_though_nothing_was_lost(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(ready, 0, 20)
    rounds(ready)
    monkeypatch.setattr(incarnations, "database_origin", lambda _cursor: (None, "00000002"))
    assert rounds(ready) == SHARDS
    assert begun(ready)[1] == "PostgreSQL went on from timeline 00000001 to 00000002 (a failover, or a recovery)"
    assert rounds(ready) == 0
    assert_followed(ready)


def test_a_name_grows_also_where_the_clock_went_back(database_url: str) -> None:
    origin = incarnations.Origin("7", "00000001", "t", "id")
    ahead = "5000000000000" + 12 * "0"
    with transaction(database_url) as cursor:
        publication.begin(cursor, 1)
        first = incarnations.begin(cursor, origin, 1, None, why="", begun_by="", newest=ahead)
        second = incarnations.begin(cursor, origin, 1, {}, why="", begun_by="")
    assert ahead < first < second
    assert incarnations.is_name(second)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, "gzip"),
        ({"rewards_compression": "none"}, "none"),
        ({"rewards_compression": "zstd"}, "zstd"),
        ({"kafka": {"compression.type": "snappy"}}, "snappy"),
    ],
)
def test_messages_are_compressed_as_the_setting_says_unless_librdkafkas_own_is_set(
    ready: Settings, changed: dict[str, Any], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[dict[str, Any]] = []

    class Seen(Producer):
        def __init__(self, config: dict[str, Any]) -> None:
            configs.append(config)
            super().__init__(config)

    monkeypatch.setattr(producer, "Producer", Seen)
    log(ready, 0, 5)
    rounds(ready.model_copy(update=changed))
    assert {config["compression.type"] for config in configs} == {wanted}
    assert_followed(ready)


def test_the_commands_say_what_they_did_and_list_it(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", ready.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", ready.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", ready.topic_prefix)
    app = Typer()
    rewards.register(app)

    def command(*words: str) -> Any:
        return CliRunner().invoke(app, ["rewards", *words])

    assert command("incarnations").stdout == "nothing was published yet\n"
    log(ready, 0, 5)
    rounds(ready)
    sentence = command("publish-again", "--why", "a copy was lost").stdout
    assert re.fullmatch(
        r"incarnation \d{25} begins: 10 reward events to send; `guerdon status` shows how many are left\n", sentence
    )
    assert (
        json.loads(command("publish-again", "--from", "2999-01-01T00:00:00Z", "--json").stdout)["reward_events"] == 10
    )
    found = json.loads(command("incarnations", "--json").stdout)
    assert [row["why"] for row in found] == ["asked for by an operator", "a copy was lost", "the first one"]
    assert "a copy was lost" in command("incarnations").stdout
    wrong = command("publish-again", "--from", "yesterday").exception
    assert isinstance(wrong, InputError)
    assert "--from" in str(wrong)
    make_topic_anew(ready)
    refused = command("publish-again", "--from", "2020-01-01T00:00:00Z").exception
    assert isinstance(refused, InputError)
    assert "has nothing from before; leave --from out" in str(refused)
    rounds(ready)
    assert_followed(ready)


def test_a_command_that_cannot_begin_says_so_and_changes_nothing(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(ready, 0, 5)
    rounds(ready)
    monkeypatch.setattr(reward_events, "LOCKED_WITHIN", "100ms")
    with transaction(ready.database_url) as cursor:
        incarnations.lock(cursor)
        with pytest.raises(AnswerIsNo, match="nothing was changed"):
            publish_again(ready, "")
    assert begun(ready) == ["the first one"]
