"""Follow a log in a thread of the worker, and fold what was committed."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2
import structlog

from engine.store.database import RETRYABLE
from engine.store.session.failures import words_of
from engine.store.session.limits import limit_of
from projections.runner import IDLE_S, catch_up, connect_to_project, log_gap, most_of
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.cursor import Connection
    from projections.runner import LogName

log = structlog.get_logger()

SMALLER = 4
"""The divisor of the positions of a fold after one that a time limit has ended, until the projector is at the head."""

RETRY_S_FIRST = 0.5
RETRY_S_MAX = 10.0
LEAVE_S = 1.0


class Projector:
    """Keep the projections of a log at its head, in a thread of its own.

    Args:
        database_url: the address of the database.
        log: the log to follow.
        pause_s: the wait between two folds while there is work: the longer, the more updates of a member become one.
        idle_s: how long to wait for a commit of another worker, which sends no signal here.
        waits_for: says what comes first, in a sentence; None: nothing does.
        observe: called at named points, for tests that stop here.
        folded: called after each fold with its begin, by the monotonic clock, and its number of positions.
    """

    def __init__(
        self,
        database_url: str,
        *,
        log: LogName = "reward",
        pause_s: float = 0.0,
        idle_s: float = IDLE_S,
        waits_for: Callable[[], str | None] = lambda: None,
        observe: Callable[[str], None] = lambda _point: None,
        folded: Callable[[float, int], None] = lambda _begun_at, _positions: None,
    ) -> None:
        self._database_url = database_url
        self.pause_s = pause_s
        """May be changed at any time."""
        self.why: str | None = None
        """The error for which the projector pauses; None while it goes on."""
        self._log: LogName = log
        self._idle_s = idle_s
        self._waits_for = waits_for
        self._observe = observe
        self._folded = folded
        self._connection: Connection | None = None
        self._most = most_of(log)
        self._wake = threading.Event()
        self._stop = threading.Event()
        name = "projector" if log == "reward" else "fold of facts"
        self._pauses, self._repeats = f"{name} pauses", f"{name} repeats"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def wait(self) -> str | None:
        """Return what comes before this log, in a sentence; None: nothing does."""
        return self._waits_for()

    def start(self) -> None:
        """Begin to follow the log."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something was committed."""
        self._wake.set()

    def stop(self) -> None:
        """End after the transaction under way; if that takes long, cancel it."""
        self._stop.set()
        self._wake.set()
        self._thread.join(LEAVE_S)
        if self._thread.is_alive() and self._connection is not None:
            with suppress(psycopg2.Error):  # closed in this moment
                self._connection.cancel()
        self._thread.join()

    def _run(self) -> None:
        """Follow the log on one connection after the other; after an error, wait longer each time."""
        retry_s = RETRY_S_FIRST
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                with closing(connect_to_project(self._database_url, log=self._log)) as connection:
                    self._connection = connection
                    self._follow(connection)
            except (psycopg2.Error, ServiceUnreachable, InputError) as error:
                self.why, tell = words_of(error), log.warning
            except Exception as error:  # noqa: BLE001  a dead thread would leave the views behind, unnoticed
                self.why, tell = f"{type(error).__name__}: {error}", log.error
            else:
                return

            if self._stop.is_set():
                return
            retry_s = RETRY_S_FIRST if time.monotonic() - begun > RETRY_S_MAX else min(2 * retry_s, RETRY_S_MAX)
            tell(self._pauses, why=self.why, retry_s=retry_s)
            self._stop.wait(retry_s)

    def _follow(self, connection: Connection) -> None:
        """Fold whenever something was committed; after a time limit in smaller steps, until the head is reached."""
        while not self._stop.is_set():
            self._wake.wait(self._idle_s)
            self._wake.clear()
            if self.wait is not None:
                self._stop.wait(self._idle_s)
                continue
            begun_at = time.monotonic()
            try:
                moved = catch_up(connection, self._observe, log_gap, self._most, self._log)
            except RETRYABLE as error:
                connection.rollback()
                log.warning(self._repeats, why=words_of(error))
                continue
            except psycopg2.Error as error:
                connection.rollback()
                if limit_of(error, connection, time.monotonic() - begun_at):
                    self._most = max(1, self._most // SMALLER)
                raise

            self.why = None
            self._folded(begun_at, moved)
            if moved:
                self._stop.wait(self.pause_s)
            else:
                self._most = most_of(self._log)
