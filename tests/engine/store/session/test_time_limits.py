"""Every wait for PostgreSQL ends: by limits that nobody has to set, and where an answer was lost on the way."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from engine.live.transaction import LiveTransaction
from engine.store.database import NO_LIMIT, connect, transaction
from engine.store.session import connect as session
from engine.store.session import watch
from engine.store.session.asking import Inquiry
from engine.store.session.connect import LIMITS, parameters
from operations.setup import projections
from projections import runner
from projections.runner import connect_to_project, connect_to_rebuild
from schemas.errors import ServiceUnreachable
from tests.engine.store.session.test_encoding import administer
from tests.services.losing_proxy import LosingProxy
from tests.system.batches import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Connection, Cursor

DEADLINE_S = 60.0
SLEEP = "SELECT pg_sleep(1)"


def test_limits_of_the_url_and_of_the_environment_win() -> None:
    assert parameters("postgresql://u@h/d", {}) == {**LIMITS, "client_encoding": "UTF8"}
    named = parameters("postgresql://u@h/d?keepalives_idle=60&tcp_user_timeout=0", {"PGCONNECT_TIMEOUT": "30"})
    assert named == {"keepalives_interval": "2", "keepalives_count": "3", "client_encoding": "UTF8"}


@pytest.mark.postgres
def test_every_connection_has_limits_to_its_silence(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        assert LIMITS.items() <= connection.info.dsn_parameters.items()
        assert connection.info.dsn_parameters["client_encoding"] == "UTF8"


def limit_of(connection: Connection) -> str:
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        row = cursor.fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.postgres
def test_what_serves_people_and_events_has_a_limit_and_long_work_has_none(database_url: str) -> None:
    live = LiveTransaction(database_url, SCHEMAS.lookup)
    assert limit_of(live._connection) == "1min"  # noqa: SLF001  the hot path's own connection
    assert limit_of(connect_to_project(database_url)) == "1min"
    assert limit_of(connect_to_project(database_url, NO_LIMIT)) == "0"
    assert limit_of(connect_to_rebuild(database_url)) == "0"
    with transaction(database_url) as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("1min",)
    administer(database_url, f"ALTER DATABASE {parse_dsn(database_url)['dbname']} SET statement_timeout = '7s'")
    assert limit_of(connect(database_url)) == "7s"
    assert limit_of(connect(database_url, statement_max=NO_LIMIT)) == "7s"  # the operator's word stands


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the watch look and ask soon."""
    soon = {"LOOK_S": 0.1, "ASK_AFTER_S": 1.0, "SETTLED_S": 0.5, "ANSWERS_WITHIN_S": 1.0, "STOPPED_S": 10.0}
    for name, value in soon.items():
        monkeypatch.setattr(watch, name, value)


@pytest.fixture
def proxy(database_url: str, impatient: None) -> Iterator[LosingProxy]:  # noqa: ARG001  a fixture
    place = parse_dsn(database_url)
    with LosingProxy((place["host"], int(place["port"]))) as standing_between:
        yield standing_between


@pytest.mark.postgres
@pytest.mark.parametrize("what", ["statement", "answer", "commit", "copy"])
def test_an_answer_that_was_lost_is_not_waited_for(what: str, proxy: LosingProxy, database_url: str) -> None:
    with (
        closing(connect(proxy.url(database_url), statement_max=NO_LIMIT)) as connection,
        ThreadPoolExecutor(1) as pool,
        connection.cursor() as cursor,
    ):
        if what == "copy":
            cursor.execute("CREATE TEMPORARY TABLE copied (n integer)")
            connection.commit()
            waiting = pool.submit(cursor.copy_expert, "COPY copied FROM STDIN", _Losing(proxy))
        elif what == "answer":
            waiting = pool.submit(cursor.execute, SLEEP)
            _wait_active(database_url)
            proxy.lose()
        else:
            cursor.execute("SELECT 1")
            proxy.lose()
            waiting = pool.submit(cursor.execute, "SELECT 2") if what == "statement" else pool.submit(connection.commit)

        # the answer is lost for good, and yet the wait ends
        proxy.wait_lost(DEADLINE_S)
        proxy.losing = False
        with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
            waiting.result(DEADLINE_S)
    with transaction(proxy.url(database_url)) as cursor:
        cursor.execute("SELECT 1")


