"""Run workers that kill or stop themselves at a named point, each in a process of its own.

One process imports everything and then forks a worker for each line of JSON on its standard input: a worker is up in
a tenth of the time that a new Python takes. Lines: `{"start": {…}}` answers the pid; `{"wait": pid}` answers how it
ended, as `subprocess` says it (negative: the signal), or null while it runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from consumers.health.logging import log_to_stderr
from consumers.worker import Worker
from engine.store.logs import binary_copy
from operations.settings import load_settings
from schemas.codec import CommittedSchemas

if TYPE_CHECKING:
    from collections.abc import Callable

IN_COPY = "in copy"
"""The point at which half of a COPY has been sent; it is no step's name, as PostgreSQL itself waits there."""


@dataclass(slots=True)
class Crash:
    """Send this process a signal when `point` is reached for the `hit`-th time."""

    point: str
    hit: int
    number: signal.Signals
    seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, point: str) -> None:
        if point == self.point:
            with self.lock:
                self.seen += 1
                now = self.seen == self.hit
            if now:
                os.kill(os.getpid(), self.number)


def _crash_in_copy(crash: Crash) -> None:
    """Let the stream that a COPY reads from reach IN_COPY when it has delivered half of what it holds."""

    class HalfWay(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                crash(IN_COPY)
            half = len(self.getbuffer()) // 2
            return super().read(min(half, size or half) if not self.tell() else size)

    vars(binary_copy)["BytesIO"] = HalfWay


def _work(start: dict[str, Any]) -> None:
    log_to_stderr()
    crash = Crash(start["point"], start["hit"], signal.Signals(start["signal"]))
    if crash.point == IN_COPY:
        _crash_in_copy(crash)
    worker = Worker(
        load_settings(**start["settings"]),
        CommittedSchemas(),
        until_caught_up=start["until_caught_up"],
        clock=start["clock"],
        observe=crash,
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def _start(start: dict[str, Any], work: Callable[[dict[str, Any]], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(start["log"], "ab") as log:  # noqa: PTH123  a descriptor is what dup2 needs
            os.dup2(log.fileno(), 2)
            os.dup2(log.fileno(), 1)
        work(start)
        code = 0
    except BaseException as error:  # noqa: BLE001  the fork must not go on as its parent
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201  into the worker's log
    os._exit(code)


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main(work: Callable[[dict[str, Any]], None] = _work) -> None:
    """Answer line by line, each process doing `work`; when there are no more, end every one that is left."""
    pids = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            answer: int | None = _start(asked["start"], work)
            pids.add(answer)
        else:
            answer = _ended(asked["wait"])
            if answer is not None:
                pids.discard(asked["wait"])
        print(json.dumps(answer), flush=True)  # noqa: T201  the answer
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGKILL)


if __name__ == "__main__":
    main()
