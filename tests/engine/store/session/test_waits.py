"""Nothing waits in silence: who is in the way is named; and no stranger can be in the way of workers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg2
import pytest
import structlog
from psycopg2.errors import InsufficientPrivilege
from structlog.testing import capture_logs

from consumers.output.publisher import finish as finish_publishing
from engine.live.batch import Batch
from engine.live.transaction import ATTEMPTS_MAX, LiveTransaction
from engine.store.cursor import one
from engine.store.database import MIGRATION_LOCK, as_owner, connect, migrate, transaction
from engine.store.generations import live_generation, shadows
from engine.store.generations.stillness import Stillness
from engine.store.session import blockers, voice, watched
from operations.replay.run import Request, replay
from operations.setup import programmes
from projections.rebuild import REBUILD_LOCK, rebuild
from projections.runner import finish
from schemas.errors import AnswerIsNo
from schemas.events import Signup
from tests.engine.ledger.test_referrals import programme as with_referrals
from tests.places import ROOT
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import PROGRAMME, START_MS, activate, make_topics
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping, Sequence
    from pathlib import Path

    from operations.services.postgresql import LocalPostgres
    from operations.settings import Settings

pytestmark = pytest.mark.postgres

SOON_S = 0.4
LOCKS_OF_OLD = (0x6C69_7665, 0x636C_6169)
"""Advisory locks of an earlier release, for the live generation and for claims."""

MODES = (
    "ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE", "ACCESS EXCLUSIVE",
)  # fmt: skip


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce waits after a moment, on standard error: no log is set up."""
    structlog.reset_defaults()
    monkeypatch.setattr(voice, "FIRST_S", SOON_S)
    monkeypatch.setattr(watched, "AGAIN_S", 0.1)


@contextmanager
def holding(database_url: str, statement: str) -> Iterator[tuple[psycopg2.extensions.connection, int]]:
    """Yield another client's session with `statement` executed in an open transaction, and its pid."""
    with closing(psycopg2.connect(database_url, application_name="by hand")) as other, other.cursor() as cursor:
        cursor.execute(statement)
        yield other, other.get_backend_pid()


@contextmanager
def role(database_url: str, name: str, *grants: str) -> Iterator[str]:
    """Yield the URL of a login that has nothing but `grants`."""
    with as_owner(database_url) as session, session, session.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        for each in grants:
            cursor.execute(f"GRANT {each} TO {name}")
    server = database_url.split("@", 1)[1]
    try:
        yield f"postgresql://{name}:x@{server}"
    finally:
        with as_owner(database_url) as session, session, session.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()",
                (name,),
            )
            cursor.execute(f"DROP ROLE {name}")


# Strangers


@pytest.mark.parametrize("grants", [(), ("guerdon_analyst",)], ids=["stranger", "analyst"])
def test_who_may_not_write_can_hold_up_no_worker(grants: tuple[str, ...], database_url: str) -> None:
    activate(database_url, with_referrals())
    name = f"stranger_{database_url[-12:]}"
    with role(database_url, name, *grants) as url, closing(psycopg2.connect(url)) as other, other.cursor() as cursor:
        # it may take advisory locks, but lock no table
        cursor.execute("SELECT pg_advisory_lock(%s), pg_advisory_lock(%s)", LOCKS_OF_OLD)
        other.commit()
        with transaction(database_url) as own:
            own.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'guerdon'::regnamespace AND relkind IN ('r', 'p')"
            )
            tables = [table for (table,) in own.fetchall()]
        assert {"evaluating", "deciding_claims", "shard_head"} <= set(tables)
        for table in tables:
            for mode in MODES:
                with pytest.raises(InsufficientPrivilege):
                    cursor.execute(f"LOCK TABLE guerdon.{table} IN {mode} MODE NOWAIT")
                other.rollback()

        # and workers go on
        bought = [admitted(purchase(number, f"m{number}")) for number in range(4)]
        assert commit(database_url, Batch(bought)).accepted == 4
        claims = [
            Signup(event_id=f"s{number}", member_id=f"m{number}", referrer_id="m0", occurred_at=START_MS + 9 + number)
            for number in range(1, 4)
        ]
        assert commit(database_url, Batch([admitted(each) for each in claims])).accepted == 3


