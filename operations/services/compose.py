"""Run the services of `docker-compose.yml`, where a Docker daemon answers and has Compose."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from operations.services import processes, state
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Collection

FILE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
PROBE_PATIENCE_S = 5
START_PATIENCE_S = 600
# For each of our names: the service's name in the file, the variable that sets its port, and its address.
SERVICES = {
    state.KAFKA: ("kafka", "GUERDON_KAFKA_PORT", "{host}:{port}"),
    state.POSTGRESQL: (
        "postgresql",
        "GUERDON_POSTGRESQL_PORT",
        "postgresql://guerdon:{password}@{host}:{port}/guerdon",
    ),
    state.REGISTRY: ("registry", "GUERDON_REGISTRY_PORT", "http://{host}:{port}"),
}


def daemon_answers() -> bool:
    """Whether the `docker` on the PATH reaches a daemon and has the Compose command."""
    docker = shutil.which("docker")
    return docker is not None and all(
        _succeeds([docker, *words])
        for words in (("version", "--format", "{{.Server.Version}}"), ("compose", "version"))
    )


def usable() -> bool:
    """Whether the services can come from Docker: the daemon answers, and this is a checkout with the file."""
    return FILE.exists() and daemon_answers()


class Compose:
    """Start and stop containers under a project name and on ports that belong to one home."""

    def __init__(self, home: Path) -> None:
        """Take the home's folder; nothing is started yet."""
        self.home = home
        self.notes: list[str] = []
        self._project = f"guerdon-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]}"

    def start(self, names: Collection[str]) -> list[state.ServiceRecord]:
        """Start the named services, and return once their health checks pass.

        Raises:
            ServiceUnreachable: Compose failed; the sentence carries its last line.
        """
        password = self._password()
        records = [self._record(name, password) for name in names]
        # before the start, as PostgreSQL's data may begin with this password though the start fails
        for record in records:
            state.remember(self.home, record)

        ports = {SERVICES[record.name][1]: str(record.ports["server"]) for record in records}
        self._run(["up", "--detach", "--wait", *(SERVICES[name][0] for name in names)], ports, password)

        running = [msgspec.structs.replace(record, running=True) for record in records]
        for record in running:
            state.remember(self.home, record)
        return running

    def stop(self, *, volumes: bool) -> None:
        """End and remove the containers, with `volumes` their data, too."""
        self._run(["down", "--remove-orphans", *(["--volumes"] if volumes else [])], {}, self._password())
        for name, record in state.read_state(self.home).items():
            if record.origin == "docker":
                state.mark_stopped(self.home, name)

    def _record(self, name: str, password: str) -> state.ServiceRecord:
        """Return the service's record, with the port and the password for the next connections."""
        before = self._before(name)
        port = before.ports.get("server") if before else None
        if before is None or not before.running or port is None:
            port, note = processes.keep_or_move(port)
            if note:
                self.notes.append(f"{name}: {note}")

        return state.ServiceRecord(
            name=name,
            origin="docker",
            address=SERVICES[name][2].format(host=processes.HOST, port=port, password=password),
            running=before is not None and before.running,
            ports={"server": port},
        )

    def _password(self) -> str:
        """Return the password of PostgreSQL's owner: the one with which its data began, else a new one."""
        before = self._before(state.POSTGRESQL)
        return (urlsplit(before.address).password if before else None) or secrets.token_urlsafe(24)

    def _before(self, name: str) -> state.ServiceRecord | None:
        """Return the record that an earlier start left, where the service was a container."""
        record = state.read_state(self.home).get(name)
        return record if record is not None and record.origin == "docker" else None

    def _run(self, words: list[str], ports: dict[str, str], password: str) -> None:
        # Compose wants every variable of the file, those of services that are not started, too.
        environment = {"GUERDON_POSTGRESQL_PASSWORD": password, "GUERDON_WORKER_PASSWORD": password, **ports}
        docker = shutil.which("docker") or "docker"
        command = [docker, "compose", "--project-name", self._project, "--file", str(FILE), *words]
        try:
            done = subprocess.run(  # noqa: S603  the command is built from paths and fixed words, no shell reads it
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=START_PATIENCE_S,
                env={**os.environ, **environment},
            )
            output, failed = done.stderr, done.returncode != 0
        except (OSError, subprocess.TimeoutExpired) as error:
            output, failed = str(error), True
        if failed:
            reason = (output.strip().splitlines() or ["it gave no reason"])[-1]
            raise ServiceUnreachable(
                f"`docker compose {words[0]}` failed ({reason[:300]}): mend it, or run `guerdon up --local`",
            )


def _succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  fixed words after the program found on the PATH
            command, capture_output=True, check=False, timeout=PROBE_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
