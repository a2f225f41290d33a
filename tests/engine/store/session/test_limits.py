"""Time limits that are too tight are named, and a batch that a limit ends is taken in smaller parts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from consumers import batch_size
from consumers.batch_size import BatchSize
from engine.store.database import connect
from engine.store.session.limits import limit_of
from operations.verify.checks import verify
from tests.engine.store.session.test_encoding import administer
from tests.models.oracle import assert_whole
from tests.system.load import PROGRAMME, Load, activate, make_topics, publish
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from operations.settings import Settings

SLOW = """
CREATE FUNCTION guerdon.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON guerdon.source_event FOR EACH ROW EXECUTE FUNCTION guerdon.slow();
GRANT EXECUTE ON FUNCTION guerdon.slow TO guerdon_writer
"""


def limit(url: str, name: str, value: str) -> None:
    administer(url, f"ALTER DATABASE {parse_dsn(url)['dbname']} SET {name} = '{value}'")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("statement_timeout", "SELECT pg_sleep(5)"),
        ("transaction_timeout", "SELECT pg_sleep(5)"),
        ("idle_in_transaction_session_timeout", None),
    ],
)
def test_a_limit_is_known_by_its_error_or_by_the_time_it_took(
    name: str, statement: str | None, database_url: str
) -> None:
    limit(database_url, name, "200ms")
    with closing(connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        if statement is None:
            _wait_ended(database_url, connection.info.backend_pid)
        with pytest.raises(psycopg2.Error) as ended:
            cursor.execute(statement or "SELECT 1")
        assert limit_of(ended.value, connection, took_s=0.3) == name
        assert limit_of(ended.value, connection, took_s=0.1) == (name if name == "statement_timeout" else None)
        for other in (psycopg2.errors.DiskFull("full"), psycopg2.OperationalError("Connection timed out")):
            assert limit_of(other, connection, took_s=60) is None


def _wait_ended(url: str, pid: int) -> None:
    with closing(psycopg2.connect(url)) as looking, looking.cursor() as cursor:
        looking.autocommit = True
        session: tuple[object, ...] | None = ()
        while session is not None:
            cursor.execute("SELECT FROM pg_stat_activity WHERE pid = %s", (pid,))
            session = cursor.fetchone()


@pytest.mark.postgres
def test_a_command_that_a_limit_ends_names_it_and_where_to_lift_it(database_url: str) -> None:
    limit(database_url, "statement_timeout", "1s")
    with closing(psycopg2.connect(database_url)) as holding, holding.cursor() as cursor:
        cursor.execute("LOCK TABLE guerdon.source_event IN ACCESS EXCLUSIVE MODE")
        done = subprocess.run(
            [sys.executable, "-c", "from cli.main import run; run()", "verify"],
            env=os.environ | {"GUERDON_DATABASE_URL": database_url},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 3, done.stdout
    assert "PostgreSQL ended this command by its statement_timeout (" in done.stderr
    assert "`ALTER ROLE … SET statement_timeout = 0`" in done.stderr
    assert "guerdon up" not in done.stderr


@pytest.mark.kafka
@pytest.mark.parametrize("name", ["statement_timeout", "transaction_timeout"])
def test_a_batch_that_a_limit_ends_is_taken_smaller(name: str, settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    load = Load(members=10).fill(200)
    publish(settings, load.messages)
    administer(settings.database_url, SLOW)
    limit(settings.database_url, name, "900ms")  # of a batch of 150 and more, which would take 1.5 s
    summary = catch_up(settings)
    assert summary.batches > 1
    administer(settings.database_url, "DROP FUNCTION guerdon.slow CASCADE")
    limit(settings.database_url, name, "0")
    assert_whole(settings, load.messages)
    assert [finding for finding in verify(settings.database_url) if finding["problem"]] == []


def test_the_size_is_halved_for_a_while_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    size = BatchSize(1_000)
    assert (size.now(), size.shrink(600), size.shrink(1), size.shrink(400)) == (1_000, 300, 1, 200)
    assert size.now() == 200
    sizes = []
    for _ in range(4):
        now += batch_size.SMALL_FOR_S + 1
        sizes.append(size.now())
    assert sizes == [400, 800, 1_000, 1_000]
