"""What `guerdon status --check` makes of each worker's row, and what the page tells whoever it has woken."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, get_args

import psycopg2
import pytest

from engine.intake.batch import OffsetMove
from engine.store import workers
from engine.store.database import transaction
from engine.store.kafka import offsets
from engine.store.kafka.short_form import expanded
from engine.store.workers import Pulse
from operations import health
from operations.health import overview, troubles
from operations.intake import offsets as listing
from operations.intake.lag import lag_rows
from tests.operations.setup.test_health import kinds, moves, quick, ready
from tests.places import DOCS
from tests.system.load import Load, publish
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.intake.batch import Partition
    from operations.settings import Settings

__all__ = ["quick", "ready"]  # fixtures

YEAR_S = 31_536_000
ROW = re.compile(r"^\| `(\w+)`", re.MULTILINE)


@pytest.fixture
def judged(database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return what judges workers by their rows and says for which of them events wait.

    Each worker is given by its partitions and the age of its last batch; each partition by its offset, its end, and
    the event time that its records begin with.
    """
    monkeypatch.setattr(health, "PATIENCE_S", 0.1)
    monkeypatch.setattr(health, "LOOK_S", 0.02)
    monkeypatch.setattr(health, "LIVES_WITHIN_S", 600.0)

    def judge(workers_at: dict[str, tuple[str, float]], at: dict[Partition, tuple[int, int, int]]) -> list[str]:
        with transaction(database_url) as cursor:
            for name, (partitions, idle_s) in workers_at.items():
                workers.beat(cursor, Pulse(name, "g", "0.1.0", 900.0, 0.0, idle_s, partitions, None, None, None))
            offsets.add_partitions(cursor, dict.fromkeys(at, 0))
            stand = offsets.positions(cursor, at)
            moves = {
                each: OffsetMove(stand[each][0], offset, 0, ahead_ms=ahead_ms)
                for each, (offset, _, ahead_ms) in at.items()
            }
            offsets.advance(cursor, moves, {})
        listed = [
            {"topic": topic, "partition": number, "next_offset": offset, "lag": end - offset, "stopped": None}
            for (topic, number), (offset, end, _) in at.items()
        ]
        monkeypatch.setattr(listing, "listed", lambda _settings: listed)
        here = settings.model_copy(update={"guerdon_database_url": database_url, "topic_prefix": ""})
        return [trouble["sentence"] for trouble in troubles(here, overview(here), []) if trouble["kind"] == "old_batch"]

    return judge


@pytest.mark.postgres
def test_a_worker_for_which_events_wait_is_named_though_another_one_commits(judged: Callable[..., list[str]]) -> None:
    at = {("purchases", 0): (9, 9, 0), ("purchases", 1): (5, 8, 0), ("signups", 1): (5, 6, 0)}
    (sentence,) = judged({"till-1": ("purchases 0", 1.0), "till-2": ("1 of purchases, signups", 90.0)}, at)
    assert sentence == (
        "4 events wait for the worker till-2, which has committed nothing for 90 s: its log says what it waits for"
    )


@pytest.mark.postgres
def test_a_worker_for_which_nothing_waits_or_that_has_just_committed_is_no_trouble(
    judged: Callable[..., list[str]],
) -> None:
    at = {("purchases", 0): (9, 9, 0), ("purchases", 1): (5, 8, 0)}
    assert judged({"till-1": ("purchases 0", 90.0), "till-2": ("purchases 1", 1.0)}, at) == []


@pytest.mark.postgres
def test_a_worker_that_is_ahead_and_waits_for_one_that_works_off_a_backlog_is_no_trouble(
    judged: Callable[..., list[str]],
) -> None:
    hour_ms = 3_600_000
    behind, ahead = ("purchases", 0), ("purchases", 1)
    rows = {"till-1": ("purchases 0", 1.0), "till-2": ("purchases 1", 90.0)}
    assert judged(rows, {behind: (5, 8, hour_ms), ahead: (5, 8, 2 * hour_ms)}) == []
    assert len(judged(rows, {behind: (5, 8, 2 * hour_ms), ahead: (5, 8, 2 * hour_ms)})) == 1
    both_stand = {"till-1": ("purchases 0", 90.0), "till-2": ("purchases 1", 90.0)}
    assert len(judged(both_stand, {behind: (5, 8, hour_ms), ahead: (5, 8, 2 * hour_ms)})) == 2


