"""Start a PostgreSQL of any version from its programs, in a folder of its own that goes with it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2

from engine.store.session import connect
from operations.services import processes
from operations.services.postgresql import _unprivileged_user
from tests.services.packages import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUPERUSER = "boss"
DEADLINE_S = 30.0
OLDEST = connect.OLDEST


def oldest_programs() -> Path:
    """Return the folder with the programs of the oldest version that Guerdon works with."""
    # not by PATH, where another version's may lie
    found = Path(f"/usr/lib/postgresql/{OLDEST}/bin")
    return found if (found / "initdb").exists() else missing(f"PostgreSQL {OLDEST}", f"postgresql-{OLDEST}")


def user() -> str | None:
    """Return as whom a server runs that refuses to run as root."""
    return _unprivileged_user() if processes.is_root() else None


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder in which the server's user may write; not pytest's, which that user may not enter."""
    place = Path(tempfile.mkdtemp(prefix="guerdon-cluster-"))
    name = user()
    if name is not None:
        shutil.chown(place, name)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@dataclass
class Cluster:
    """Hold a server that listens on `host` alone; `within` goes before its command, as `ip netns exec NAME` does."""

    programs: Path
    place: Path
    port: int
    host: str = processes.HOST
    within: tuple[str, ...] = ()
    server: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", login: str = SUPERUSER) -> str:
        """Return the address of a database there, for a login of the same password as name."""
        return f"postgresql://{login}:{login}@{self.host}:{self.port}/{database}"

    def initialise(self) -> None:
        """Make the data folder; everybody who connects has to know a password."""
        secret = self.place / "password"
        secret.write_text(SUPERUSER)
        secret.chmod(0o644)
        words = [str(self.programs / "initdb"), "-D", str(self.place / "data"), "-U", SUPERUSER, "-A", "scram-sha-256"]
        words += [f"--pwfile={secret}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(words, check=True, capture_output=True, cwd=self.place, **processes.run_as(user()))
        hba = self.place / "data" / "pg_hba.conf"
        hba.write_text("host all all all scram-sha-256\n")

    def start(self) -> None:
        """Start the server, and return once it listens."""
        (self.place / "data" / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
        }
        words = [str(self.programs / "postgres"), "-D", str(self.place / "data")]
        words += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # the way into a network namespace is root's; the server itself is not
        become = ["setpriv", f"--reuid={user()}", f"--regid={user()}", "--clear-groups"] if self.within else []
        with (self.place / "log").open("ab") as log:
            self.server = subprocess.Popen(
                [*self.within, *become, *words],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self.place,
                **processes.run_as(None if self.within else user()),
            )
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                psycopg2.connect(self.url(), connect_timeout=2).close()
            except psycopg2.OperationalError:
                assert self.server.poll() is None, (self.place / "log").read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self.place / "log").read_text())

    def stop(self) -> None:
        """Let every process of the server stand still."""
        self._each(psutil.Process.suspend)

    def _each(self, act: Callable[[psutil.Process], None]) -> None:
        assert self.server is not None
        main = psutil.Process(self.server.pid)
        for process in (*main.children(), main):
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)

    def kill(self) -> None:
        """End the server as a power cut does."""
        if self.server is not None:
            self._each(psutil.Process.kill)
            self.server.wait()
            self.server = None

    def execute(self, statement: str, database: str = "postgres", login: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """Run a statement, each a transaction of its own, and return its rows."""
        with contextlib.closing(psycopg2.connect(self.url(database, login))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield a server of the oldest version, which runs until the end."""
    with folder() as place:
        made = Cluster(oldest_programs(), place, processes.free_port())
        made.initialise()
        made.start()
        try:
            yield made
        finally:
            made.kill()
