"""What another meaning has decided is judged again, compared and promoted by an operator, and never gone on with."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from engine import meaning
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import migrate, transaction
from engine.store.generations import shadows
from operations.archive.export import export
from operations.archive.files import read_manifest
from operations.archive.restore import restore
from operations.replay.backtest import Question, backtested
from operations.replay.generations import promote
from operations.replay.run import Request, replay
from operations.simulate.from_log import simulate_log
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import shard_of
from tests.cli.test_command_line import guerdon
from tests.engine.history.test_replay import PLAIN, written
from tests.engine.store.test_migrations import transaction_of_owner
from tests.strategies.replays import WITH_EVERYTHING, everything, repeated, rows
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from operations.settings import Settings

pytestmark = pytest.mark.postgres

WAY_OUT = "`guerdon replay`, read `guerdon diff GEN`, and let `guerdon promote GEN --as swap` make that live"


def leave_as(database_url: str, number: int, generation: int = 1, *, unreadable: bool = True) -> None:
    """Leave a generation as a release of another meaning would: with states that this one may not be able to read."""
    with transaction_of_owner(database_url) as cursor:
        cursor.execute("UPDATE guerdon.generation SET meaning = %s WHERE generation = %s", (number, generation))
        if unreadable:
            cursor.execute("UPDATE guerdon.member_state SET state = '\\xc1' WHERE generation = %s", (generation,))


def told(*words: str) -> Any:
    return json.loads(said(*words, "--json"))


def said(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_new_database_is_of_the_meaning_of_its_release(database_url: str) -> None:
    with transaction(database_url) as cursor:
        assert shadows.get(cursor, 1).meaning == meaning.MEANING


def test_migrating_gives_an_empty_log_the_new_meaning_and_leaves_one_with_members_its_own(database_url: str) -> None:
    activate(database_url, PLAIN)
    leave_as(database_url, 1)
    migrate(database_url)
    with transaction(database_url) as cursor:
        assert shadows.get(cursor, 1).meaning == meaning.MEANING
    commit(database_url, Batch([admitted(purchase(1))]))
    leave_as(database_url, 1)
    migrate(database_url)
    with transaction(database_url) as cursor:
        assert shadows.get(cursor, 1).meaning == 1


@pytest.mark.kafka
def test_the_whole_way_from_an_older_meaning_to_this_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "GUERDON_DATABASE_URL": settings.database_url, "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "GUERDON_TOPIC_PREFIX": settings.topic_prefix, "GUERDON_GROUP_ID": settings.group_id,
        "GUERDON_HOME": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    make_topics(settings, 2)
    activate(settings.database_url, WITH_EVERYTHING)
    messages = Load(12, 5, bad=False, ledger=True).fill(300).messages
    publish(settings, messages[:150])
    catch_up(settings, clock="events")
    before, first = rows(settings.database_url, 1), _offsets(settings)
    leave_as(settings.database_url, 1)
    publish(settings, messages[150:])

    refused = guerdon("run", "--until-caught-up")
    assert (refused.returncode, WAY_OUT in refused.stderr) == (1, True), refused.stderr
    assert "meaning 1 and this release decides by 2" in refused.stderr
    assert told("status")["meaning"] == 1
    assert "other_meaning" in [each["kind"] for each in _checked()]
    asked = told("replay")
    assert (asked["generation"], asked["meaning"], asked["base_meaning"]) == (2, 2, 1)
    assert said("replay").splitlines()[1].startswith("generation 1 was decided by meaning 1: nothing of that was taken")
    assert "before was decided by meaning 1, after by meaning 2" in said("diff", "2")
    assert [(row["generation"], row["meaning"]) for row in told("generations")] == [(1, 1), (2, 2)]
    assert said("verify", "1").endswith("generation 1, decided by meaning 1\n")
    event_id = next(row[15] for row in before if row[3] == "points.granted" and row[14] is not None)
    assert told("why", event_id)["meaning"] == 1
    assert any("this release explains by meaning 2" in note for note in told("why", event_id)["notes"])
    said("promote", "2", "--as", "swap")

    assert _offsets(settings) == first
    done = guerdon("run", "--until-caught-up", "--clock", "events")
    assert done.returncode == 0, done.stderr
    assert _offsets(settings) != first
    assert rows(settings.database_url, 1) == before
    assert told("status")["meaning"] == 2
    assert repeated(settings.database_url)["shards_that_differ"] == 0
    assert [finding for finding in verify(settings.database_url) if finding["problem"]] == []
    with pytest.raises(AnswerIsNo, match="generation 1 was begun by meaning 1 and this release decides by 2"):
        promote(settings.database_url, 1)


def _offsets(settings: Settings) -> list[Any]:
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT topic, partition, next_offset FROM guerdon.consumer_offset ORDER BY 1, 2")
        return cursor.fetchall()


def _checked() -> list[dict[str, str]]:
    done = CliRunner().invoke(app, ["status", "--check", "--json"])
    found: list[dict[str, str]] = json.loads(done.stdout)["troubles"]
    return found


def test_it_is_decided_anew_from_the_log_and_only_redemptions_are_taken_over(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(database_url, monkeypatch, 600)
    leave_as(database_url, 1)
    result = repeated(database_url)
    assert result["members_held"] == []  # that two of them were held was a defect of the time, and no fact any more
    number = result["generation"]
    assert _facts(database_url, 1) >= {"member_held", "budget"}
    assert "member_held" not in _facts(database_url, number)
    assert _redeemed(database_url, number) == _redeemed(database_url, 1) != []
    assert [finding for finding in verify(database_url, number) if finding["problem"]] == []
    promote(database_url, number)
    assert repeated(database_url)["shards_that_differ"] == 0


def _facts(database_url: str, generation: int) -> set[str]:
    with transaction(database_url) as cursor:
        cursor.execute("SELECT DISTINCT kind FROM guerdon.generation_fact WHERE generation = %s", (generation,))
        return {kind for (kind,) in cursor.fetchall()}


def _redeemed(database_url: str, generation: int) -> list[Any]:
    """Return what members who were never held have redeemed."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT event_id, sum(amount) FROM guerdon.reward_event
            WHERE generation = %s AND type = 'points.reserved' AND member_id NOT IN ('member-3', 'member-4')
            GROUP BY event_id ORDER BY event_id
            """,
            (generation,),
        )
        return cursor.fetchall()


def _adds(database_url: str) -> list[Callable[[], object]]:
    def released() -> None:
        with transaction(database_url) as cursor:
            release_member(cursor, shard_of("m1"), "m1")

    def moved() -> None:
        with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
            worker.commit(Batch(clock=ClockMove(2_000_000_000_000, everywhere=True)))

    return [
        lambda: commit(database_url, Batch([admitted(purchase(2))])),
        lambda: activate(database_url, PLAIN.replace("points: 1", "points: 2")),
        released,
        moved,
    ]


def test_nothing_is_added_to_a_generation_of_another_meaning(database_url: str) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(1))]))
    leave_as(database_url, 1)
    for add in _adds(database_url):
        with pytest.raises(AnswerIsNo, match="decided by meaning 1 and this release decides by 2"):
            add()
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT sum(seq) FROM guerdon.shard_head") == (65,)


def test_a_shadow_that_an_earlier_release_has_begun_is_left_alone(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(1))]))
    file = written(tmp_path, PLAIN.replace("points: 1", "points: 3"))
    assert replay(database_url, Request(file))["generation"] == 2
    leave_as(database_url, 1, 2)
    assert replay(database_url, Request(file))["generation"] == 3
    with pytest.raises(AnswerIsNo, match="generation 2 was begun by meaning 1"):
        replay(database_url, Request(into=2))
    with pytest.raises(AnswerIsNo, match="generation 2 was begun by meaning 1"):
        promote(database_url, 2)


def test_a_question_says_that_what_was_given_is_of_another_meaning(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(number, f"m{number}")) for number in range(9)]))
    leave_as(database_url, 1)
    file = written(tmp_path, PLAIN)
    with backtested(database_url, Question(file)) as tested:
        document = tested.document()
    assert (document["meaning_before"], document["meaning_after"]) == (1, 2)
    assert len(simulate_log(database_url, file).recorded) == 9


def test_what_a_later_release_has_decided_is_refused_at_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(1))]))
    leave_as(database_url, 3)
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    file = str(written(tmp_path, PLAIN))
    for words in (["run"], ["replay"], ["why", "e1"], ["verify"], ["discard", "2", "--yes"], ["backtest", file]):
        refused = guerdon(*words)
        assert (refused.returncode, "decided by meaning 3" in refused.stderr) == (2, True), (words, refused.stderr)
    with pytest.raises(InputError, match="decided by meaning 3"):
        migrate(database_url)


def test_an_archive_of_another_meaning_is_not_taken_for_what_was_exported(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(1))]))
    leave_as(database_url, 1)
    export(database_url, tmp_path, keys=None)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.meaning == 1
    with pytest.raises(InputError, match="was decided by meaning 1 and this release decides by 2"):
        restore(other_database_url, tmp_path)
