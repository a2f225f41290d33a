"""Keep the servers of one run of the tests in one folder: they end with the run, whatever ends it."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from operations.services import state
from operations.services.kafka import LocalKafka
from operations.services.postgresql import LocalPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.services.server import LocalServer

_PREFIX = "guerdon-tests-"
MEMORY = Path("/dev/shm")  # noqa: S108  folders in it are made by mkdtemp
"""A file system in memory, where Linux has it: a database is made of 500 files, which costs a tenth there."""

ROOM_BYTES = 4 << 30
"""What the servers of a run may need; where memory has less room, they lie on the disk."""

Server = TypeVar("Server", bound="LocalServer")


class RoomyPostgres(LocalPostgres):
    """Run a server with room for the sessions of several processes of tests at once."""

    def _command(self, ports: dict[str, int]) -> list[str]:
        return [*super()._command(ports), "-c", "max_connections=240"]


@contextlib.contextmanager
def suspended(server: LocalServer) -> Iterator[None]:
    """Let the server stand still: its connections stay and nothing is answered."""
    process = psutil.Process(state.read_state(server.home)[server.name].pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


class Servers:
    """Start servers in the folder of this run, which all its processes know."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which exists."""
        self.folder = folder

    @classmethod
    def begin(cls) -> Servers:
        """Make the folder of a run that this process leads, and remove it with all its servers when the process ends.

        The servers of earlier runs end now where their leader was killed outright, which no clean-up survives.
        """
        for root in (MEMORY, Path(tempfile.gettempdir())):
            for folder in root.glob(f"{_PREFIX}*"):
                leader = folder.name.removeprefix(_PREFIX).split("-")[0]
                if leader.isdigit() and not psutil.pid_exists(int(leader)):
                    cls(folder).end()

        # Not pytest's folder: PostgreSQL, where root starts it, runs as another user, who may not enter that.
        where = MEMORY if _has_room(MEMORY) else None
        servers = cls(Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where)))
        servers.folder.chmod(0o711)
        atexit.register(servers.end, leader=os.getpid())
        return servers

    def end(self, leader: int | None = None) -> None:
        """End every server of the run and remove its folder; nothing where this process was forked by the leader."""
        if leader in {None, os.getpid()}:
            for home in self.folder.glob("*/"):
                LocalKafka(home).kill()
                LocalPostgres(home).kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def shared(self, kind: type[Server]) -> Server:
        """Return the server of that kind which the whole run shares; whoever asks first starts it."""
        home = self.folder / "shared"
        with state.locked(home, kind.name):
            home.chmod(0o711)
            server = kind(home)
            server.start()
        return server

    @contextlib.contextmanager
    def home(self) -> Iterator[Path]:
        """Yield a folder for servers of one test's own, through which a server's user may pass."""
        home = Path(tempfile.mkdtemp(prefix="own-", dir=self.folder))
        home.chmod(0o711)
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)

    @contextlib.contextmanager
    def own(self, kind: type[Server]) -> Iterator[Server]:
        """Yield a server that nobody else uses, and end it after the block."""
        with self.home() as home:
            server = kind(home)
            try:
                server.start()
                yield server
            finally:
                server.kill()


def _has_room(folder: Path) -> bool:
    """Return whether files can be made in a folder, and the servers of a run have room there."""
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM_BYTES
