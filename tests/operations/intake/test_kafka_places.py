"""A database reads the topics of one prefix on one cluster, asks before it reads others, and `verify` knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli import main
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.kafka import places
from engine.store.kafka.offsets import add_partitions
from operations.intake.lag import remarks
from operations.kafka import places as kafka_places
from operations.setup.initialise import initialise
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo, InputError
from tests.system.batches import purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import catch_up, other_group, running

if TYPE_CHECKING:
    from pathlib import Path

    from operations.settings import Settings

pytestmark = pytest.mark.kafka


def purchases(*numbers: int) -> Load:
    load = Load(members=1)
    for number in numbers:
        load.add(purchase(number, amount=100), deliveries=1)
    return load


def moved(settings: Settings) -> Settings:
    """Return settings whose topics have another prefix; the fixture deletes them, too, as it begins alike."""
    return settings.model_copy(update={"topic_prefix": f"{settings.topic_prefix}new."})


def problems(settings: Settings) -> list[str]:
    return [str(each["problem"]) for each in verify(settings.database_url) if each["problem"]]


def test_another_prefix_is_asked_about_and_after_it_is_adopted_both_are_held_to_the_log(settings: Settings) -> None:
    initialise(settings, 2)
    activate(settings.database_url)
    publish(settings, purchases(1, 2, 3).messages)
    catch_up(settings)
    other = moved(settings)
    make_topics(other, 2)
    publish(other, purchases(3, 4, 5, 6).messages)

    sentence = (
        rf"this database reads the topics {settings.topic_prefix}… of the Kafka cluster \S+, but the settings name "
        rf"{other.topic_prefix}… of .*run `guerdon offsets adopt --why TEXT`"
    )
    with pytest.raises(InputError, match=sentence):
        catch_up(other)
    with pytest.raises(InputError, match=sentence):
        initialise(other, 2)
    assert [each for each in remarks(other) if "guerdon offsets adopt" in each]
    assert remarks(settings) == []

    with running(settings), pytest.raises(AnswerIsNo, match="1 workers are at work on this database; stop them first"):
        kafka_places.adopt(other, "renamed")
    with pytest.raises(AnswerIsNo, match="already"):
        kafka_places.adopt(settings, "renamed")
    assert kafka_places.adopt(other, "renamed")["begin_again"] == []
    summary = catch_up(other)
    assert (summary.accepted, summary.duplicate) == (3, 1)
    assert problems(other) == []
    with pytest.raises(InputError, match=f"this database reads the topics {other.topic_prefix}…"):
        catch_up(settings)
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT topic_prefix, why FROM guerdon.kafka_place ORDER BY place")
        assert cursor.fetchall() == [(settings.topic_prefix, None), (other.topic_prefix, "renamed")]


def test_with_two_prefixes_in_the_history_verify_still_finds_what_is_missing(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    publish(settings, purchases(1, 2, 3).messages)
    catch_up(settings)
    other = moved(settings)
    make_topics(other, 1)
    publish(other, purchases(4, 5).messages)
    kafka_places.adopt(other, "renamed")
    catch_up(other)
    assert problems(other) == []
    with transaction(settings.database_url) as cursor:
        cursor.execute(
            "UPDATE guerdon.consumer_offset SET accepted = accepted - 1, passed = passed + 1 WHERE topic = %s",
            (f"{other.topic_prefix}purchases",),
        )
    assert any("purchases partition 0: offsets 0 to " in problem for problem in problems(other))


def test_a_database_of_an_earlier_release_takes_the_prefix_that_it_has_read(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    with transaction(settings.database_url) as cursor:
        add_partitions(cursor, {("old.purchases", 0): 0})
    with pytest.raises(InputError, match=r"this database has read old\.purchases, but the settings name"):
        catch_up(settings)
    with transaction(settings.database_url) as cursor:
        add_partitions(cursor, {(f"{settings.topic_prefix}purchases", 0): 0})
    catch_up(settings)


def test_another_cluster_begins_again_at_the_first_offsets_and_counts_once(settings: Settings) -> None:
    """The test's broker stands for the new cluster: what is kept says that another one was read, with other topics."""
    make_topics(settings, 1)
    activate(settings.database_url)
    publish(settings, purchases(1, 2, 3).messages)
    catch_up(settings)
    with transaction(settings.database_url) as cursor:
        places.move(cursor, places.Place(settings.topic_prefix, "old"), "as if")
        cursor.execute("UPDATE guerdon.consumer_topic SET topic_id = 'of the old cluster'")
    with pytest.raises(InputError, match=f"{settings.topic_prefix}… of the Kafka cluster old, but"):
        catch_up(settings)
    begun = kafka_places.adopt(settings, "moved house")["begin_again"]
    assert f"{settings.topic_prefix}purchases partition 0" in begun
    publish(settings, purchases(4).messages)
    summary = catch_up(other_group(settings, "new"))
    assert (summary.accepted, summary.duplicate) == (1, 3)
    assert problems(settings) == []
    with transaction(settings.database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.consumer_reset WHERE why = 'moved house'") == (5,)


def test_nothing_is_published_where_the_database_does_not_read_until_it_is_adopted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in (
        ("GUERDON_DATABASE_URL", settings.database_url),
        ("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers),
        ("GUERDON_TOPIC_PREFIX", settings.topic_prefix),
        ("GUERDON_HOME", str(settings.home)),
    ):
        monkeypatch.setenv(name, value)
    make_topics(settings, 1)
    with transaction(settings.database_url) as cursor:
        places.move(cursor, places.Place(settings.topic_prefix, "another"), "as if")
    file = tmp_path / "events.jsonl"
    file.write_text(
        '{"type": "signup", "event_id": "e1", "member_id": "ann", "occurred_at": "2026-01-01T00:00:00Z"}\n', "utf-8"
    )
    with pytest.raises(InputError, match="of the Kafka cluster another, but the settings name"):
        main.app(["publish", str(file)], standalone_mode=False)
    main.app(["offsets", "adopt", "--why", "first"], standalone_mode=False)
    assert f"reads {settings.topic_prefix}… of " in capsys.readouterr().out
    main.app(["publish", str(file)], standalone_mode=False)
    assert "published 1 event" in capsys.readouterr().out
    monkeypatch.setenv("GUERDON_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    main.app(["publish", str(file)], standalone_mode=False)
    assert "published 1 event" in capsys.readouterr().out, "who only publishes need have no database"
