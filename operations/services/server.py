"""Start, stop, kill and start again one local server; what is Kafka's or PostgreSQL's own stands in their modules."""

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
            ServiceUnreachable: a program it needs is missing, or it died; the sentence carries its last words.
        """
        record = self.running()
        if record is not None:
            self._wait_ready(record)
            return record
        for process in self._strays():
            self.notes.append(f"{self.title}: ended process {process.pid}, left behind on the data of {self.home}")
            processes.end(process, self.in_good_order)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        return self._attempt(START_ATTEMPTS)

    def stop(self) -> bool:
        """End the server in good order, at once where that takes over 20 s; tell whether there was one."""
        return self._end(self.in_good_order)

    def kill(self) -> bool:
        """End the server as a power cut would; tell whether there was one."""
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
        """Find the programs and make what the data folder needs, before ports are chosen."""

    @abstractmethod
    def _command(self, ports: dict[str, int]) -> list[str]:
        """Return the command that starts the server on these ports."""

    @abstractmethod
    def _address(self, ports: dict[str, int]) -> str:
        """Return the address by which clients reach it."""

    @abstractmethod
    def _answers(self, address: str) -> bool:
        """Tell whether it takes requests now."""

    @property
    @abstractmethod
    def _mark(self) -> str:
        """Return the argument of its command that no other home's server has."""

    @property
    def _user(self) -> str | None:
        """Return the user to run as, where that is not the one who runs the command."""
        return None

    def _attempt(self, left: int) -> state.ServiceRecord:
        record = self._launch()
        try:
            self._wait_ready(record)
        except ServiceUnreachable:
            # Between the look at the port and the server's bind another program may take it.
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
        known = state.read_state(self.home).get(self.name)
        ports: dict[str, int] = {}
        for role in self.roles:
            ports[role], note = processes.keep_or_move(known.ports.get(role) if known else None)
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
        state.mark_stopped(self.home, self.name)
        raise ServiceUnreachable(
            f"{self.title} stopped while starting ({processes.last_words(self.log)}): see {self.log}, "
            "or begin anew with `guerdon down --volumes`",
        )

    def _end(self, signals: Sequence[tuple[signal.Signals, float]]) -> bool:
        record = state.read_state(self.home).get(self.name)
        known = self._process(record) if record is not None else None
        found = [known] if known else self._strays()
        for process in found:
            processes.end(process, signals)
        # A container's record is Compose's to change.
        if record is not None and record.origin == "local":
            state.mark_stopped(self.home, self.name)
        return bool(found)

    def _process(self, record: state.ServiceRecord) -> psutil.Process | None:
        return processes.find(record.pid, record.created_at_s) if record.origin == "local" else None

    def _strays(self) -> list[psutil.Process]:
        return processes.strays(self.program, self._mark)
