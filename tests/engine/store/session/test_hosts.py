"""A PostgreSQL that falls silent without a word holds workers up for seconds only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from psycopg2.extensions import parse_dsn

from engine.store.cursor import one
from engine.store.database import migrate, transaction
from operations.services.processes import is_root
from tests.chaos.test_restarts import fold_the_last_tick, parts_of, taken
from tests.models.oracle import assert_whole
from tests.services import clusters
from tests.services.clusters import Cluster
from tests.services.losing_proxy import LosingProxy
from tests.services.packages import missing, program
from tests.system.load import PROGRAMME_OF_LEDGER, Load, Message, activate, make_topics, publish
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operations.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(400)]

LEAVE_S = 8.0
"""Five seconds, and what a busy machine adds to the end of a process."""

HEALED_S = 60.0
AWAY_S = 4.0


@contextlib.contextmanager
def workers(settings: Settings, count: int, url: str, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run `count` workers with PostgreSQL at `url`; none outlives the block."""
    named = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "GUERDON_DATABASE_URL": url,
        "GUERDON_TOPIC_PREFIX": settings.topic_prefix,
        "GUERDON_GROUP_ID": settings.group_id,
        "GUERDON_HOME": str(folder),
        "KAFKA__SESSION_TIMEOUT_MS": "6000",
        "KAFKA__HEARTBEAT_INTERVAL_MS": "1000",
    }

    with (folder / "workers.log").open("ab") as log, contextlib.ExitStack() as ends:
        running = []
        for _ in range(count):
            words = [sys.executable, "-c", "from cli.main import run; run()", "run", "--clock", "wall"]
            worker = subprocess.Popen(words, env=os.environ | named, stdout=log, stderr=log)
            ends.callback(worker.wait)
            ends.callback(worker.kill)
            running.append(worker)
        yield running


def pass_time(seconds: float) -> None:
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= until, "some seconds")


def at_work(settings: Settings) -> int:
    """Return how many workers have told PostgreSQL that they live."""
    with transaction(settings.database_url) as cursor:
        (count,) = one(cursor, "SELECT count(*) FROM guerdon.worker")
    return int(count)


def leaves(worker: subprocess.Popen[bytes]) -> None:
    """Ask a worker to end, and check that it does in time."""
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LEAVE_S) in {0, 3, -signal.SIGTERM}


def loads() -> tuple[list[Message], list[list[Message]]]:
    messages = Load(members=20, ledger=True).fill(300).messages
    return messages, parts_of(messages, 3)


def test_what_a_proxy_has_lost_is_not_waited_for(settings: Settings, tmp_path: Path) -> None:
    make_topics(settings, 2)
    activate(settings.database_url, PROGRAMME_OF_LEDGER)
    messages, (first, second, third) = loads()
    place = parse_dsn(settings.database_url)
    with (
        LosingProxy((place["host"], int(place["port"]))) as proxy,
        workers(settings, 2, proxy.url(settings.database_url), tmp_path) as running,
    ):
        publish(settings, first)
        eventually(
            lambda: taken(settings) == len(first) and at_work(settings) == 2, "both workers and the first events"
        )

        # lost for some seconds: workers connect again
        proxy.lose()
        publish(settings, second)
        proxy.wait_lost(HEALED_S)
        pass_time(AWAY_S)
        proxy.losing = False
        took_s = eventually(lambda: taken(settings) == len(first) + len(second), "the end of the lag", HEALED_S)

        # lost while a worker ends
        proxy.lose()
        publish(settings, third)
        proxy.wait_lost(HEALED_S)
        leaves(running[0])
        proxy.losing = False
        eventually(lambda: taken(settings) == len(messages), "the end of the lag", HEALED_S)

    assert took_s < HEALED_S
    fold_the_last_tick(settings)
    assert_whole(settings, messages)


class Host:
    """Be another machine on a network with this one: a namespace behind a bridge, with PostgreSQL in it."""

    def __init__(self, place: Path) -> None:
        number = os.getpid() % 10_000
        self._space, self._bridge = f"gd{number}", f"gdb{number}"
        self._near, self._far = f"gdn{number}", f"gdf{number}"
        self._net = f"10.{200 + number % 50}.{number // 50}"
        within = ("ip", "netns", "exec", self._space)
        self.cluster = Cluster(clusters.oldest_programs(), place, 5432, f"{self._net}.2", within)

    def connect(self) -> None:
        """Lay the network out on this side, which outlives the host."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._net}.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def begin(self) -> None:
        """Switch the host on."""
        _ip("netns", "add", self._space)
        far = ("name", self._far, "address", "02:00:00:00:00:02", "netns", self._space)
        _ip("link", "add", self._near, "type", "veth", "peer", *far)
        _ip("link", "set", self._near, "master", self._bridge, "up")
        _ip("-n", self._space, "addr", "add", f"{self._net}.2/24", "dev", self._far)
        for link in ("lo", self._far):
            _ip("-n", self._space, "link", "set", link, "up")
        self.cluster.start()

    def die(self) -> None:
        """Pull the cable, then end the host with all that its kernel knows of connections: nobody is told."""
        _ip("-n", self._space, "link", "set", self._far, "down")
        self.cluster.kill()
        _ip("link", "del", self._near)
        _ip("netns", "del", self._space)

    def stop_answering(self) -> None:
        """Let every process of PostgreSQL there stand still, while its kernel goes on to acknowledge."""
        self.cluster.stop()

    def remove(self) -> None:
        """Take everything away."""
        self.cluster.kill()
        for words in (("netns", "del", self._space), ("link", "del", self._bridge)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*words)


def _ip(*words: str) -> None:
    subprocess.run([program("ip", "iproute2"), *words], check=True, capture_output=True)


@pytest.fixture
def host() -> Iterator[Host]:
    program("ip", "iproute2")
    program("setpriv", "util-linux")
    if not is_root():
        missing("a network namespace (root alone may make one)", "iproute2, run as root")

    with clusters.folder() as place:
        machine = Host(place)
        try:
            machine.connect()
        except subprocess.CalledProcessError as refused:
            missing(f"a network namespace ({refused.stderr.decode().strip()})", "iproute2, run as root")

        try:
            machine.cluster.initialise()
            machine.begin()
            yield machine
        finally:
            machine.remove()


def test_a_host_that_dies_without_a_word_and_comes_back_is_found_again(
    host: Host, settings: Settings, tmp_path: Path
) -> None:
    host.cluster.execute("CREATE DATABASE guerdon")
    own = settings.model_copy(update={"guerdon_database_url": host.cluster.url("guerdon")})
    migrate(own.database_url)
    make_topics(own, 2)
    activate(own.database_url, PROGRAMME_OF_LEDGER)
    messages, (first, second, third) = loads()

    with workers(own, 2, own.database_url, tmp_path) as running:
        publish(own, first)
        eventually(lambda: taken(own) == len(first) and at_work(own) == 2, "both workers and the first events")

        # the host falls silent, dies, and comes back after some seconds
        host.stop_answering()
        publish(own, second)
        pass_time(1.5)
        host.die()
        leaves(running[0])
        pass_time(AWAY_S)
        host.begin()
        took_s = eventually(lambda: taken(own) == len(first) + len(second), "the end of the lag", HEALED_S)

        publish(own, third)
        eventually(lambda: taken(own) == len(messages), "the end of the lag", HEALED_S)

    assert took_s < HEALED_S
    fold_the_last_tick(own)
    assert_whole(own, messages)
