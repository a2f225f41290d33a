"""Start servers that outlive their command, recognise them later, and end exactly these."""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import subprocess
import time
from typing import TYPE_CHECKING, TypedDict

import psutil

from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from pathlib import Path

HOST = "127.0.0.1"
# These lie below the range of ports that Linux gives to outgoing connections. A client that keeps trying to reach a
# stopped server within that range may get the server's own port as its source, reach itself, and occupy the port.
PORTS = range(15_000, 32_000)
CLOCK_TOLERANCE_S = 2.0
# The processes that this very process has started: one that ends must be reaped, or it stays as a zombie that looks
# alive.
_children: dict[int, subprocess.Popen[bytes]] = {}


class RunAs(TypedDict):
    """Name the arguments of `subprocess` that change who runs a program."""

    user: str | None
    group: int | None
    extra_groups: list[str | int] | None


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens now."""
    for _ in range(200):
        port = PORTS.start + secrets.randbelow(len(PORTS))
        if port_is_free(port):
            return port
    raise ServiceUnreachable(
        f"no free port was found between {PORTS.start} and {PORTS.stop} on {HOST}; end some programs and try again",
    )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def keep_or_move(port: int | None) -> tuple[int, str | None]:
    """Return the port to use, and a sentence where that is not `port` because another program has it."""
    if port is None:
        return free_port(), None
    if port_is_free(port):
        return port, None
    moved = free_port()
    return moved, f"port {port} was taken by another program, so port {moved} is used from now on"


def port_answers(host: str, port: int, *, patience_s: float = 0.5) -> bool:
    """Whether a program accepts a connection at that address."""
    try:
        with socket.create_connection((host, port), timeout=patience_s):
            return True
    except OSError:
        return False


def spawn(command: Sequence[str], *, log: Path, folder: Path, user: str | None = None) -> psutil.Process:
    """Start a server in a session of its own, its output in `log`; the log of the run before stays beside it."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603  the command is built from paths and numbers, no shell reads it
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            **run_as(user),
        )
    _children[child.pid] = child
    return psutil.Process(child.pid)


def find(pid: int | None, created_at_s: float | None) -> psutil.Process | None:
    """Return the process with that pid, if it was started at that time and is not another with the same number."""
    if pid is None or created_at_s is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created_at_s) <= CLOCK_TOLERANCE_S
    except psutil.Error:
        return None
    return process if same and runs(process) else None


def runs(process: psutil.Process) -> bool:
    """Whether a process is alive; one that has ended and was not reaped is not."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        _children.pop(process.pid)
        return False
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def strays(program: str, argument: str) -> list[psutil.Process]:
    """Return the processes of a program that have exactly that argument, a path inside a home.

    So a server is found whose record was lost: the state file was deleted, or its starter was killed before it wrote.
    """
    servers = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words and program in " ".join(words[:-1]) and argument in words and runs(process):
            servers.append(process)
    return servers


def end(process: psutil.Process, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn, each with the seconds to wait after it, until the process and its children are gone."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        family = [process]

    for number, patience_s in signals:
        if not runs(process):
            break
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            break
        wait_until(lambda: not runs(process), patience_s)

    # a parent may leave children behind
    if not wait_until(lambda: not any(map(runs, family)), 5.0):
        for member in filter(runs, family):
            member.kill()
        wait_until(lambda: not any(map(runs, family)), 5.0)


def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Look every 20 ms until the condition holds; return whether it did within `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def last_words(log: Path, *, lines: int = 3) -> str:
    """Return the last lines of a server's log, or of its errors where there are any, as part of a sentence."""
    try:
        text = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        text = []
    messages = [line for line in text if not line.startswith(("at ", "... "))]
    errors = [line for line in messages if any(word in line for word in ("FATAL", "ERROR", "Exception", "Error:"))]
    last = (errors or messages)[-lines:]
    return " | ".join(line[:300] for line in last) if last else "it wrote nothing"


def run_as(user: str | None) -> RunAs:
    """Return arguments of `subprocess` to run a program as that user, without root's groups; None: as this user."""
    if user is None:
        return {"user": None, "group": None, "extra_groups": None}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def is_root() -> bool:
    """Whether this process has the rights of root."""
    return os.geteuid() == 0
