"""Tell those who wait for a redemption that it has arrived in the log: one look at the database for all of them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from engine.store.database import INFRASTRUCTURE
from operations.redemption.places import arrived
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from engine.store.session.pool import Pool
    from operations.redemption.places import Key

log = structlog.get_logger()

LOOK_S = 0.008
"""The pause between two looks; nobody looks while nobody waits."""

AFTER_FAILURE_S = 0.25


class Arrivals:
    """Look for redemptions on behalf of those who wait, in a thread that begins with the first of them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: dict[Key, Future[None]] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def expect(self, key: Key) -> Future[None] | None:
        """Return what is done when the redemption has arrived; None: somebody in this process waits for it already."""
        with self._changed:
            if key in self._waiting:
                return None
            future = self._waiting[key] = Future()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)
                self._thread.start()
            self._changed.notify()
            return future

    @property
    def awaited(self) -> list[Key]:
        """Return what is waited for now."""
        with self._changed:
            return list(self._waiting)

    def forget(self, key: Key) -> None:
        """Wait for a redemption no longer."""
        with self._changed:
            self._waiting.pop(key, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (keys := self._next()) is not None:
            try:
                with self._pool.snapshot() as cursor:
                    found = arrived(cursor, keys)
            except (*INFRASTRUCTURE, ServiceUnreachable) as error:
                log.warning("service away", who="arrivals", why=str(error))
                time.sleep(AFTER_FAILURE_S)
                continue
            self._tell(found)
            time.sleep(LOOK_S)

    def _next(self) -> list[Key] | None:
        """Wait until somebody waits, and return for what; None: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or any(not each.done() for each in self._waiting.values()))
            return None if self._is_closed else [key for key, each in self._waiting.items() if not each.done()]

    def _tell(self, keys: list[Key]) -> None:
        with self._changed:
            for key in keys:
                future = self._waiting.get(key)
                if future is not None:
                    with suppress(InvalidStateError):  # who waited has left
                        future.set_result(None)
