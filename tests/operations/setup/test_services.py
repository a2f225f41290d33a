"""Local services: they outlive the command, come back where they were, and end without a trace."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import psutil
import psycopg2
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from operations.services import compose, jars, processes, state
from operations.services.kafka import LocalKafka
from operations.services.lifecycle import bring_up
from operations.services.postgresql import LocalPostgres
from operations.settings import load_settings
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only folder on the PATH beside the shell's own, empty but for what a test puts there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def put(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)
    return path


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """Run `guerdon` in processes of their own, in one home, with no service named by the environment."""

    home: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        named = ("KAFKA_", "GUERDON_", "SCHEMA_REGISTRY_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(named)}
        return subprocess.run(
            [sys.executable, "-c", "from cli.main import run; run()", *words],
            env=kept | {"GUERDON_HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def up(self) -> dict[str, dict[str, Any]]:
        """Start what is missing and return what was printed of each service."""
        done = self.run("up", "--local", "--json")
        assert done.returncode == 0, done.stderr
        return {row["service"]: row for row in json.loads(done.stdout)}


@pytest.fixture
def command_line(postgres_service: LocalPostgres) -> Iterator[CommandLine]:
    """Return a command line in the home of a PostgreSQL that ends with the test; so does all that is started there."""
    line = CommandLine(postgres_service.home)
    yield line
    LocalKafka(postgres_service.home).kill()


def living(folder: Path) -> list[int]:
    """Return the processes whose command names the folder."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.kafka
