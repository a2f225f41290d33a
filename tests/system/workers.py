"""Start workers in processes of their own, and in this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

import psutil

from consumers.worker import Worker
from schemas.codec import CommittedSchemas
from tests.places import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from consumers.clock import ClockName
    from consumers.health.summary import Summary
    from operations.settings import Settings
    from schemas.codec import WriterSchemas

NEVER = "never"
DEADLINE_S = 60.0
LOOK_S = 0.01


def eventually(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait until `holds`, and return how many seconds that took; fail after the deadline, naming `what`."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < deadline_s, f"not within {deadline_s} s: {what}"
        time.sleep(LOOK_S)
    return time.monotonic() - started


def catch_up(settings: Settings, clock: ClockName = "wall") -> Summary:
    """Run a worker in this process until it has caught up."""
    return Worker(settings, CommittedSchemas(), until_caught_up=True, clock=clock).run()


@contextmanager
def running(
    settings: Settings,
    observe: Callable[[str], None] | None = None,
    *,
    clock: ClockName = "wall",
    schemas: WriterSchemas | None = None,
) -> Iterator[Worker]:
    """Run a worker in a thread of this process for as long as the block takes."""
    worker = Worker(settings, schemas or CommittedSchemas(), clock=clock, observe=observe)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  told to the test below
            errors.append(error)

    thread = Thread(target=run, name="worker")
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive(), "the worker did not leave"
    assert errors == []


def other_group(settings: Settings, name: str) -> Settings:
    """Return settings of another consumer group: it need not wait until Kafka gives up on a dead member of the first.

    What keeps two workers apart is PostgreSQL, so this is the harder case: both may hold the same partitions at once.
    """
    return settings.model_copy(update={"group_id": f"{settings.group_id}-{name}"})


class Workers:
    """Start and end workers in processes of their own, or what another module than that of workers does."""

    def __init__(self, folder: Path, module: str = "tests.chaos.crashing_worker") -> None:
        self._log = folder / "workers.log"
        self._parent = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(  # each argument is what a test is about
        self,
        settings: Settings,
        point: str = NEVER,
        hit: int = 1,
        number: signal.Signals = signal.SIGKILL,
        *,
        until_caught_up: bool = False,
        clock: ClockName = "wall",
        port: int | None = None,
    ) -> int:
        """Start a worker, or a server at `port`, that gets a signal at the `hit`-th time of `point`; return the pid."""
        wanted = settings.model_dump(mode="json", exclude_none=True)
        start = {
            "settings": wanted, "point": point, "hit": hit, "signal": int(number), "log": str(self._log),
            "until_caught_up": until_caught_up, "clock": clock, "port": port,
        }  # fmt: skip
        pid = self._ask({"start": start})
        assert pid is not None
        return pid

    def ended(self, pid: int) -> int | None:
        """Return how the worker ended, None while it runs."""
        return self._ask({"wait": pid})

    def wait(self, pid: int, deadline_s: float = DEADLINE_S) -> int:
        """Return how the worker ended."""
        found: list[int] = []

        def has_ended() -> bool:
            code = self.ended(pid)
            if code is not None:
                found.append(code)
            return code is not None

        eventually(has_ended, f"the end of worker {pid}; it said: {self.said()}", deadline_s)
        return found[0]

    def wait_stopped(self, pid: int) -> None:
        """Wait until the worker has stopped itself."""
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, f"the stop of worker {pid}")

    def kill(self, pid: int) -> None:
        """Kill the worker and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def said(self, since: int | None = None) -> str:
        """Return what all workers logged, after `since` characters or else the last lines."""
        text = self._log.read_text() if self._log.exists() else ""
        return text[-2_000:] if since is None else text[since:]

    def close(self) -> None:
        """End every worker and their parent."""
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(30)
        if self._parent.stdout is not None:
            self._parent.stdout.close()

    def _ask(self, question: dict[str, Any]) -> int | None:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(question) + "\n")
        self._parent.stdin.flush()
        answer: int | None = json.loads(self._parent.stdout.readline())
        return answer
