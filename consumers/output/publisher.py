"""Keep the topic of reward events at the end of the live log, in a thread of its own."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psycopg2
import structlog
from confluent_kafka import KafkaException

from consumers.output.producer import LEAVE_S, NotTaken, Output
from engine.store.database import INFRASTRUCTURE, RETRYABLE, end_frozen
from engine.store.session.failures import words_of
from engine.store.session.voice import Patience
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from operations.settings import Settings

log = structlog.get_logger()

IDLE_S = 0.2
"""How often to look for commits of other workers, which do not wake this one's publisher."""

PAUSE_S = 0.05
"""Least time between two rounds that were not full: a round costs some ms however few events it has."""

FULL_ROUND = 4_000
GIVE_WAY_S = 2.0
SHARE_BEHIND = 0.1
"""The part of the time that publishing takes while there is a backlog to judge: both need the one interpreter."""

RETRY_S_FIRST = 0.5
RETRY_S_MAX = 10.0
HELD_UP_S = 10.0
"""How long another process may hold the rest before this one looks whether that process was stopped."""

MOMENTARY = (NotTaken, ServiceUnreachable, KafkaException, *INFRASTRUCTURE, *RETRYABLE)
"""Errors that pass by themselves: the round is sent again."""


class Publisher:
    """Follow the live log with the topic; nothing else in the worker waits for Kafka.

    `why` says in a sentence why it pauses; None while it goes on.
    """

    def __init__(self, settings: Settings, *, observe: Callable[[str], None] = lambda _point: None) -> None:
        self._settings = settings
        self._observe = observe
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._output: Output | None = None
        self.why: str | None = None
        self._give_way_until = 0.0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to follow the log."""
        self._thread.start()

    def wake(self, *, behind: bool = False) -> None:
        """Say that something was committed; `behind`: from a backlog, to which the topic gives way for a moment."""
        if behind:
            self._give_way_until = time.monotonic() + GIVE_WAY_S
        self._wake.set()

    def stop(self) -> None:
        """End after the round under way, or without it where it takes long."""
        self._stop.set()
        self._wake.set()
        self._thread.join(2 * LEAVE_S)
        if self._thread.is_alive() and self._output is not None:
            with suppress(psycopg2.Error):  # closed in this moment
                self._output.connection.cancel()
            self._thread.join(LEAVE_S)

    def _run(self) -> None:
        retry_s = RETRY_S_FIRST
        while not self._stop.is_set():
            # follow the log until something breaks
            start_s = time.monotonic()
            try:
                with closing(Output(self._settings, self._stop, self._observe)) as output:
                    self._output = output
                    self._follow(output)
            except (InputError, *MOMENTARY) as error:
                why = words_of(error)
            except Exception as error:  # noqa: BLE001  a thread that died would leave the topic standing, unseen
                why = f"{type(error).__name__}: {error}"
            else:
                return
            if self._stop.is_set():
                return

            # pause twice as long each time, and begin with a new producer
            retry_s = RETRY_S_FIRST if time.monotonic() - start_s > RETRY_S_MAX else min(2 * retry_s, RETRY_S_MAX)
            self.why = why
            log.warning("publisher pauses", why=why, retry_s=retry_s)
            self._stop.wait(retry_s)

    def _follow(self, output: Output) -> None:
        waits = _Waits(self._settings.database_url, output)
        while not self._stop.is_set():
            start_s = time.monotonic()
            published = output.advance()
            self.why = None
            if not published:
                waits.note()
                self._wake.wait(IDLE_S)
                self._wake.clear()
            else:
                waits.over()
            self._stop.wait(self._pause_s(published, time.monotonic() - start_s))

    def _pause_s(self, published: int, took_s: float) -> float:
        if published and time.monotonic() < self._give_way_until:
            return took_s / SHARE_BEHIND - took_s
        return PAUSE_S if published < FULL_ROUND else 0.0


class _Waits:
    """Notice that another process holds the rest for long, and end its session if the process was stopped."""

    def __init__(self, database_url: str, output: Output) -> None:
        self._database_url = database_url
        self._output = output
        self._patience = Patience("publisher")
        self._since = time.monotonic()

    def over(self) -> None:
        """Begin to count again."""
        self._since = time.monotonic()
        self._patience.over()

    def note(self) -> bool:
        """Note that nothing could be taken, and return whether nothing is left at all."""
        if not self._output.lag():
            self.over()
            return True
        self._patience.wait(self._output.held_by)
        if time.monotonic() - self._since > HELD_UP_S:
            end_frozen(self._database_url)
            self._since = time.monotonic()
        return False


def finish(settings: Settings, stop: threading.Event, observe: Callable[[str], None] = lambda _point: None) -> None:
    """Publish until the topic has the whole live log, or until `stop`.

    Raises:
        InputError: there is no such topic, or the registry does not hold the schema.
    """
    while not stop.is_set():
        try:
            with closing(Output(settings, stop, observe)) as output:
                waits = _Waits(settings.database_url, output)
                while not stop.is_set():
                    if output.advance():
                        waits.over()
                    elif waits.note():
                        return
                    else:
                        stop.wait(PAUSE_S)
        except MOMENTARY as error:
            log.warning("publisher pauses", why=words_of(error), retry_s=RETRY_S_FIRST)
            stop.wait(RETRY_S_FIRST)
