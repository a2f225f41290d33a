"""Every session says UTF-8, and a database that keeps text otherwise is refused before a name is altered in it."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest

from engine.live.batch import Batch
from engine.store.database import connect, migrate, transaction
from operations.verify.checks import verify
from projections.runner import finish
from schemas.errors import InputError
from tests.system.batches import admitted, commit, purchase
from tests.system.load import PROGRAMME, activate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

NAME = "bób 张伟 🙂"


def administer(url: str, statement: str) -> None:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


@pytest.mark.parametrize("setter", ["environment", "database", "url"])
def test_whatever_else_names_an_encoding_a_session_says_utf8(
    setter: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_url
    if setter == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    elif setter == "database":
        administer(url, f"ALTER DATABASE {url.rsplit('/', 1)[1]} SET client_encoding = 'LATIN1'")
    else:
        url += "?client_encoding=LATIN1"

    migrate(url)
    activate(url, PROGRAMME)
    commit(url, Batch([admitted(purchase(1, NAME))]))
    finish(url, threading.Event())

    with transaction(url) as cursor:
        cursor.execute("SHOW client_encoding")
        assert cursor.fetchall() == [("UTF8",)]
        cursor.execute("SELECT convert_to(member_id, 'UTF8') FROM reward.member_balance")
        assert {bytes(name).decode() for (name,) in cursor.fetchall()} == {NAME}
    assert [finding for finding in verify(url) if finding["problem"]] == []


@pytest.fixture(params=["LATIN1", "EUC_CN", "SQL_ASCII"])
def other_encoding(request: pytest.FixtureRequest, postgres_admin_url: str) -> Iterator[tuple[str, str]]:
    """Return the URL of a database that does not keep UTF-8, and its encoding."""
    name = f"kept_as_{request.param.lower()}"
    locale = "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    administer(postgres_admin_url, f"CREATE DATABASE {name} ENCODING '{request.param}' {locale} TEMPLATE template0")
    yield f"{postgres_admin_url.rsplit('/', 1)[0]}/{name}", request.param
    administer(postgres_admin_url, f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_in_another_encoding_is_refused_with_the_statement_that_makes_a_right_one(
    other_encoding: tuple[str, str], postgres_admin_url: str
) -> None:
    url, encoding = other_encoding
    for open_it in (migrate, connect):
        with pytest.raises(InputError, match=f"keeps text as {encoding}, .* by `CREATE DATABASE ") as refused:
            open_it(url)
    statement = str(refused.value).split("`")[1]
    administer(postgres_admin_url, statement.replace('"kept_as', '"made_right'))
    right = f"made_right_{encoding.lower()}"
    try:
        migrate(url.replace("kept_as", "made_right"))
    finally:
        administer(postgres_admin_url, f'DROP DATABASE "{right}" WITH (FORCE)')