def test_advisory_locks_guard_nothing_that_workers_wait_for() -> None:
    root = ROOT
    rooms = ("engine", "projections", "operations", "consumers")
    places = {
        path.relative_to(root).as_posix()
        for room in rooms
        for path in (root / room).rglob("*.py")
        if "pg_advisory" in path.read_text(encoding="utf-8") or "pg_try_advisory" in path.read_text(encoding="utf-8")
    }
    # one that never waits and names who is first, and that of `init`, before there is any table to lock
    assert places == {"engine/store/session/blockers.py", "engine/store/database.py"}


def test_who_comes_second_is_told_who_is_first(database_url: str) -> None:
    activate(database_url)
    locks = f"({REBUILD_LOCK}, hashtext('member_balance')), pg_advisory_xact_lock({shadows.REPLAY_LOCK}, 5)"
    with holding(database_url, f"SELECT pg_advisory_xact_lock{locks}") as (_, pid):
        words = rf"wait for its end: pid {pid} \(user .*, by hand\) holds"
        with pytest.raises(AnswerIsNo, match=words):
            rebuild(database_url, "member_balance")
        with transaction(database_url) as cursor, pytest.raises(AnswerIsNo, match=words):
            shadows.lock(cursor, 5)


# Evaluation held still


def test_while_evaluation_is_held_still_others_wait_and_the_holder_writes(database_url: str) -> None:
    activate(database_url)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as alone, ThreadPoolExecutor(1) as pool:
        alone.hold_still(1)
        other = pool.submit(commit, database_url, Batch([admitted(purchase(1))]))
        assert alone.commit(Batch([admitted(purchase(2))])).accepted == 1
        assert not other.done()
        alone.close()
        assert other.result(30).accepted == 1


def test_who_was_not_alone_all_the_time_does_not_commit(database_url: str) -> None:
    activate(database_url)
    at: dict[str, Callable[[], None]] = {}
    with closing(
        LiveTransaction(database_url, SCHEMAS.lookup, observe=lambda point: at.get(point, lambda: None)())
    ) as alone:
        alone.hold_still(1)

        def end() -> None:
            with as_owner(database_url) as session, session, session.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(l.pid, 5000) FROM pg_locks l "
                    "WHERE l.relation = 'guerdon.evaluating'::regclass AND l.mode = 'ExclusiveLock' "
                    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )

        at["before commit"] = end
        with pytest.raises(AnswerIsNo, match="ended the session that held evaluation still"):
            alone.commit(Batch([admitted(purchase(2))]))
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.source_event WHERE source <> 'guerdon'") == (0,)


def test_evaluation_is_not_held_where_somebody_evaluates_for_too_long(database_url: str) -> None:
    with transaction(database_url) as cursor:
        live_generation.lock_live(cursor)
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            Stillness(database_url, 1)


# Voices


@pytest.mark.usefixtures("soon")
def test_a_writer_that_waits_for_a_lock_says_for_which_and_whose(database_url: str) -> None:
    activate(database_url)
    with capture_logs() as lines, ThreadPoolExecutor(1) as pool:
        with holding(database_url, "LOCK TABLE guerdon.source_event IN ACCESS EXCLUSIVE MODE") as (_, pid):
            writing = pool.submit(commit, database_url, Batch([admitted(purchase(1))]))
            eventually(lambda: bool(of(lines, "writer waits")), "writer waits")
        assert writing.result(30).accepted == 1
    first = of(lines, "writer waits")[0]
    assert "for a lock on guerdon.source_event that pid" in first["why"]
    assert f"pid {pid} (user " in first["why"]
    assert "by hand, idle in transaction since" in first["why"]
    assert "`LOCK TABLE guerdon.source_event IN ACCESS EXCLUSIVE MODE`) holds" in first["why"]
    assert first["blocked_by"] == [pid]
    assert len(of(lines, "writer waits")) == 1, "the next one comes 10 s later"
    assert [line["event"] for line in lines].count("writer goes on") == 1


def of(lines: Sequence[MutableMapping[str, Any]], event: str) -> list[MutableMapping[str, Any]]:
    return [line for line in lines if line["event"] == event]


