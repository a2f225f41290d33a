"""A database of another release is refused at connect, both ways, by everybody who would read or write its tables."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from consumers.worker import Worker
from engine.store import revision
from engine.store.database import as_owner, connect, end_frozen, migrate, transaction
from schemas.codec import CommittedSchemas
from schemas.errors import InputError
from tests.engine.store.session.test_encoding import administer
from tests.system.load import PROGRAMME, activate, make_topics

if TYPE_CHECKING:
    from operations.settings import Settings


def test_the_newest_revision_is_that_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(revision.VERSIONS.parent))
    assert ScriptDirectory.from_config(config).get_current_head() == revision.newest()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("present", "why"),
    [
        ("0012", r"at revision 0012 and this release works with \d{4}: end the workers .* run `guerdon init`"),
        ("9999", r"at revision 9999, which is newer than this release \(\d{4}\): use the release that migrated it"),
        ("0009", r"at revision 0009 and this release .* run `guerdon init`"),
    ],
)
def test_a_database_of_another_release_is_refused(present: str, why: str, database_url: str) -> None:
    connect(database_url).close()
    administer(database_url, f"UPDATE guerdon.alembic_version SET version_num = '{present}'")
    with pytest.raises(InputError, match=why):
        connect(database_url)
    with pytest.raises(InputError, match=why), transaction(database_url):
        pass
    with pytest.raises(InputError, match=why), as_owner(database_url):
        pass
    end_frozen(database_url)  # which looks at no table


@pytest.mark.postgres
def test_a_database_without_tables_names_init(empty_database_url: str) -> None:
    with pytest.raises(InputError, match="no tables of Guerdon's: run `guerdon init` first, or correct"):
        connect(empty_database_url)
    migrate(empty_database_url)
    connect(empty_database_url).close()


@pytest.mark.kafka
def test_a_worker_whose_database_was_migrated_under_it_ends_when_it_connects_again(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    worker = Worker(settings, CommittedSchemas())
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run)

        # a newer release migrates the database and ends the worker's sessions
        try:
            administer(settings.database_url, "UPDATE guerdon.alembic_version SET version_num = '9999'")
            administer(
                settings.database_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'guerdon worker%'",
            )
            with pytest.raises(InputError, match=r"newer than this release .* use the release that migrated it"):
                running.result(60)
        finally:
            worker.stop()
