"""A reader's old snapshot is named, and what changes with every batch is found at once behind it."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from engine.batch import Batch
from engine.live import LiveTransaction
from engine.store.database import one
from operations import snapshots
from operations.settings import load_settings
from operations.verify import verify
from projections.runner import catch_up, connect_to_project, finish
from tests.chaos.batches import SCHEMAS, admitted, purchase
from tests.chaos.load import activate
from tests.chaos.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812  a class under a module's name

pytestmark = pytest.mark.postgres

ROUNDS = 20
HOT = ("shard_head", "generation_head", "projection_cursor", "reward_event_g1")


@contextmanager
def reading_for_long(database_url: str) -> Iterator[Connection]:
    """Hold a snapshot as somebody does who reads for long."""
    with closing(psycopg2.connect(database_url, application_name="analysis of may")) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            one(cursor, "SELECT count(*) FROM reward.freshness")
            yield connection


def rounds(database_url: str, numbers: range) -> int:
    """Commit and fold a batch for each number, and return how many pages of the hot tables that looked at."""
    before = pages(database_url)
    with (
        closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live,
        closing(connect_to_project(database_url)) as projecting,
    ):
        for number in numbers:
            live.commit(Batch([admitted(purchase(number * 8 + each, f"m{each}")) for each in range(8)]))
            catch_up(projecting)
    return pages(database_url) - before


def pages(database_url: str) -> int:
    """Return how many pages of the hot tables all sessions have looked at that ended, as every one of Guerdon's has."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def have_told() -> bool:
            cursor.execute("SELECT FROM pg_stat_activity WHERE application_name ~ '^guerdon (worker|projector)'")
            return cursor.rowcount == 0

        eventually(have_told, "sessions end, and tell what they looked at")
        (looked_at,) = one(
            cursor,
            "SELECT sum(heap_blks_hit + heap_blks_read)::bigint FROM pg_statio_user_tables WHERE relname = ANY(%s)",
            (list(HOT),),
        )
    return int(looked_at)


def test_the_oldest_snapshot_is_named_with_who_holds_it(database_url: str, tmp_path: Path) -> None:
    settings = load_settings(database_url=database_url, home=tmp_path)
    with reading_for_long(database_url) as connection:
        found = snapshots.oldest(settings)
        assert found is not None
        assert (found["held_by"], found["pid"]) == ("session", connection.info.backend_pid)
        assert (found["application"], found["user"]) == ("analysis of may", connection.info.user)
        assert found["age_s"] >= 0
        assert snapshots.told(found) is None, "it is young"
    assert snapshots.oldest(settings) is None


def test_only_an_old_snapshot_is_told_of_by_seconds_or_else_by_transactions() -> None:
    row: dict[str, Any] = {
        "held_by": "session", "pid": 7, "application": "psql", "user": "ann", "age_s": 61, "transactions": 9,
    }  # fmt: skip
    assert snapshots.told(row) == (
        'the oldest snapshot is 61 s old (session with pid 7, "psql", user ann): '
        "what was changed since is kept, and slows workers and views"
    )
    assert snapshots.told(row | {"age_s": 59}) is None
    assert snapshots.told(row | {"age_s": None}) is None
    assert "12,000 transactions old" in str(snapshots.told(row | {"age_s": None, "transactions": 12_000}))
    slot = row | {"held_by": "replication slot", "pid": None, "application": "s", "user": None, "age_s": 100}
    assert '(replication slot, "s")' in str(snapshots.told(slot))
    assert snapshots.told(None) is None


def test_behind_an_old_snapshot_batches_and_folds_look_at_no_more_pages_than_before(database_url: str) -> None:
    """Before, each walked past all versions of each head and cursor, and a fold read the log from its beginning."""
    activate(database_url)
    with reading_for_long(database_url):
        early = rounds(database_url, range(ROUNDS))
        rounds(database_url, range(ROUNDS, 5 * ROUNDS))
        late = rounds(database_url, range(5 * ROUNDS, 6 * ROUNDS))
    assert 0 < late < 1.5 * early
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
