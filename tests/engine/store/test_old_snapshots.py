"""A reader's old snapshot is named, and behind it the newest version of a hot row is still found at once."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from engine.intake.batch import OffsetMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import PUBLISHER, connect, transaction
from engine.store.eras import keep_to_keys
from engine.store.kafka import offsets, publication
from operations import snapshots
from operations.settings import load_settings
from operations.verify.checks import verify
from projections.runner import catch_up, connect_to_project, finish
from schemas.partitioning import SHARDS
from tests.system.batches import SCHEMAS, admitted, purchase
from tests.system.load import activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.store.cursor import Connection

pytestmark = pytest.mark.postgres

ROUNDS = 16
MEMBERS = 8
PLACE = ("guerdon.purchases", 0)
HOT = (
    "shard_head", "generation_head", "projection_cursor", "publication_cursor", "consumer_offset", "member_state",
    "member_balance", "member_expiry", "points_day", "contest_score", "budget", "reward_event_g1",
)  # fmt: skip
"""The tables that change with every batch and fold of the programme below, and the log that they read."""

BODY = """\
schema: guerdon/1
programme: hot
timezone: America/New_York
currency: USD
points: {validity: 1y}
rules:
- id: spend
  on: purchase
  campaign: spring
  give: [{points: 3}]
  limits: [{max: 1000000, per: campaign, every: year}]
contests: [{id: most, metric: spend, period: month, winners: 1}]
"""


@contextmanager
def reading_for_long(database_url: str) -> Iterator[Connection]:
    """Hold a snapshot, as a long reader does."""
    with closing(psycopg2.connect(database_url, application_name="analysis of may")) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            one(cursor, "SELECT count(*) FROM reward.freshness")
            yield connection


def rounds(database_url: str, numbers: range) -> dict[str, int]:
    """Commit, fold and publish a batch for each number; return the pages of each hot table that were looked at.

    PostgreSQL's statistics are as soon after a change: they say that the tables have few rows.
    """
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    before = pages(database_url)
    with (
        closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live,
        closing(connect_to_project(database_url)) as projecting,
        closing(connect(database_url, application=PUBLISHER)) as publishing,
        publishing.cursor() as cursor,
    ):
        keep_to_keys(cursor)

        for number in numbers:
            first = number * MEMBERS
            events = [admitted(purchase(first + each, f"m{each}")) for each in range(MEMBERS)]
            for offset, event in enumerate(events, first):
                (event.topic, event.partition), event.offset = PLACE, offset

            live.commit(Batch(events, moves={PLACE: OffsetMove(first, first + MEMBERS, 0)}))
            catch_up(projecting)
            name, ranges = publication.lock_ranges(cursor, 1, SHARDS, 1_000)
            assert publication.LogReader().read(cursor, 1, ranges)
            publication.move(cursor, 1, name, ranges)
            publishing.commit()
    after = pages(database_url)
    return {table: after[table] - before[table] for table in HOT}


def pages(database_url: str) -> dict[str, int]:
    """Return the pages of each table that ended sessions have looked at; all of Guerdon's have ended."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def have_told() -> bool:
            cursor.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name ~ '^guerdon (worker|projector|facts|publisher)'"
            )
            return cursor.rowcount == 0

        eventually(have_told, "sessions end, and report the pages they looked at")
        cursor.execute("SELECT relname, heap_blks_hit + heap_blks_read FROM pg_statio_user_tables")
        return dict(cursor.fetchall())


def test_the_oldest_snapshot_is_named_with_who_holds_it(database_url: str, tmp_path: Path) -> None:
    settings = load_settings(database_url=database_url, home=tmp_path)
    with reading_for_long(database_url) as connection:
        oldest = snapshots.oldest(settings)
        assert oldest is not None
        assert (oldest["held_by"], oldest["pid"]) == ("session", connection.info.backend_pid)
        assert (oldest["application"], oldest["user"]) == ("analysis of may", connection.info.user)
        assert oldest["age_s"] >= 0
        assert snapshots.sentence(oldest) is None, "it is young"
    assert snapshots.oldest(settings) is None


def test_only_an_old_snapshot_is_told_of_by_seconds_or_else_by_transactions() -> None:
    row: dict[str, Any] = {
        "held_by": "session", "pid": 7, "application": "psql", "user": "ann", "age_s": 61, "transactions": 9,
    }  # fmt: skip
    assert snapshots.sentence(row) == (
        'the oldest snapshot is 61 s old (session with pid 7, "psql", user ann): '
        "what was changed since is kept, and slows workers and views"
    )
    assert snapshots.sentence(row | {"age_s": 59}) is None
    assert snapshots.sentence(row | {"age_s": None}) is None
    assert "12,000 transactions old" in str(snapshots.sentence(row | {"age_s": None, "transactions": 12_000}))
    slot = row | {"held_by": "replication slot", "pid": None, "application": "s", "user": None, "age_s": 100}
    assert '(replication slot, "s")' in str(snapshots.sentence(slot))
    assert snapshots.sentence(None) is None


def test_behind_an_old_snapshot_batches_and_folds_look_at_no_more_pages_than_before(database_url: str) -> None:
    """Before, each walked past all versions of each row, and a fold read the log from its beginning."""
    activate(database_url, BODY)
    with transaction(database_url) as cursor:
        offsets.add_partitions(cursor, {PLACE: 0})
        publication.begin(cursor, 1)
    with reading_for_long(database_url):
        rounds(database_url, range(ROUNDS))
        early = rounds(database_url, range(ROUNDS, 2 * ROUNDS))
        rounds(database_url, range(2 * ROUNDS, 5 * ROUNDS))
        late = rounds(database_url, range(5 * ROUNDS, 6 * ROUNDS))
    grown = {table: (early[table], late[table]) for table in HOT if not 0 < late[table] < 1.5 * early[table]}
    assert not grown
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
