"""Watch every statement: one that takes 10 s is told, with what it waits for and who is in its way."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import parse_dsn

from engine.store.cursor import Connection, Cursor
from engine.store.session import voice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOOK_EVERY_S = 0.5
AGAIN_S = 1.0
"""A statement that was begun anew after it had failed is looked at when it has waited so long."""

ASK_EVERY_S = 5.0
"""PostgreSQL is asked about one connection no more often: long work of a command is no wait, but might become one."""

WORDS_MAX = 60

SERVING = {
    "guerdon worker": "writer",
    "guerdon projector": "projector",
    "guerdon publisher": "publisher",
    "guerdon worker positions": "worker",
}
"""Connections of a worker, by what their log lines call them: a statement of theirs that takes 10 s is told, whatever
it waits for. Of other commands, which show how far they are, only what somebody else holds up is."""


class WatchedConnection(Connection):
    """Be a connection whose statements are watched.

    `url` is what it was opened by, `pid` that of the process which serves it at the server, `ends_after_s` the limits
    after which that ends it, `given_up` why it was ended on this side.
    """

    url: str
    pid: int
    ends_after_s: Mapping[str, float] = {}
    given_up: str | None = None

    def __init__(self, dsn: str, *more: Any) -> None:
        super().__init__(dsn, *more)
        self.cursor_factory = WatchedCursor
        application = str(parse_dsn(dsn).get("application_name", "guerdon"))
        self.who = SERVING.get(application, application.removeprefix("guerdon ") or "guerdon")
        self.is_serving = application in SERVING
        self.whole_dsn = dsn
        """As it was given: `dsn` of a connection hides the password."""
        self.under_way: tuple[float, Any] | None = None
        self.told: dict[str, voice.Told] = {}
        self.ask_again_s = 0.0
        _WATCHER.watch(self)

    def place(self) -> dict[str, Any]:
        """Return which of the hosts that the DSN names the session is with: another may have one of the same number."""
        host, port = self.info.host, self.info.port
        return {"host": host, "port": port} if host and "hostaddr" not in parse_dsn(self.whole_dsn) else {}

    def commit(self) -> None:
        """Commit, watched like a statement: a synchronous standby may keep it waiting."""
        self.under_way = begun = (time.monotonic(), "COMMIT")
        try:
            super().commit()
        finally:
            self.under_way = None
        self.has_done(begun)

    def has_done(self, begun: tuple[float, Any]) -> None:
        """Note that a statement has succeeded; tell that a wait is over where it was told."""
        if self.told and (told := self.told.pop(first_words(begun[1]), None)) is not None:
            voice.say_over(f"{self.who} goes on", time.monotonic() - told.begun_s, statement=first_words(begun[1]))


class WatchedCursor(Cursor):
    """Be a cursor whose statements are watched."""

    connection: WatchedConnection

    def execute(self, query: Any, variables: Any = None) -> None:
        """Execute `query`."""
        connection = self.connection
        connection.under_way = begun = (time.monotonic(), query)
        try:
            super().execute(query, variables)
        finally:
            connection.under_way = None
        if connection.told:
            connection.has_done(begun)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Copy to or from `file`."""
        connection = self.connection
        connection.under_way = begun = (time.monotonic(), sql)
        try:
            super().copy_expert(sql, file, size)
        finally:
            connection.under_way = None
        if connection.told:
            connection.has_done(begun)


def first_words(query: Any) -> str:
    """Return how a statement begins, on one line."""
    text = query.decode(errors="replace") if isinstance(query, bytes) else str(query)
    words = " ".join(text[: 4 * WORDS_MAX].split())
    return f"{words[:WORDS_MAX]}…" if len(words) > WORDS_MAX else words


class _Watcher:
    """Look at all connections of the process from a thread of its own."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything, as in a process that was forked: the thread is not in it."""
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[WatchedConnection] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def watch(self, connection: WatchedConnection) -> None:
        with self._lock:
            self._connections.add(connection)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            with self._lock:
                connections = [each for each in self._connections if each.under_way is not None]
            try:
                look(connections)
            except Exception as error:  # noqa: BLE001  a thread that died would leave later waits untold
                voice.say("waits are not told", f"a wait could not be told ({type(error).__name__}: {error})")


def look(connections: Iterable[WatchedConnection]) -> None:
    """Tell of each connection whose statement has waited for long."""
    for connection in connections:
        under_way = connection.under_way
        if under_way is None:
            continue
        now_s, (begun_s, query) = time.monotonic(), under_way
        if now_s - begun_s < AGAIN_S or now_s < connection.ask_again_s:
            continue
        words = first_words(query)
        told = connection.told.get(words)
        if told is None or told.is_over(now_s):
            told = voice.Told(begun_s)
        if told.is_due(now_s):
            connection.ask_again_s = now_s + ASK_EVERY_S
            _tell(connection, under_way, words, told)


def _tell(connection: WatchedConnection, under_way: tuple[float, Any], words: str, told: voice.Told) -> None:
    from engine.store.session.blockers import ask  # noqa: PLC0415  that module needs the one that makes our connections

    wait = ask(connection.whole_dsn, connection.get_backend_pid(), **connection.place())
    if connection.under_way is not under_way or not (wait.is_held_up or connection.is_serving):
        return
    now_s = time.monotonic()
    told.note(now_s)
    connection.told[words] = told
    waited_s = now_s - told.begun_s
    blocked_by = {"blocked_by": list(wait.blocked_by)} if wait.blocked_by else {}
    voice.say(
        f"{connection.who} waits",
        f"`{words}` has waited for {waited_s:.0f} s for {wait.sentence}",
        waited_s=round(waited_s),
        **blocked_by,
    )


_WATCHER = _Watcher()
os.register_at_fork(after_in_child=_WATCHER.begin_anew)
