"""Bring about what happens to servers, networks, disks and clocks at night, on servers of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil
import psycopg2
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, though not listed
    AdminClient,
    NewTopic,
)

from operations.services import processes
from operations.services.kafka import LocalKafka
from operations.services.postgresql import LocalPostgres
from tests.chaos.proxy import Mode, Proxy, proxied
from tests.services import packages
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operations.services.server import LocalServer
    from operations.settings import Settings
    from tests.system.workers import Workers

DISK_BYTES = 768 << 20
"""The size of a disk that can be filled: what a test writes and the write-ahead log need a quarter of it."""

FAILING_FSYNC = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void) {
    const char *flag = getenv("FSYNC_FAILS_ONCE");
    return flag != NULL && unlink(flag) == 0;
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    if (fails()) { errno = EIO; return -1; }
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    if (fails()) { errno = EIO; return -1; }
    return real(file);
}
"""
"""A library that lets the next call fail that brings data to the disk when it finds a file, which it takes away."""


class ProxiedKafka(LocalKafka):
    """Run a broker that workers reach through a proxy only, and producers and tests directly.

    The ports of the listener behind the proxy and of the proxy itself are set before `start`.
    """

    inside_port = 0
    proxy_port = 0

    def _command(self, ports: dict[str, int]) -> list[str]:
        command = super()._command(ports)
        host, broker, controller = processes.HOST, ports["broker"], ports["controller"]
        with self._properties.open("a") as file:  # of two lines for one name the last counts
            file.write(
                f"listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller},"
                f"PROXIED://{host}:{self.inside_port}\n"
                f"advertised.listeners=PLAINTEXT://{host}:{broker},PROXIED://{host}:{self.proxy_port}\n"
                "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT\n"
            )
        return command


class Services(NamedTuple):
    """Hold the servers and the proxies before them; `left_out` are the faults that cannot happen here, and why."""

    postgres: LocalPostgres
    kafka: ProxiedKafka
    to_postgres: Proxy
    to_kafka: Proxy
    fsync_flag: Path
    left_out: dict[str, str]


class Night(NamedTuple):
    """Hold what a fault may happen to; `settings` are the workers', `direct` everybody else's."""

    settings: Settings
    direct: Settings
    workers: Workers
    running: list[int]
    services: Services


def _family(server: LocalServer) -> list[psutil.Process]:
    record = server.running()
    assert record is not None, f"{server.title} does not run"
    parent = psutil.Process(record.pid)
    return [parent, *parent.children(recursive=True)]


@contextmanager
def _stopped(found: list[psutil.Process]) -> Iterator[None]:
    for process in found:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in found:
            if process.is_running():
                process.send_signal(signal.SIGCONT)


@contextmanager
def worker_killed(night: Night) -> Iterator[None]:
    """Kill a worker outright; another one takes its place."""
    night.workers.kill(night.running.pop(0))
    yield
    night.running.append(night.workers.start(night.settings))


def worker_stopped(night: Night) -> AbstractContextManager[None]:
    """Stop a worker where it stands, and let it go on."""
    return _stopped([psutil.Process(night.running[0])])


@contextmanager
def postgres_killed(night: Night) -> Iterator[None]:
    """Kill PostgreSQL outright, and start it again."""
    night.services.postgres.kill()
    yield
    night.services.postgres.start()


def postgres_stopped(night: Night) -> AbstractContextManager[None]:
    """Stop all of PostgreSQL's processes, and let them go on."""
    return _stopped(_family(night.services.postgres))


@contextmanager
def kafka_killed(night: Night) -> Iterator[None]:
    """Kill the broker outright, and start it again."""
    night.services.kafka.kill()
    yield
    night.services.kafka.start()


def kafka_stopped(night: Night) -> AbstractContextManager[None]:
    """Stop the broker, and let it go on."""
    return _stopped(_family(night.services.kafka))


@contextmanager
def _in_mode(proxy: Proxy, mode: Mode) -> Iterator[None]:
    proxy.mode = mode
    try:
        yield
    finally:
        proxy.mode = Mode.PASS


@contextmanager
def _delayed(proxy: Proxy, delay_s: float) -> Iterator[None]:
    proxy.delay_s = delay_s
    try:
        yield
    finally:
        proxy.delay_s = 0.0


@contextmanager
def postgres_reset(night: Night) -> Iterator[None]:
    """Break every connection to PostgreSQL with RST, twice."""
    night.services.to_postgres.reset_all()
    yield
    night.services.to_postgres.reset_all()


@contextmanager
def postgres_half_closed(night: Night) -> Iterator[None]:
    """Tell workers that PostgreSQL sends no more, while it hears nothing of it."""
    night.services.to_postgres.half_close_all()
    yield


@contextmanager
def kafka_reset(night: Night) -> Iterator[None]:
    """Break every connection of workers to the broker with RST, twice."""
    night.services.to_kafka.reset_all()
    yield
    night.services.to_kafka.reset_all()


@contextmanager
def _filled(server: LocalServer) -> Iterator[None]:
    """Fill the server's disk to the last byte; when there is room again, start it if it has ended meanwhile."""
    ballast = server.home / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            block = b"\0" * size
            try:
                while file.write(block) == size:
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()
        if server.running() is None:
            server.start()


@contextmanager
def postgres_disk_full(night: Night) -> Iterator[None]:
    """Leave PostgreSQL no room for the next segment of its write-ahead log, which it needs now."""
    with _filled(night.services.postgres):
        with pytest.raises(psycopg2.Error):
            _need_room(night.services.postgres.address)
        yield