def test_services_outlive_the_command_and_come_back_with_their_data(command_line: CommandLine) -> None:
    rows = command_line.up()
    kafka, settings = rows["kafka"]["address"], load_settings(home=command_line.home)
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(10)
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce("kept", b"a message")
    assert producer.flush(10) == 0
    execute(settings.database_url, "CREATE TABLE kept AS SELECT 1 AS x")
    secret = settings.database_url.split(":")[2].split("@")[0]
    assert secret not in command_line.run("status").stdout

    LocalKafka(command_line.home).kill()
    silent = command_line.run("status")
    assert (silent.returncode, silent.stderr) == (3, "guerdon: Kafka did not answer: run `guerdon up`\n")

    again = command_line.up()
    assert again["kafka"]["address"] == kafka
    assert again["kafka"]["pid"] != rows["kafka"]["pid"]
    assert again["postgresql"] == rows["postgresql"]
    assert first_message(kafka, "kept") == b"a message"

    assert command_line.run("down").stdout == "ended Kafka and PostgreSQL\n"
    assert living(command_line.home) == []
    third = command_line.up()
    assert [third[name]["address"] for name in third] == [rows[name]["address"] for name in rows]
    assert execute(settings.database_url, "SELECT x FROM kept") == [(1,)]

    assert command_line.run("down", "--volumes").returncode == 0
    assert living(command_line.home) == []
    assert [path.name for path in command_line.home.iterdir() if path.is_dir()] == []
    assert command_line.run("down").stdout == "nothing was running here\n"


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def first_message(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        return message.value() if message is not None and message.error() is None else None
    finally:
        consumer.close()


@pytest.mark.postgres
def test_commits_survive_a_kill(postgres_service: LocalPostgres) -> None:
    execute(postgres_service.address, "CREATE TABLE paid AS SELECT 1 AS x")
    address = postgres_service.address
    postgres_service.kill()
    postgres_service.start()
    assert postgres_service.address == address
    assert execute(address, "SELECT x FROM paid") == [(1,)]
    assert execute(address, "SELECT current_setting('fsync'), current_setting('synchronous_commit')") == [("on", "on")]


@pytest.mark.postgres
def test_two_homes_do_not_meet(postgres_service: LocalPostgres, tmp_path: Path) -> None:
    # pytest's folder is closed to other users, as root's own is: where root starts it, the server must get there still.
    other = LocalPostgres(tmp_path / "other")
    try:
        assert other.start().ports != state.read_state(postgres_service.home)["postgresql"].ports
        other.stop()
        assert execute(postgres_service.address, "SELECT 1") == [(1,)]
    finally:
        other.kill()


@pytest.mark.postgres
def test_a_second_start_finds_the_first(postgres_service: LocalPostgres) -> None:
    assert LocalPostgres(postgres_service.home).start() == state.read_state(postgres_service.home)["postgresql"]


@pytest.mark.postgres
def test_a_taken_port_is_left_to_its_owner(postgres_service: LocalPostgres) -> None:
    port = state.read_state(postgres_service.home)["postgresql"].ports["server"]
    postgres_service.stop()
    with socket.create_server((processes.HOST, port)):
        moved = postgres_service.start().ports["server"]
    assert postgres_service.notes == [
        f"PostgreSQL: port {port} was taken by another program, so port {moved} is used from now on",
    ]
    assert execute(postgres_service.address, "SELECT 1") == [(1,)]


@pytest.mark.postgres
def test_a_pid_that_another_program_got_since_is_not_ended(postgres_service: LocalPostgres) -> None:
    postgres_service.stop()
    record = state.read_state(postgres_service.home)["postgresql"]
    with subprocess.Popen(["sleep", "60"]) as innocent:
        yesterday = psutil.Process(innocent.pid).create_time() - 86_400
        claim = dict(pid=innocent.pid, created_at_s=yesterday, running=True)  # noqa: C408  reads as a record
        state.remember(postgres_service.home, msgspec.structs.replace(record, **claim))
        lock = postgres_service.folder / "data" / "postmaster.pid"
        lock.write_text(f"{innocent.pid}\n{postgres_service.folder / 'data'}\n1\n1\n\n127.0.0.1\n 1 1\nready\n")
        assert postgres_service.running() is None
        assert postgres_service.stop() is False
        assert innocent.poll() is None
        assert postgres_service.start().pid != innocent.pid
        innocent.kill()


@pytest.mark.postgres
def test_a_server_whose_record_was_lost_is_found_and_ended(postgres_service: LocalPostgres) -> None:
    (postgres_service.home / "state.json").write_text("{ torn")
    assert living(postgres_service.folder) != []
    assert LocalPostgres(postgres_service.home).stop() is True
    assert living(postgres_service.folder) == []


@pytest.mark.postgres
def test_a_server_that_dies_at_start_is_quoted(postgres_service: LocalPostgres) -> None:
    postgres_service.stop()
    (postgres_service.folder / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(
        ServiceUnreachable, match=r"PostgreSQL stopped while starting \(.*FATAL.*incompatible.*see .*log"
    ):
        postgres_service.start()


@pytest.mark.kafka
def test_a_broker_that_dies_at_start_is_quoted(kafka_service: LocalKafka) -> None:
    kafka_service.stop()
    written = kafka_service.folder / "data" / "meta.properties"
    written.write_text(written.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(ServiceUnreachable, match=r"Kafka stopped while starting \(.*node.*see .*server\.log") as error:
        kafka_service.start()
    assert "\n" not in str(error.value)


def test_a_missing_java_is_one_sentence(programs: Path, tmp_path: Path) -> None:
    assert programs.exists()
    with pytest.raises(
        ServiceUnreachable, match=r"needs Java 17 or later and none was found.*install a JDK, or start Docker"
    ):
        LocalKafka(tmp_path).start()


@pytest.mark.parametrize(
    ("version_line", "version"), [('java version "1.8.0_292"', 8), ('openjdk version "11.0.2"', 11)]
)
def test_an_old_java_is_one_sentence(version_line: str, version: int, programs: Path, tmp_path: Path) -> None:
    put(programs, "java", f"echo '{version_line}' >&2")
    with pytest.raises(ServiceUnreachable, match=rf"needs Java 17 or later, but .*java is version {version}: install"):
        LocalKafka(tmp_path).start()


def test_java_home_goes_before_the_path(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(programs, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    (tmp_path / "jdk" / "bin").mkdir(parents=True)
    wanted = put(tmp_path / "jdk" / "bin", "java", "echo 'openjdk version \"21\" 2023-09-19' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert jars.find_java() == str(wanted)


def test_a_missing_maven_is_one_sentence(programs: Path, tmp_path: Path) -> None:
    assert programs.exists()
    with pytest.raises(ServiceUnreachable, match=r"no `mvn` was found on the PATH: install Maven, or start Docker"):
        jars.kafka_jars(tmp_path)


def test_a_fetch_that_fails_leaves_nothing_and_says_why(programs: Path, tmp_path: Path) -> None:
    put(programs, "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(ServiceUnreachable, match=r"Maven could not fetch Kafka's jars \(Could not transfer artifact\)"):
        jars.kafka_jars(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_two_first_starts_at_once_fetch_the_jars_once(programs: Path, tmp_path: Path) -> None:
    put(
        programs,
        "mvn",
        f"echo x >> {tmp_path}/fetches\n"
        'for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done\n'
        'mkdir -p "$out" && sleep 0.3 && touch "$out/kafka_2.13-4.jar"',
    )
    with ThreadPoolExecutor(4) as pool:
        found = {pool.submit(jars.kafka_jars, tmp_path / "cache") for _ in range(4)}
    folders = {future.result() for future in found}
    assert len(folders) == 1
    assert [path.name for path in folders.pop().iterdir()] == ["kafka_2.13-4.jar"]
    assert (tmp_path / "fetches").read_text() == "x\n"


def test_a_named_service_that_is_away_is_not_replaced(tmp_path: Path) -> None:
    nowhere = f"{processes.HOST}:{processes.free_port()}"
    settings = load_settings(home=tmp_path, bootstrap_servers=nowhere, database_url=f"postgresql://x@{nowhere}/x")
    with pytest.raises(ServiceUnreachable, match=f"Kafka does not answer at {nowhere}: check KAFKA_BOOTSTRAP_SERVERS"):
        bring_up(settings)
    assert state.read_state(tmp_path) == {}


def test_docker_is_asked_for_the_missing_services_on_free_ports(programs: Path, tmp_path: Path) -> None:
    put(programs, "docker", f'echo "$GUERDON_KAFKA_PORT $*" >> {tmp_path}/asked')
    assert compose.usable()
    containers = compose.Compose(tmp_path / "home")
    (record,) = containers.start(["kafka"])
    assert record.origin == "docker"
    port = record.ports["server"]
    assert record.address == f"127.0.0.1:{port}"
    containers.stop(volumes=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[2].startswith(f"{port} compose --project-name guerdon-")
    assert asked[2].endswith("docker-compose.yml up --detach --wait kafka")
    assert asked[3].endswith("down --remove-orphans --volumes")
    assert not state.read_state(tmp_path / "home")["kafka"].running


def test_docker_gets_a_password_of_its_own_which_stays_though_the_first_start_fails(
    programs: Path, tmp_path: Path
) -> None:
    put(programs, "docker", f'echo "$GUERDON_POSTGRESQL_PASSWORD" >> {tmp_path}/asked; exit 1')
    containers = compose.Compose(tmp_path / "home")
    with pytest.raises(ServiceUnreachable):
        containers.start(["postgresql"])
    assert not state.read_state(tmp_path / "home")["postgresql"].running

    put(programs, "docker", f'echo "$GUERDON_POSTGRESQL_PASSWORD" >> {tmp_path}/asked')
    (record,) = containers.start(["postgresql"])
    assert record.running
    containers.stop(volumes=False)
    passwords = (tmp_path / "asked").read_text().splitlines()
    assert passwords == [urlsplit(record.address).password] * 3
    assert len(passwords[0]) >= 32
    assert (tmp_path / "home/state.json").stat().st_mode & 0o077 == 0


def test_postgresql_in_docker_keeps_the_password_with_which_its_data_began(programs: Path, tmp_path: Path) -> None:
    put(programs, "docker", "exit 0")
    address = f"postgresql://guerdon:guerdon@{processes.HOST}:{processes.free_port()}/guerdon"
    ports = {"server": urlsplit(address).port or 0}
    of_an_earlier_release = state.ServiceRecord(
        name="postgresql", origin="docker", address=address, running=False, ports=ports
    )
    state.remember(tmp_path, of_an_earlier_release)
    (record,) = compose.Compose(tmp_path).start(["postgresql"])
    assert record.address == address


def test_docker_that_fails_is_one_sentence(programs: Path, tmp_path: Path) -> None:
    put(programs, "docker", "echo 'pull access denied' >&2; exit 1")
    assert not compose.usable()
    with pytest.raises(ServiceUnreachable, match=r"`docker compose up` failed \(pull access denied\): .*--local"):
        compose.Compose(tmp_path).start(["kafka"])
