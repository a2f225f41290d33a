"""A database of an earlier release is brought to this one with its log, and every view is folded from the beginning."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from engine.store import migrations, revision
from engine.store.database import migrate, transaction
from engine.store.generations import meanings
from engine.store.programmes import judged_as
from operations.verify.checks import verify
from projections.runner import finish
from tests.operations.verify.test_ledger import GRANT, ISSUE, RESERVE, TIER
from tests.strategies.movements import Entry
from tests.strategies.reward_histories import append

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres


def migrate_to(database_url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg2://", 1))
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA guerdon"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


@contextmanager
def transaction_of_owner(database_url: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        yield cursor


def test_what_an_earlier_release_logged_is_in_the_views_that_came_after_it(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_to(empty_database_url, "0003")  # the last in which there were no such views
    with transaction_of_owner(empty_database_url) as cursor:  # what the present release locks, and that one had not
        cursor.execute(
            """
            CREATE TABLE guerdon.shard_lock AS SELECT shard FROM guerdon.shard_head;
            GRANT SELECT, UPDATE ON guerdon.shard_lock TO guerdon_writer
            """
        )
    with monkeypatch.context() as earlier:
        earlier.setattr(revision, "newest", lambda: "0003")
        earlier.setattr(meanings, "refuse_newer", lambda _cursor: None)
        append(empty_database_url, [Entry("m", [GRANT, RESERVE, ISSUE, TIER])])
    with transaction_of_owner(empty_database_url) as cursor:
        cursor.execute("DROP TABLE guerdon.shard_lock")

    # this release migrates it and folds its log
    migrate(empty_database_url)
    finish(empty_database_url, threading.Event())
    with transaction(empty_database_url) as cursor:
        cursor.execute("SELECT next_expiry_amount FROM reward.member_balance")
        assert cursor.fetchall() == [(50,)]
        cursor.execute("SELECT item, status FROM reward.member_reward")
        assert cursor.fetchall() == [("five-off", "active")]
        cursor.execute("SELECT tier, previous FROM reward.tier_history")
        assert cursor.fetchall() == [("gold", None)]
    assert [finding for finding in verify(empty_database_url) if finding["problem"]] == []


def test_versions_of_an_earlier_release_keep_their_cohorts_and_write_no_entries(empty_database_url: str) -> None:
    migrate_to(empty_database_url, "0029")
    rule = "- {{id: {}, on: share, cohort: {{salt: s, treat: {}}}, give: [{{points: 1}}]}}\n"
    head = "schema: guerdon/1\nprogramme: p\ntimezone: UTC\ncurrency: USD\nrules:\n"
    with transaction_of_owner(empty_database_url) as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.programme_version (version, programme, currency, digest, tzdata, file_name, body)
            VALUES (1, 'p', 'USD', 'a', '', 'p.yaml', %s), (2, 'p', 'USD', 'b', '', 'p.yaml', %s)
            """,
            (
                head + rule.format("a", "50%") + rule.format("b", "20%"),
                head + "- {id: a, on: share, give: [{badge: b}]}",
            ),
        )

    # one salt with two splits is an error by now, and its version judges as it did
    migrate(empty_database_url)
    with transaction(empty_database_url) as cursor:
        cursor.execute("SELECT cohorts, enters_cohorts FROM guerdon.programme_version ORDER BY version")
        splits = {"a": {"salt": "s", "treat": 5_000}, "b": {"salt": "s", "treat": 2_000}}
        assert cursor.fetchall() == [(splits, False), ({}, False)]
        assert len(judged_as(cursor, 1).rules) == 2
