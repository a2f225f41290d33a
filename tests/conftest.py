"""Give tests a real Kafka and a real PostgreSQL: containers where Docker answers, else the services of `guerdon up`.

The services of `guerdon up` are started once for all processes of a run, containers once for each process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
import yaml
from _pytest.nodeid import NodeId
from confluent_kafka.admin import AdminClient
from psycopg2 import sql

from engine.store.database import migrate
from operations.services import compose, processes, state
from operations.services.kafka import LocalKafka
from operations.services.postgresql import LocalPostgres
from operations.settings import Settings, load_settings
from tests.pages.terminal import Terminal
from tests.services.servers import RoomyPostgres, Servers
from tests.strategies.profiles import draw_by_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any


_SERVERS = pytest.StashKey[Servers]()


def _leave(number: int, _: FrameType | None) -> None:
    pytest.exit(f"ended by {signal.Signals(number).name}", returncode=128 + number)


def pytest_configure(config: pytest.Config) -> None:
    # Brokers of tests live for minutes at most: what the second compiler costs would not come back.
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    # The default action of SIGTERM ends Python without atexit, and the servers would stay.
    signal.signal(signal.SIGTERM, _leave)
    led = getattr(config, "workerinput", None)
    config.stash[_SERVERS] = Servers.begin() if led is None else Servers(Path(led["servers"]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist where the run keeps its servers."""
    node.workerinput["servers"] = str(node.config.stash[_SERVERS].folder)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    draw_by_profile(items)

    # pytest-xdist 3.8 keeps a group in one process by the end of an item's id, which it writes where pytest 9.2 no
    # longer reads it; without this every process makes what a group shares
    if config.getoption("loadgroup", default=False):
        for item in items:
            group = item.get_closest_marker("xdist_group")
            if group is not None and "@" not in item.nodeid.rpartition("]")[2]:
                item._id = NodeId.parse(f"{item.nodeid}@{group.args[0]}")  # noqa: SLF001  there is no public way


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """Return who starts servers that end with the run."""
    return pytestconfig.stash[_SERVERS]


@pytest.fixture(scope="session")
def docker_answers() -> bool:
    return compose.daemon_answers()


@contextlib.contextmanager
def _kafka_container() -> Iterator[str]:
    # testcontainers' own Kafka class starts another vendor's image; this one is the image of docker-compose.yml.
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  only where Docker answers
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415  as above

    compose_file = yaml.safe_load(compose.FILE.read_text(encoding="utf-8"))
    kafka, port = compose_file["services"]["kafka"], processes.free_port()
    container = DockerContainer(kafka["image"]).with_bind_ports(9092, port)
    environment = kafka["environment"] | {
        "KAFKA_ADVERTISED_LISTENERS": f"INSIDE://localhost:19092,OUTSIDE://{processes.HOST}:{port}",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    }
    container.with_envs(**{name: str(value) for name, value in environment.items()})
    with container.waiting_for(LogMessageWaitStrategy("Kafka Server started")):
        yield f"{processes.HOST}:{port}"


@pytest.fixture(scope="session")
def kafka_bootstrap(docker_answers: bool, servers: Servers) -> Iterator[str]:  # noqa: FBT001  a fixture's argument
    """Return `host:port` of a broker that all tests share."""
    if docker_answers:
        with _kafka_container() as address:
            yield address
    else:
        yield servers.shared(LocalKafka).address


@pytest.fixture(scope="session")
def postgres_admin_url(docker_answers: bool, servers: Servers) -> Iterator[str]:  # noqa: FBT001  a fixture's argument
    """Return the URL of a superuser on a server that all tests share."""
    if docker_answers:
        from testcontainers.postgres import PostgresContainer  # noqa: PLC0415  only where Docker answers

        with PostgresContainer("postgres:18", driver=None) as container:
            yield _hurried(container.get_connection_url())
    else:
        yield _hurried(servers.shared(RoomyPostgres).address)


def _hurried(admin_url: str) -> str:
    """Let the server that tests share wait for no disk: nobody cuts its power, and who is only killed loses nothing."""
    for setting in ("fsync", "full_page_writes"):
        _execute(admin_url, "ALTER SYSTEM SET {} = off", setting)
    _execute(admin_url, "SELECT pg_reload_conf()")
    return admin_url


