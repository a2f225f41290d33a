"""What an engineer on call asks of a system: does everything move, and if not, what stands and what is the way out."""

from __future__ import annotations

import json
import logging
import re
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg2
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.main import app
from consumers.health import heartbeat, watch
from consumers.health.watch import StepTimes, worker_name
from engine.intake.batch import NO_OFFSET, SetAside
from engine.store import quarantine, revision, workers
from engine.store.cursor import one
from engine.store.database import migrate, transaction
from engine.store.kafka import offsets
from engine.store.kafka.short_form import compact, expanded
from engine.store.workers import Pulse
from operations import figures, health
from operations.health import age, overview, troubles
from operations.intake.lag import lag_rows
from operations.verify.checks import verify
from schemas.errors import GuerdonError, InputError
from schemas.events import TOPIC_TYPES
from schemas.partitioning import shard_of
from schemas.rejection import Reason
from tests.engine.store.test_migrations import migrate_to
from tests.system.batches import admitted, commit, purchase
from tests.system.load import Load, activate, make_topics, publish
from tests.system.poison import STEPS
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.intake.batch import Partition
    from operations.settings import Settings

Status = tuple[int, str]
HELD = (
    "held: 1 member is held, and their events wait: `guerdon quarantine list --held` says why, "
    "`guerdon quarantine release ID` judges what waited"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers tell of themselves often, so that a test need not wait for it."""
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.1)


@pytest.fixture
def ready(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Return settings of topics and a programme in force, known to commands, too; workers' lines are not shown."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("GUERDON_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("GUERDON_GROUP_ID", settings.group_id)
    monkeypatch.setenv("GUERDON_HOME", str(settings.home))
    make_topics(settings, 2)
    activate(settings.database_url)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield settings
    structlog.reset_defaults()


def status(*words: str, columns: int = 80) -> Status:
    """Run `guerdon status` and return its exit code and what it prints, with the sentence of its error."""
    done = CliRunner().invoke(app, ["status", *words], env={"COLUMNS": str(columns)})
    if isinstance(done.exception, GuerdonError):
        return done.exception.exit_code, f"{done.stdout}{done.exception}\n"
    assert done.exception is None, done.exception
    return done.exit_code, done.stdout


def checked(*words: str) -> Status:
    return status("--check", *words)


def kinds(settings: Settings) -> list[str]:
    return [trouble["kind"] for trouble in troubles(settings, overview(settings), lag_rows(settings))]


def moves(settings: Settings) -> bool:
    return kinds(settings) == []


def is_at_work(settings: Settings) -> bool:
    """Whether a worker has its partitions and everything moves: before it has, what is stopped may yet be read."""
    return any(row["partitions"] for row in overview(settings).workers) and moves(settings)


@contextmanager
def owner(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Yield what executes a statement as the database's owner and commits it."""
    with closing(psycopg2.connect(settings.database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor.execute


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_everything_moves_while_a_worker_lives_and_its_row_goes_when_it_leaves(ready: Settings) -> None:
    assert checked() == (
        1,
        "no_worker: no worker lives: start one with `guerdon run`\n1 thing to look after, as said above\n",
    )
    load = Load(members=5, bad=False).fill(40)
    publish(ready, load.messages)
    with running(ready):
        eventually(lambda: is_at_work(ready), "a worker has partitions and everything moves")
        eventually(lambda: all(row["lag"] == 0 for row in lag_rows(ready)), "all is taken")
        assert checked() == (0, "everything moves\n")
        eventually(lambda: checked("--max-lag", "0") == (0, "everything moves\n"), "facts follow every two seconds")
        eventually(lambda: overview(ready).workers[0]["last_batch_s"] is not None, "its last batch is told")
        (row,) = overview(ready).workers
        assert row["lives"]
        assert row["partitions"] == "0-1 of each topic"
        assert row["group_id"] == ready.group_id
        code, shown = status()
        assert code == 0
        assert row["worker"][:20] in shown
        assert re.search(
            r"^last recorded: \d+ s ago\nquarantine: nothing is open\nheld: 0 members\n", shown, re.MULTILINE
        )
        assert max(map(len, shown.splitlines())) <= 200
    assert overview(ready).workers == []
    assert (overview(ready).recorded_s or 999) < 300
    assert kinds(ready) == ["no_worker"]


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_a_partition_that_is_stopped_and_a_member_who_is_held_are_named_with_the_way_out(ready: Settings) -> None:
    with running(ready):
        eventually(lambda: is_at_work(ready), "a worker has partitions and everything moves")
        topic = f"{ready.topic_prefix}shares"
        event = purchase(1, "m1")
        with transaction(ready.database_url) as cursor:
            offsets.stop(cursor, (topic, 1), f"it was deleted; run `guerdon offsets reset {topic} --why TEXT`")
            record = SetAside(
                "evaluate", Reason.EVALUATION_FAILED, "boom", None, NO_OFFSET, NO_OFFSET, b"", event, 1
            )  # fmt: skip
            quarantine.add(cursor, [record], {}, {0: (shard_of("m1"), 1)})
        code, output = checked()
        assert code == 1
        assert output.splitlines() == [
            f"stopped: {topic} partition 1 is stopped: it was deleted; run `guerdon offsets reset {topic} --why TEXT`",
            HELD,
            "2 things to look after, as said above",
        ]
        code, output = checked("--json")
        found = json.loads(output[: output.rindex("}") + 1])
        assert code == 1
        assert [trouble["kind"] for trouble in found["troubles"]] == ["stopped", "held"]
        assert (found["held"], found["quarantine"]) == (1, {"evaluation_failed": 1})
        code, shown = status()
        assert code == 0  # it shows; only --check judges
        assert "quarantine: 1 open (evaluation_failed 1)\nheld: 1 member\n" in shown
        assert f"stopped: it was deleted; run `guerdon offsets reset {topic} --why TEXT`" in shown


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_a_projector_and_a_publisher_that_pause_are_named_until_they_go_on(ready: Settings) -> None:
    with running(ready), owner(ready) as execute:
        eventually(lambda: is_at_work(ready), "a worker has partitions and everything moves")
        execute("REVOKE UPDATE ON guerdon.projection_cursor, guerdon.publication_cursor FROM guerdon_writer")
        publish(ready, Load(members=1, bad=False).fill(3).messages)
        cursors = [f": permission denied for table {kind}_cursor" for kind in ("projection", "publication")]
        eventually(lambda: all(cursor in checked()[1] for cursor in cursors), "both pauses are named")
        assert set(kinds(ready)) == {"paused"}, "the facts' projector may have come to its cursor, too, or not"
        assert checked()[0] == 1
        execute("GRANT UPDATE ON guerdon.projection_cursor, guerdon.publication_cursor TO guerdon_writer")
        eventually(lambda: moves(ready), "everything moves again")


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_events_that_wait_while_nothing_is_committed_are_named_however_well_the_worker_looks(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody locks what every batch needs, as a DBA's VACUUM FULL does: for minutes there was no sign of it."""
    monkeypatch.setattr(health, "OLD_BATCH_S", 0.0)
    monkeypatch.setattr(health, "PATIENCE_S", 0.5)
    with running(ready):
        eventually(lambda: is_at_work(ready), "a worker has partitions and everything moves")
        with closing(psycopg2.connect(ready.database_url)) as dba:
            with dba.cursor() as cursor:
                cursor.execute("LOCK TABLE guerdon.source_event IN ACCESS EXCLUSIVE MODE")
            publish(ready, Load(members=1, bad=False).fill(3).messages)
            eventually(lambda: "old_batch" in kinds(ready), "nothing is committed")
            code, output = checked("--max-lag", "2")
            assert code == 1
            (row,) = overview(ready).workers
            assert f"old_batch: 3 events wait for the worker {row['worker']}, which has committed nothing for" in output
            assert " events behind, more than 2: start more workers" in output
            dba.rollback()
        eventually(lambda: moves(ready), "everything moves again")


@pytest.mark.kafka
def test_a_worker_that_died_is_named_and_the_next_one_takes_its_row_away(ready: Settings) -> None:
    with transaction(ready.database_url) as cursor:
        workers.beat(cursor, Pulse("till-7", "g", "0.1.0", 500.0, 0.0, 10.0, "0", None, "was asleep", None))
        cursor.execute("UPDATE guerdon.worker SET seen_at = seen_at - interval '3 minutes'")
    assert kinds(ready) == ["no_worker"]
    assert checked()[1].startswith(
        "no_worker: no worker lives (till-7 was last seen 3 min ago): start one with `guerdon run`\n"
    )
    assert "seen 3 min ago" in status(columns=120)[1]
    with transaction(ready.database_url) as cursor:
        workers.beat(cursor, Pulse("till-8", "g", "0.1.0", 100.0, 90.0, None, "", None, None, None))
    assert [row["worker"] for row in overview(ready).workers] == ["till-8"]
    assert kinds(ready) == ["stuck"]
    assert "till-8 lives, but its loop has not gone round for 9" in checked()[1]


@pytest.mark.kafka
def test_check_ends_with_3_where_a_service_is_silent_and_says_what_is_missing_first(
    ready: Settings, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    code, output = checked()
    assert (code, output.split(" since ")[0]) == (3, "Kafka is away at 127.0.0.1:1")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", ready.bootstrap_servers)
    monkeypatch.setenv("GUERDON_DATABASE_URL", empty_database_url)
    code, output = checked()
    assert code == 1
    assert urlsplit(empty_database_url).path in output
    assert "has no tables of Guerdon's: where it is the right one, run `guerdon init`" in output
    assert output.endswith("else correct GUERDON_DATABASE_URL\n")
    assert status("--max-lag", "1")[0] == 2


@pytest.mark.postgres
def test_a_database_of_an_earlier_release_is_told_by_a_sentence(empty_database_url: str, settings: Settings) -> None:
    migrate_to(empty_database_url, "0013")
    earlier = settings.model_copy(update={"guerdon_database_url": empty_database_url})
    with pytest.raises(InputError, match="run `guerdon init`"):
        overview(earlier)
    assert migrate(empty_database_url) == revision.newest()
    assert overview(earlier).workers == []


@pytest.mark.postgres
def test_verify_notes_when_all_was_whole_and_nothing_where_it_was_not(database_url: str) -> None:
    activate(database_url)
    commit(database_url, _batch(3))
    assert _verified_s(database_url) is None
    assert all(finding["problem"] is None for finding in verify(database_url) if "projections" not in finding["check"])
    with transaction(database_url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.verified")
        first = _verified_s(database_url)
        cursor.execute("UPDATE guerdon.shard_head SET seq = seq + 1 WHERE seq > 0")
    assert first is not None
    assert any(finding["problem"] for finding in verify(database_url))
    assert _verified_s(database_url) == first


def _batch(events: int) -> Any:
    from engine.live.batch import Batch  # noqa: PLC0415  beside its only use

    return Batch([admitted(purchase(number, f"m{number}")) for number in range(events)])


def _verified_s(database_url: str) -> float | None:
    with transaction(database_url) as cursor:
        return figures.read(cursor).verified_s


@pytest.mark.kafka
def test_a_batch_line_says_which_partitions_how_far_behind_how_long_and_why_events_were_set_aside(
    settings: Settings,
) -> None:
    make_topics(settings, 2)
    activate(settings.database_url)
    load = Load(members=3).fill(60)
    bad = sum(1 for message in load.messages if message.reason is not None)
    with structlog.testing.capture_logs() as lines:
        publish(settings, load.messages)
        with running(settings):
            eventually(lambda: _taken(settings) == len(load.messages), "all is taken")
    batches = [line for line in lines if line["event"] == "batch"]
    assert all(line["duration_ms"] >= line["slowest_ms"] > 0 for line in batches)
    assert {line["slowest"] for line in batches} <= {*STEPS, "commit"}
    assert all(line["partitions"] for line in batches)
    assert batches[-1]["lag"] == 0
    counts: dict[str, int] = {}
    for line in batches:
        assert line["log_level"] == ("warning" if line["quarantined"] else "info")
        for reason, count in line.get("reasons", {}).items():
            counts[reason] = counts.get(reason, 0) + count
    with transaction(settings.database_url) as cursor:
        assert counts == quarantine.counts(cursor)
    assert sum(counts.values()) == bad > 0
    (assigned,) = [line for line in lines if line["event"] == "assigned"]
    assert assigned["partitions"] == "0-1 of each topic"


def _taken(settings: Settings) -> int:
    with transaction(settings.database_url) as cursor:
        (count,) = one(
            cursor, "SELECT coalesce(sum(accepted + duplicate + quarantined), 0)::bigint FROM guerdon.consumer_offset"
        )
    return int(count)


def test_steps_are_measured_with_all_their_attempts_and_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((0.0, 1.0, 2.0, 3.0, 7.0, 8.0, 8.5, 20.0))
    monkeypatch.setattr(watch, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    heard: list[str] = []
    steps = StepTimes(heard.append)
    points = ["before fence", "after fence", "before load", "after load", "before fence", "after fence"]
    for point in points:
        steps(point)
    assert steps.slowest() == ("load", 4.0)
    assert steps.seconds == 8.5
    assert heard == points
    steps.begin()
    assert (steps.slowest(), steps.seconds) == (("", 0.0), 0.0)


@given(st.sets(st.tuples(st.sampled_from([f"g.{topic}" for topic in TOPIC_TYPES]), st.integers(0, 20))))
@example({(f"g.{topic}", number) for topic in TOPIC_TYPES for number in (0, 1, 5)})
def test_partitions_in_short_name_each_one_and_no_other(partitions: set[Partition]) -> None:
    assert expanded(compact(partitions, "g."), "g.") == partitions


def test_each_worker_has_a_name_of_its_own_and_ages_are_said_in_their_largest_unit() -> None:
    assert len({worker_name() for _ in range(20)}) > 1
    assert [age(seconds) for seconds in (0.4, 119, 120, 7_100, 7_200, 172_800)] == [
        "0 s", "119 s", "2 min", "118 min", "2 h", "2 d",
    ]  # fmt: skip
