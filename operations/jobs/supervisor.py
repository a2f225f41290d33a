"""Let jobs be done by processes of their own, one at a time, for as long as a server runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import structlog

from engine.store import jobs
from engine.store.database import INFRASTRUCTURE, transaction
from engine.store.session.failures import words_of
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from operations.settings import Settings

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
LEAVE_S = 5.0


class Supervisor:
    """Start a process for each job that waits; a job whose process has died waits again, whoever started it.

    A process goes on when the server leaves: its job ends as it would have.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to look for jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further process."""
        self._stop.set()
        self._thread.join(LEAVE_S)

    def _run(self) -> None:
        child: subprocess.Popen[bytes] | None = None
        while not self._stop.wait(LOOK_EVERY_S):
            if child is not None and child.poll() is None:
                continue
            try:
                with transaction(self._settings.database_url) as cursor:
                    waiting = jobs.waiting(cursor)
                if waiting:
                    log.info("job", job_id=waiting[0])
                    child = self._start(waiting[0])
            except (ServiceUnreachable, InputError, *INFRASTRUCTURE) as error:
                log.warning("jobs pause", why=words_of(error))
            except Exception as error:  # noqa: BLE001  a dead thread would leave jobs waiting, unseen
                log.warning("jobs pause", why=f"{type(error).__name__}: {error}")

    def _start(self, job_id: int) -> subprocess.Popen[bytes]:
        """Start the process of a job, in a session of its own, as signals for the server are not for it.

        -P keeps Python from importing what lies in the folder of the server.
        """
        environment = os.environ | {
            "GUERDON_DATABASE_URL": self._settings.database_url, "GUERDON_HOME": str(self._settings.home),
        }  # fmt: skip
        return subprocess.Popen(  # noqa: S603  this program itself, with a number
            [sys.executable, "-P", "-m", "cli", "job", str(job_id)],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