class _Losing(io.StringIO):
    """Be a file whose second part is lost on the way."""

    def __init__(self, proxy: LosingProxy) -> None:
        super().__init__("1\n2\n")
        self._proxy = proxy
        self._parts = 0

    def read(self, _size: int | None = -1) -> str:
        self._parts += 1
        if self._parts == 2:
            self._proxy.lose()
        return "7\n" * 10_000 if self._parts < 4 else ""


def _wait_active(url: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    with closing(psycopg2.connect(url)) as looking, looking.cursor() as cursor:
        looking.autocommit = True
        while time.monotonic() < deadline:
            cursor.execute(
                """
                SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'active' AND query = %s
                """,
                (SLEEP,),
            )
            if cursor.fetchone() is not None:
                return
    raise AssertionError("the statement did not arrive")


@pytest.mark.postgres
def test_a_server_that_answers_nobody_is_given_up(
    proxy: LosingProxy, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "UNREACHABLE_S", 2.0)
    with closing(connect(proxy.url(database_url))) as connection, connection.cursor() as cursor:
        proxy.lose()
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("SELECT 1")
        begun = time.monotonic()
        with pytest.raises(ServiceUnreachable, match=r"PostgreSQL does not answer: .*timeout expired"):
            connect(proxy.url(database_url) + "?connect_timeout=2")
        assert time.monotonic() - begun < DEADLINE_S


@pytest.mark.postgres
def test_a_statement_that_takes_long_is_let_be(impatient: None, database_url: str) -> None:  # noqa: ARG001  a fixture
    with closing(connect(database_url, statement_max=NO_LIMIT)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(4)")
        assert cursor.fetchone() == ("",)


@pytest.mark.postgres
def test_a_session_that_was_closed_is_looked_at_no_more(database_url: str) -> None:
    connection = connect(database_url)
    assert connection in watch._watch.sessions  # noqa: SLF001  there is no other way to see it
    connection.close()
    assert connection not in watch._watch.sessions  # noqa: SLF001  as above


@pytest.mark.postgres
@pytest.mark.parametrize("lost", [False, True])
def test_a_statement_can_be_ended_whether_or_not_the_server_hears_of_it(
    lost: bool,  # noqa: FBT001  a parameter
    proxy: LosingProxy,
    database_url: str,
) -> None:
    with (
        closing(connect(proxy.url(database_url), statement_max=NO_LIMIT)) as connection,
        ThreadPoolExecutor(1) as pool,
        connection.cursor() as cursor,
    ):
        waiting = pool.submit(cursor.execute, SLEEP)
        _wait_active(database_url)
        if lost:
            proxy.lose()
        connection.cancel()
        with pytest.raises(psycopg2.OperationalError if lost else psycopg2.errors.QueryCanceled):
            waiting.result(DEADLINE_S)


@pytest.mark.postgres
def test_a_projection_is_verified_however_long_that_takes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[str] = []

    def looked(cursor: Cursor, *_: object) -> None:
        cursor.execute("SHOW statement_timeout")
        limits.extend(limit for (limit,) in cursor.fetchall())

    monkeypatch.setattr(runner, "difference", looked)
    projections.difference(database_url, "member_balance")
    assert set(limits) == {"0"}


@pytest.mark.postgres
def test_a_statement_is_ended_at_the_host_that_has_it(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = parse_dsn(database_url)
    hosts = f"{place['host']},{place['host']}", f"1,{place['port']}"
    url = make_dsn(database_url, host=hosts[0], port=hosts[1])  # as if the first were away when we connected
    asked: list[dict[str, object]] = []

    def ask(url: str, patience_s: float, **parameters: object) -> Inquiry:
        asked.append(parameters)
        return Inquiry(url, patience_s, **parameters)

    monkeypatch.setattr(session, "Inquiry", ask)
    with closing(connect(url)) as connection:
        connection.cancel()
        assert connection.info.port == int(place["port"])
    assert [(each["host"], each["port"]) for each in asked] == [(place["host"], int(place["port"]))]