def _execute(admin_url: str, statement: str, *names: str) -> None:
    connection = psycopg2.connect(admin_url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
    finally:
        connection.close()


def _is_there(admin_url: str, database: str) -> bool:
    with contextlib.closing(psycopg2.connect(admin_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (database,))
        return cursor.rowcount > 0


def _url_of(admin_url: str, database: str) -> str:
    return f"{admin_url.rsplit('/', 1)[0]}/{database}"


@pytest.fixture(scope="session")
def template_database(postgres_admin_url: str, servers: Servers) -> str:
    """Return the name of the migrated database that each test's own is copied from; whoever asks first makes it."""
    return _template(postgres_admin_url, servers, "guerdon_template", "template0", migrate)


@pytest.fixture(scope="session")
def shop_template(postgres_admin_url: str, servers: Servers, template_database: str) -> str:
    """Return the name of the database with half a year of a shop that tests of what analysts read are copied from."""
    from tests.system import shop  # noqa: PLC0415  what it imports has its assertions rewritten first (tests/chaos)

    return _template(postgres_admin_url, servers, "guerdon_shop", template_database, shop.fill)


def _template(admin_url: str, servers: Servers, name: str, of: str, fill: Callable[[str], object]) -> str:
    """Make a database once in a run, from another one and by `fill`, which takes its URL; return its name."""
    with state.locked(servers.folder, name):
        if not _is_there(admin_url, name):
            # it gets its name when nobody is connected to it any more, as PostgreSQL copies no other
            draft = f"{name}_draft"
            _execute(admin_url, "CREATE DATABASE {} TEMPLATE {}", draft, of)
            fill(_url_of(admin_url, draft))
            _execute(admin_url, "ALTER DATABASE {} RENAME TO {}", draft, name)
    return name


@contextlib.contextmanager
def _database(admin_url: str, template: str) -> Iterator[str]:
    name = f"guerdon_{uuid.uuid4().hex[:12]}"
    _execute(admin_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
    yield _url_of(admin_url, name)
    _execute(admin_url, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def database_url(postgres_admin_url: str, template_database: str) -> Iterator[str]:
    """Return the URL of a migrated database made for this test and dropped after it."""
    with _database(postgres_admin_url, template_database) as url:
        yield url


@pytest.fixture
def shop_url(postgres_admin_url: str, shop_template: str) -> Iterator[str]:
    """Return the URL of a database of this test's own with half a year of a shop in which everything moves."""
    with _database(postgres_admin_url, shop_template) as url:
        yield url


@pytest.fixture(scope="session")
def new_database(
    postgres_admin_url: str, template_database: str
) -> Callable[[], contextlib.AbstractContextManager[str]]:
    """Return how to make a further migrated database, for tests that share one."""
    return lambda: _database(postgres_admin_url, template_database)


@pytest.fixture
def other_database_url(postgres_admin_url: str, template_database: str) -> Iterator[str]:
    """Return the URL of a second migrated database, with a secret of its own as every one that `init` makes."""
    with _database(postgres_admin_url, template_database) as url:
        _execute(url, "UPDATE guerdon.setting SET value = sha256('another') WHERE name = 'digest_secret'")
        yield url


@pytest.fixture
def empty_database_url(postgres_admin_url: str) -> Iterator[str]:
    """Return the URL of a database without tables made for this test and dropped after it."""
    with _database(postgres_admin_url, "template0") as url:
        yield url


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a prefix of topic names that no other test uses; the topics are deleted after the test."""
    prefix = f"t{uuid.uuid4().hex[:10]}."
    yield prefix
    if "kafka_bootstrap" in request.fixturenames:
        client = AdminClient({"bootstrap.servers": request.getfixturevalue("kafka_bootstrap"), "log_level": 0})
        topics = [name for name in client.list_topics(timeout=10).topics if name.startswith(prefix)]
        for done in client.delete_topics(topics).values() if topics else ():
            done.result(timeout=10)


@pytest.fixture
def settings(database_url: str, kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Settings:
    """Return settings with a database, topics and a consumer group of this test's own, on shared servers."""
    return load_settings(
        database_url=database_url,
        bootstrap_servers=kafka_bootstrap,
        topic_prefix=topic_prefix,
        group_id=f"{topic_prefix}group",
        home=tmp_path,
    )


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Return what types commands in a folder of this test's own."""
    return Terminal(tmp_path, monkeypatch, capsys)


@pytest.fixture
def kafka_service(servers: Servers) -> Iterator[LocalKafka]:
    """Return a broker of this test alone, to stop, kill and start again; its port stays the same."""
    with servers.own(LocalKafka) as service:
        yield service


@pytest.fixture
def postgres_service(servers: Servers) -> Iterator[LocalPostgres]:
    """Return a PostgreSQL server of this test alone, to stop, kill and start again; its port stays the same."""
    with servers.own(LocalPostgres) as service:
        yield service
