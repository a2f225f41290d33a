"""A database of another release is refused at connect, both ways, by everybody who would read or write its tables."""

from __future__ import annotations

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from engine.store import revision
from engine.store.database import as_owner, connect, end_frozen, migrate, transaction
from schemas.errors import InputError
from tests.test_database_encoding import administer


def test_the_newest_revision_is_that_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(revision.VERSIONS.parent))
    assert ScriptDirectory.from_config(config).get_current_head() == revision.newest()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("found", "why"),
    [
        ("0012", r"at revision 0012 and this release works with \d{4}: end the workers .* run `guerdon init`"),
        ("9999", r"at revision 9999, which is newer than this release \(\d{4}\): use the release that migrated it"),
        ("0009", r"at revision 0009 and this release .* run `guerdon init`"),
    ],
)
def test_a_database_of_another_release_is_refused(found: str, why: str, database_url: str) -> None:
    connect(database_url).close()
    administer(database_url, f"UPDATE guerdon.alembic_version SET version_num = '{found}'")  # noqa: S608  digits
    with pytest.raises(InputError, match=why):
        connect(database_url)
    with pytest.raises(InputError, match=why), transaction(database_url):
        pass
    with pytest.raises(InputError, match=why), as_owner(database_url):
        pass
    end_frozen(database_url)  # which looks at no table


@pytest.mark.postgres
def test_a_database_without_tables_names_init(empty_database_url: str) -> None:
    with pytest.raises(InputError, match="no tables of Guerdon's yet; run `guerdon init` first"):
        connect(empty_database_url)
    migrate(empty_database_url)
    connect(empty_database_url).close()