def _need_room(url: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_switch_wal()")
        cursor.execute("CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)")


@contextmanager
def kafka_disk_full(night: Night) -> Iterator[None]:
    """Leave the broker no room for a new topic, which somebody asks for now: it ends."""
    with _filled(night.services.kafka):
        client = AdminClient({"bootstrap.servers": night.services.kafka.address, "log_level": 0})
        client.create_topics([NewTopic("ballast", 1, 1)])
        eventually(lambda: night.services.kafka.running() is None, "the end of a broker that has no room")
        yield


@contextmanager
def fsync_fails(night: Night) -> Iterator[None]:
    """Let PostgreSQL learn once that what it wrote did not reach the disk: it panics, and recovers by itself."""
    night.services.fsync_flag.touch()
    with pytest.raises(psycopg2.Error):
        _need_room(night.services.postgres.address)
    yield


POSTGRES_DISK_FULL = "PostgreSQL's disk is full"
KAFKA_DISK_FULL = "the broker's disk is full"
FSYNC_FAILS = "PostgreSQL's fsync fails"

Fault = Callable[[Night], AbstractContextManager[None]]

FAULTS: dict[str, Fault] = {
    "a worker is killed": worker_killed,
    "a worker is stopped": worker_stopped,
    "PostgreSQL is killed": postgres_killed,
    "PostgreSQL is stopped": postgres_stopped,
    "connections to PostgreSQL are reset": postgres_reset,
    "connections to PostgreSQL are closed on one side": postgres_half_closed,
    "PostgreSQL is far away": lambda night: _delayed(night.services.to_postgres, 0.15),
    "PostgreSQL stalls": lambda night: _in_mode(night.services.to_postgres, Mode.STALL),
    POSTGRES_DISK_FULL: postgres_disk_full,
    FSYNC_FAILS: fsync_fails,
    "the broker is killed": kafka_killed,
    "the broker is stopped": kafka_stopped,
    "connections to the broker are reset": kafka_reset,
    "the broker is far away": lambda night: _delayed(night.services.to_kafka, 0.15),
    "the broker stalls": lambda night: _in_mode(night.services.to_kafka, Mode.STALL),
    KAFKA_DISK_FULL: kafka_disk_full,
}
"""What heals within seconds once it is over, by name."""

SLOW: dict[str, Fault] = {
    "bytes to and from PostgreSQL are lost": lambda night: _in_mode(night.services.to_postgres, Mode.LOSE),
    "bytes to and from the broker are lost": lambda night: _in_mode(night.services.to_kafka, Mode.LOSE),
}
"""What takes a client's own time limit, a minute or so: nobody else can tell a lost answer from a slow one."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of DISK_BYTES on `folder`, in memory, for as long as the block takes; needs root."""
    if not processes.is_root():
        packages.missing("a disk of its own to fill (the right to mount one)", "mount, run as root")
    folder.mkdir(mode=0o711)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0711", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        packages.missing(f"a disk of its own to fill ({done.stderr.strip()})", "mount, run as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def failing_fsync(folder: Path, flag: Path) -> Iterator[None]:
    """Let what is started in the block see fsync fail once whenever the file `flag` is made; needs a compiler."""
    source, library = folder / "fsync.c", folder / "fsync.so"
    source.write_text(FAILING_FSYNC)
    command = [packages.program("gcc", "gcc"), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        packages.missing(f"what C programs are compiled with ({done.stderr.strip()[:200]})", "libc6-dev")
    with environment(
        LD_PRELOAD=":".join(filter(None, [str(library), os.environ.get("LD_PRELOAD")])), FSYNC_FAILS_ONCE=str(flag)
    ):
        yield


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Let what is started in the block inherit these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def clock_of(library: str, file: Path) -> dict[str, str]:
    """Return what lets a server read how wrong its clock is from `file`, such as `-1h`, once a second."""
    file.chmod(0o644)
    return {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


@contextmanager
def services(folder: Path, of_postgres: Mapping[str, str]) -> Iterator[Services]:
    """Start PostgreSQL and a broker on small disks behind proxies; without root or a compiler some faults fall away.

    `of_postgres` are variables that PostgreSQL alone inherits.
    """
    left_out: dict[str, str] = {}
    with ExitStack() as stack:

        def disk(name: str, fault: str) -> Path:
            try:
                return stack.enter_context(small_disk(folder / name))
            except pytest.skip.Exception as missing:
                left_out[fault] = str(missing)
                return folder / name

        postgres = LocalPostgres(disk("postgresql", POSTGRES_DISK_FULL))
        kafka = ProxiedKafka(disk("kafka", KAFKA_DISK_FULL))
        kafka.inside_port, kafka.proxy_port = processes.free_port(), processes.free_port()
        stack.callback(kafka.kill)
        stack.callback(postgres.kill)
        kafka.start()
        to_kafka = stack.enter_context(proxied(kafka.inside_port, kafka.proxy_port))
        (folder / "flags").mkdir()
        (folder / "flags").chmod(0o777)  # PostgreSQL runs as another user, and takes the file away
        flag = folder / "flags" / "fsync-fails"
        try:
            stack.enter_context(failing_fsync(folder, flag))
        except pytest.skip.Exception as missing:
            left_out[FSYNC_FAILS] = str(missing)
        loaded = [os.environ.get("LD_PRELOAD"), of_postgres.get("LD_PRELOAD")]
        with environment(**{**of_postgres, "LD_PRELOAD": ":".join(filter(None, loaded))}):
            record = postgres.start()
        to_postgres = stack.enter_context(proxied(record.ports["server"], processes.free_port()))
        yield Services(postgres, kafka, to_postgres, to_kafka, flag, left_out)


def wait_until_over(night: Night, is_over: Callable[[], bool], what: str, deadline_s: float) -> float:
    """Wait until a fault has healed with nobody's help, and return how many seconds that took."""
    return eventually(is_over, f"{what} to be over; workers said: {night.workers.said()}", deadline_s)
