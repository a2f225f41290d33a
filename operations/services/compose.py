"""Run the services of `docker-compose.yml`, where a Docker daemon answers and has Compose."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

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
    state.POSTGRESQL: ("postgresql", "GUERDON_POSTGRESQL_PORT", "postgresql://guerdon:guerdon@{host}:{port}/guerdon"),
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
        # the ports of the time before, where they are free
        ports = {name: self._choose_port(name) for name in names}
        environment = {SERVICES[name][1]: str(port) for name, port in ports.items()}
        self._run(["up", "--detach", "--wait", *(SERVICES[name][0] for name in names)], environment)

        records = [
            state.ServiceRecord(
                name=name,
                origin="docker",
                address=SERVICES[name][2].format(host=processes.HOST, port=port),
                running=True,
                ports={"server": port},
            )
            for name, port in ports.items()
        ]
        for record in records:
            state.remember(self.home, record)
        return records

    def stop(self, *, volumes: bool) -> None:
        """End and remove the containers, with `volumes` their data, too."""
        self._run(["down", "--remove-orphans", *(["--volumes"] if volumes else [])], {})
        for name, record in state.read_state(self.home).items():
            if record.origin == "docker":
                state.mark_stopped(self.home, name)

    def _choose_port(self, name: str) -> int:
        record = state.read_state(self.home).get(name)
        port = record.ports.get("server") if record and record.origin == "docker" else None
        if port is not None and record is not None and record.running:
            return port
        port, note = processes.keep_or_move(port)
        if note:
            self.notes.append(f"{name}: {note}")
        return port

    def _run(self, words: list[str], environment: dict[str, str]) -> None:
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