def test_each_lock_that_was_not_to_be_had_is_told(database_url: str) -> None:
    activate(database_url)
    hasty = f"{database_url}?options=-c%20lock_timeout%3D60ms"
    with (
        capture_logs() as lines,
        holding(database_url, "LOCK TABLE guerdon.source_event IN ACCESS EXCLUSIVE MODE"),
        pytest.raises(psycopg2.errors.LockNotAvailable),
    ):
        commit(hasty, Batch([admitted(purchase(1))]))
    repeats = of(lines, "writer repeats")
    assert [line["failed"] for line in repeats] == list(range(1, ATTEMPTS_MAX))
    assert "lock timeout" in str(repeats[0]["why"])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("LOCK TABLE guerdon.evaluating IN EXCLUSIVE MODE", "guerdon.evaluating"),
        ("SELECT FROM guerdon.shard_head WHERE shard = 7 FOR UPDATE", "guerdon.shard_head"),
    ],
)
def test_an_operators_command_says_on_standard_error_whom_it_waits_for(
    statement: str, table: str, database_url: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "programme.yaml"
    file.write_text(PROGRAMME, encoding="utf-8")
    printed = ""

    def is_told() -> bool:
        nonlocal printed
        printed += capfd.readouterr().err
        return f"lock on {table}" in printed

    with ThreadPoolExecutor(1) as pool:
        with holding(database_url, statement) as (_, pid):
            activating = pool.submit(programmes.activate, database_url, file)
            eventually(is_told, "the command says whom it waits for")
        activating.result(30)
    assert f"that pid {pid} (user " in printed
    assert printed.startswith("guerdon: `"), "one sentence, no log line"
    assert capfd.readouterr().err.startswith("guerdon: goes on after ")


@pytest.mark.usefixtures("soon")
def test_init_says_whom_it_waits_for(database_url: str) -> None:
    with capture_logs() as lines, ThreadPoolExecutor(1) as pool:
        with holding(database_url, f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})") as (_, pid):
            migrating = pool.submit(migrate, database_url)
            eventually(lambda: bool(of(lines, "init waits")), "init waits")
        migrating.result(60)
    assert f"for a lock on advisory that pid {pid} " in str(of(lines, "init waits")[0]["why"])


@pytest.mark.usefixtures("soon")
def test_who_catches_up_says_who_holds_what_is_left(database_url: str) -> None:
    activate(database_url)
    commit(database_url, Batch([admitted(purchase(1, amount=9_900))]))
    finishing = threading.Thread(target=finish, args=(database_url, threading.Event()))
    with capture_logs() as lines:
        with holding(database_url, "SELECT FROM guerdon.projection_cursor FOR UPDATE") as (_, pid):
            finishing.start()
            eventually(lambda: bool(of(lines, "projector waits")), "projector waits")
        finishing.join(30)
    why = str(of(lines, "projector waits")[0]["why"])
    assert "rows of guerdon.projection_cursor" in why
    assert f"pid {pid} (" in why
    assert of(lines, "projector goes on") or not finishing.is_alive()


@pytest.mark.kafka
@pytest.mark.usefixtures("soon")
def test_who_publishes_says_who_holds_what_is_left(settings: Settings) -> None:
    make_topics(settings, 1)
    url = settings.database_url
    activate(url)
    commit(url, Batch([admitted(purchase(1, amount=9_900))]))
    finish_publishing(settings, threading.Event())
    commit(url, Batch([admitted(purchase(2, amount=9_900))]))
    finishing = threading.Thread(target=finish_publishing, args=(settings, threading.Event()))
    with capture_logs() as lines:
        with holding(url, "SELECT FROM guerdon.publication_cursor FOR UPDATE") as (_, pid):
            finishing.start()
            eventually(lambda: bool(of(lines, "publisher waits")), "publisher waits")
        finishing.join(30)
    assert not finishing.is_alive()
    assert f"rows of guerdon.publication_cursor that pid {pid} (" in str(of(lines, "publisher waits")[0]["why"])


