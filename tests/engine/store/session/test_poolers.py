"""PgBouncer that keeps to a session works; one that gives each transaction another session is refused at once."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from engine.live.batch import Batch
from engine.store.database import connect, migrate, transaction
from engine.store.session import poolers
from operations.services import processes
from operations.verify.checks import verify
from projections.runner import finish
from schemas.errors import InputError
from tests.services import clusters
from tests.services.packages import program
from tests.system.batches import admitted, commit, purchase
from tests.system.load import PROGRAMME, activate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

DEADLINE_S = 30.0


@contextlib.contextmanager
def pgbouncer(database_url: str, mode: str, size: int, more: str = "") -> Iterator[str]:
    """Run PgBouncer before the database, and yield its URL."""
    server_dsn, port, name = parse_dsn(database_url), processes.free_port(), f"pooled_{mode}_{size}"
    with clusters.folder() as place:
        (place / "users").write_text(f'"{server_dsn["user"]}" "{server_dsn["password"]}"\n')
        (place / "ini").write_text(
            f"[databases]\n{name} = host={server_dsn['host']} port={server_dsn['port']} dbname={server_dsn['dbname']}\n"
            f"[pgbouncer]\nlisten_addr = {processes.HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {place / 'users'}\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\n{more}\n"
        )
        for each in (place / "users", place / "ini"):
            each.chmod(0o644)

        server = subprocess.Popen(
            [program("pgbouncer", "pgbouncer"), str(place / "ini")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=place, **processes.run_as(clusters.user()),
        )  # fmt: skip
        url = f"postgresql://{server_dsn['user']}:{server_dsn['password']}@{processes.HOST}:{port}/{name}"
        try:
            _await(url, server)
            yield url
        finally:
            server.kill()
            server.wait()


def _await(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            psycopg2.connect(url).close()
        except psycopg2.OperationalError:
            assert server.poll() is None, "PgBouncer has ended"
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(0.02)
        else:
            return


@pytest.mark.parametrize(
    ("mode", "size", "more"),
    [
        ("transaction", 1, ""),
        ("transaction", 4, ""),
        ("transaction", 4, "server_round_robin = 1"),
        ("statement", 2, ""),
    ],
)
def test_a_pooler_that_changes_the_session_is_refused_before_anything_is_set_in_it(
    mode: str, size: int, more: str, database_url: str
) -> None:
    with pgbouncer(database_url, mode, size, more) as url:
        with closing(psycopg2.connect(url)) as other, other.cursor() as cursor:
            if mode == "transaction" and size > 1:  # somebody else holds one of the pool's sessions
                cursor.execute("SELECT 1")
            for open_it in (connect, migrate):
                with pytest.raises(InputError, match=r"gives each transaction another session.* pool_mode = session"):
                    open_it(url)
        with closing(psycopg2.connect(url)) as after:
            after.autocommit = True
            with after.cursor() as cursor:
                cursor.execute("SELECT current_user = session_user, current_setting('statement_timeout')")
                assert cursor.fetchone() == (True, "0")  # no role and no limit is left to the next client


def test_a_pooler_that_keeps_to_a_session_works(database_url: str) -> None:
    with pgbouncer(database_url, "session", 8) as url:
        migrate(url)
        activate(url, PROGRAMME)
        commit(url, Batch([admitted(purchase(1))]))
        finish(url, threading.Event())
        assert [finding for finding in verify(url) if finding["problem"]] == []
        with transaction(url) as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            assert cursor.connection.pid == (cursor.fetchone() or ())[0] != cursor.connection.info.backend_pid  # type: ignore[attr-defined]


def test_a_pool_of_one_that_keeps_to_a_session_works(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poolers, "PATIENCE_S", 0.5)  # the neighbour waits for the only session, in vain
    with pgbouncer(database_url, "session", 1) as url, transaction(url) as cursor:
        cursor.execute("SELECT count(*) FROM guerdon.shard_head")
        assert cursor.fetchone() == (64,)