@pytest.mark.postgres
def test_partitions_that_nobody_reads_are_a_trouble_once_nobody_commits(judged: Callable[..., list[str]]) -> None:
    at = {("purchases", 0): (5, 8, 0)}
    assert judged({"till-1": ("purchases 1", 1.0)}, at) == []
    (sentence,) = judged({"till-1": ("purchases 1", 90.0)}, at)
    assert sentence.startswith("3 events wait in partitions that no worker reads, and nothing was committed for 90 s")


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_a_worker_holds_the_connections_that_the_page_counts_and_names(ready: Settings) -> None:
    def sessions() -> list[str]:
        with transaction(ready.database_url) as cursor:
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'guerdon _%'"
            )
            return [name for (name,) in cursor.fetchall()]

    page = " ".join((DOCS / "operations.md").read_text(encoding="utf-8").split())
    named = re.findall(r'"(guerdon [a-z ]+)"', page.split("A worker's sessions are ")[1].split(". Ask as")[0])
    assert len(named) == 6
    assert "Each holds six connections" in page
    with running(ready):
        eventually(lambda: sorted(sessions()) == sorted(named), "all are open, each once")


@pytest.mark.kafka
@pytest.mark.usefixtures("quick")
def test_one_of_two_workers_behind_a_lock_is_named_while_the_other_one_goes_on(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = ready.model_copy(update={"alignment_s": 10 * YEAR_S})  # the other one need not wait for it
    monkeypatch.setattr(health, "OLD_BATCH_S", 1.0)
    monkeypatch.setattr(health, "PATIENCE_S", 0.5)
    with running(ready) as first, running(ready) as second:
        eventually(lambda: len([row for row in overview(ready).workers if row["partitions"]]) == 2, "both have some")
        eventually(lambda: moves(ready), "everything moves")
        reads = {row["worker"]: expanded(row["partitions"], ready.topic_prefix) for row in overview(ready).workers}
        assert set(reads) == {first.heartbeat._watch.name, second.heartbeat._watch.name}  # noqa: SLF001  their names
        stands, goes_on = sorted(reads)
        with closing(psycopg2.connect(ready.database_url)) as dba, dba.cursor() as cursor:
            numbers = sorted({number for _, number in reads[stands]})
            cursor.execute(
                "SELECT FROM guerdon.consumer_offset WHERE partition = ANY(%s) FOR UPDATE",
                (numbers,),
            )
            publish(ready, Load(members=8, bad=False).fill(40).messages)
            eventually(lambda: "old_batch" in kinds(ready), "one stands")
            found = troubles(ready, overview(ready), lag_rows(ready))
            sentences = " ".join(trouble["sentence"] for trouble in found if trouble["kind"] == "old_batch")
            assert f"wait for the worker {stands}, " in sentences
            assert goes_on not in sentences
        eventually(lambda: moves(ready), "everything moves again")


@pytest.mark.parametrize("section", ["Health", "At night, by symptom"])
def test_the_page_has_a_row_for_each_kind_of_trouble_and_what_to_do(section: str) -> None:
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    text = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    assert [kind for kind in ROW.findall(text) if kind in get_args(health.Kind)] == list(get_args(health.Kind))


def test_the_page_names_the_parts_that_pause_as_the_command_does() -> None:
    page = " ".join((DOCS / "operations.md").read_text(encoding="utf-8").split())
    assert "the writer, projector, publisher or fold of facts of a worker" in page
    assert list(health.PARTS.values()) == ["writer", "projector", "publisher", "fold of facts"]