@pytest.mark.usefixtures("soon")
def test_a_standby_that_does_not_confirm_is_told(postgres_service: LocalPostgres) -> None:
    url = postgres_service.address
    migrate(url)
    activate(url)

    with closing(psycopg2.connect(url)) as owner, owner.cursor() as cursor, capture_logs() as lines:
        owner.autocommit = True
        with ThreadPoolExecutor(1) as pool:
            cursor.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            cursor.execute("SELECT pg_reload_conf()")
            writing = pool.submit(commit, url, Batch([admitted(purchase(1))]))
            try:
                eventually(lambda: bool(of(lines, "writer waits")), "writer waits")
            finally:
                cursor.execute("ALTER SYSTEM RESET synchronous_standby_names")
                cursor.execute("SELECT pg_reload_conf()")
            assert writing.result(30).accepted == 1

    assert "`COMMIT` has waited" in str(of(lines, "writer waits")[0]["why"])
    assert "a synchronous standby that must confirm the commit" in str(of(lines, "writer waits")[0]["why"])


def test_a_server_that_is_gone_meanwhile_is_what_is_waited_for() -> None:
    wait = blockers.ask("postgresql://ann:secret@127.0.0.1:1/nothing", 7)
    assert wait.is_held_up
    assert "PostgreSQL, which does not answer" in wait.sentence
    assert "secret" not in wait.sentence


def test_a_session_that_postgresql_has_ended_is_told_as_such(database_url: str) -> None:
    with transaction(database_url) as cursor:
        assert "does not know the session any more" in blockers.wait_of(cursor, 2**22 + 5).sentence


@pytest.mark.usefixtures("soon")
def test_long_work_of_a_command_is_no_wait_and_of_a_worker_it_is_told(database_url: str) -> None:
    with capture_logs() as lines:
        for application in ("guerdon verify", "guerdon projector"):
            with closing(connect(database_url, application=application)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(1.5)")
                cursor.fetchall()
    assert {line["event"] for line in lines} <= {"projector waits", "projector goes on"}
    assert "for PgSleep (Timeout)" in str(of(lines, "projector waits")[0]["why"])


def test_long_work_is_asked_about_seldom_and_becomes_a_wait_as_soon_as_somebody_is_in_the_way(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [blockers.Wait("nobody", is_held_up=False), blockers.Wait("pid 7", is_held_up=True, blocked_by=(7,))]
    now_s, at, places = 1_000.0, [], []
    server = urlsplit(database_url)
    of_two_hosts = server._replace(netloc=server.netloc.replace("@", f"@{server.hostname}:1,")).geturl()

    def ask(_dsn: str, _pid: int, **place: Any) -> blockers.Wait:
        at.append(now_s - 1_000)
        places.append(place)
        return waits[min(len(at), 2) - 1]

    monkeypatch.setattr(blockers, "ask", ask)
    monkeypatch.setattr(watched, "time", SimpleNamespace(monotonic=lambda: now_s, sleep=time.sleep))
    with closing(connect(of_two_hosts, application="guerdon verify")) as connection, capture_logs() as lines:
        assert isinstance(connection, watched.WatchedConnection)
        watched._WATCHER._connections.discard(connection)  # noqa: SLF001  only this test looks at it
        connection.under_way = watched.Statement(now_s, "SELECT all of it")
        for now_s in range(1_000, 1_060):  # noqa: B007  the clock reads it
            watched.look([connection])
        connection.under_way = None
    assert at == [9, 14, 24, 44]
    assert places == [{"host": server.hostname, "port": server.port}] * 4, "of several hosts, the one that is in use"
    assert [line["waited_s"] for line in lines] == [14, 24, 44]


def test_a_wait_of_long_ago_is_not_the_one_of_now() -> None:
    announcements = voice.Announcements(100.0)
    announcements.note(109.0)
    assert not announcements.is_over(119.0 + voice.DISTANCE_MAX_S)
    assert announcements.is_over(120.0 + voice.DISTANCE_MAX_S)


def test_a_wait_is_told_at_growing_distances_but_never_more_often_than_every_ten_seconds() -> None:
    announcements, at = voice.Announcements(100.0), []
    for now in range(100, 500):
        if announcements.is_due(now):
            announcements.note(now)
            at.append(now)
    assert at == [109, 119, 139, 179, 259, 339, 419, 499]


def test_a_repetition_is_replayed_all_the_same(database_url: str) -> None:
    activate(database_url)
    commit(database_url, Batch([admitted(purchase(1))]))
    assert replay(database_url, Request())["shards_that_differ"] == 0
