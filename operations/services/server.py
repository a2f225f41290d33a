"""Start, stop, kill and restart one local server; the modules of Kafka and PostgreSQL add what is their own."""

from __future__ import annotations

import shutil
import signal
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from operations.services import processes, state
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import psutil

READY_PATIENCE_S = 60.0
START_ATTEMPTS = 3
AT_ONCE = ((signal.SIGKILL, 5.0),)


class LocalServer(ABC):
    """Run one server whose data and ports belong to a home; it outlives the command that started it."""

    name: ClassVar[str]
    title: ClassVar[str]
    program: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    in_good_order: ClassVar[Sequence[tuple[signal.Signals, float]]]

    def __init__(self, home: Path) -> None:
        """Take the home's folder; nothing is started yet."""
        self.home = home
        self.folder = home / self.name
        self.log = self.folder / "server.log"
        self.notes: list[str] = []

    @property
    def address(self) -> str:
        """Return where the server listens, as it was last started: `host:port`, or a URL."""
        return state.read_state(self.home)[self.name].address

    def start(self) -> state.ServiceRecord:
        """Start the server, or find it running, and return once it answers.

        Raises:
            ServiceUnreachable: a program that it needs is missing, or it ended; the sentence carries its last words.
        """
        record = self.running()
        if record is not None:
            self._wait_ready(record)
            return record

        # a server without a record would hold the data
        for process in self._strays():
            self.notes.append(f"{self.title}: ended process {process.pid}, left behind on the data of {self.home}")
            processes.end(process, self.in_good_order)

        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        return self._attempt(START_ATTEMPTS)

    def stop(self) -> bool:
        """End the server in good order, or at once where that takes over 20 s; return whether there was one."""
        return self._end(self.in_good_order)

    def kill(self) -> bool:
        """End the server as a power cut would; return whether there was one."""
        return self._end(AT_ONCE)

    def erase(self) -> None:
        """Delete the server's data and forget its ports; it must be stopped."""
        shutil.rmtree(self.folder, ignore_errors=True)
        state.forget(self.home, self.name)

    def running(self) -> state.ServiceRecord | None:
        """Return the server's record if its process is alive."""
        record = state.read_state(self.home).get(self.name)
        return record if record is not None and self._process(record) is not None else None

    @abstractmethod
    def _prepare(self) -> None:
        """Find the programs and prepare the data folder, before ports are chosen."""

    @abstractmethod
    def _command(self, ports: dict[str, int]) -> list[str]:
        """Return the command that starts the server on these ports."""

    @abstractmethod
    def _address(self, ports: dict[str, int]) -> str:
        """Return the address for clients."""

    @abstractmethod
    def _answers(self, address: str) -> bool:
        """Whether it takes requests now."""

    @property
    @abstractmethod
    def _mark(self) -> str:
        """Return an argument of its command that only this home's server has."""

    @property
    def _user(self) -> str | None:
        """Return the user to run as; None: the one who runs the command."""
        return None

    def _attempt(self, left: int) -> state.ServiceRecord:
        record = self._launch()
        try:
            self._wait_ready(record)
        except ServiceUnreachable:
            # another program may take the port between our look at it and the server's bind
            if left > 1 and "Address already in use" in self.log.read_text(errors="replace"):
                return self._attempt(left - 1)
            raise
        return record

    def _launch(self) -> state.ServiceRecord:
        ports = self._choose_ports()
        process = processes.spawn(self._command(ports), log=self.log, folder=self.folder, user=self._user)
        record = state.ServiceRecord(
            name=self.name,
            origin="local",
            address=self._address(ports),
            running=True,
            pid=process.pid,
            created_at_s=process.create_time(),
            ports=ports,
        )
        state.remember(self.home, record)
        return record

    def _choose_ports(self) -> dict[str, int]:
        record = state.read_state(self.home).get(self.name)
        ports: dict[str, int] = {}
        for role in self.roles:
            ports[role], note = processes.keep_or_move(record.ports.get(role) if record else None)
            if note:
                self.notes.append(f"{self.title}: {note}")
        return ports

    def _wait_ready(self, record: state.ServiceRecord) -> None:
        deadline = time.monotonic() + READY_PATIENCE_S
        port = record.ports[self.roles[0]]
        while self._process(record) is not None:
            if processes.port_answers(processes.HOST, port) and self._answers(record.address):
                return
            if time.monotonic() > deadline:
                raise ServiceUnreachable(
                    f"{self.title} on port {port} did not answer within {READY_PATIENCE_S:.0f} s: see {self.log}",
                )
            time.sleep(0.02)

        # its process has ended
        state.mark_stopped(self.home, self.name)
        raise ServiceUnreachable(
            f"{self.title} stopped while starting ({processes.last_words(self.log)}): see {self.log}, "
            "or begin anew with `guerdon down --volumes`",
        )

    def _end(self, signals: Sequence[tuple[signal.Signals, float]]) -> bool:
        record = state.read_state(self.home).get(self.name)
        process = self._process(record) if record is not None else None
        servers = [process] if process else self._strays()
        for server in servers:
            processes.end(server, signals)

        # only Compose changes the record of a container
        if record is not None and record.origin == "local":
            state.mark_stopped(self.home, self.name)
        return bool(servers)

    def _process(self, record: state.ServiceRecord) -> psutil.Process | None:
        return processes.find(record.pid, record.created_at_s) if record.origin == "local" else None

    def _strays(self) -> list[psutil.Process]:
        return processes.strays(self.program, self._mark)
