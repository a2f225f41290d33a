"""Watch every statement: one that takes 10 s is announced, with what it waits for and which sessions block it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg2.extensions import parse_dsn

from engine.store.cursor import Connection, Cursor
from engine.store.session import voice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOOK_EVERY_S = 0.5
AGAIN_S = 1.0
"""The age at which a statement is looked at, so that the second attempt of a failed one counts as well."""

ASK_EVERY_S = 5.0
"""The least time between two questions about one connection: long work of a command is no wait, but may become one."""

WORDS_MAX = 60

SERVING = {
    "guerdon worker": "writer",
    "guerdon projector": "projector",
    "guerdon facts": "fold of facts",
    "guerdon publisher": "publisher",
    "guerdon worker positions": "worker",
}
"""Connections of a worker by application name, and their names in log lines.

Their statements that take 10 s are announced whatever they wait for. Other commands show their progress themselves, so
their statements are announced only when another session holds them up.
"""


class Statement(NamedTuple):
    """Hold a statement under way, with its begin by the monotonic clock."""

    begun_s: float
    query: Any


class WatchedConnection(Connection):
    """Be a connection whose statements are watched."""

    url: str
    """The URL that opened it."""

    pid: int
    """The process of PostgreSQL that serves it."""

    ends_after_s: Mapping[str, float] = {}
    """The limits (s), by name, after which PostgreSQL ends it."""

    given_up: str | None = None
    """Why this process has ended it; None where it has not."""

    def __init__(self, dsn: str, *more: Any) -> None:
        super().__init__(dsn, *more)
        self.cursor_factory = WatchedCursor
        application = str(parse_dsn(dsn).get("application_name", "guerdon"))
        self.who = SERVING.get(application, application.removeprefix("guerdon ") or "guerdon")
        self.is_serving = application in SERVING
        self.whole_dsn = dsn
        """The complete DSN: the attribute `dsn` hides the password."""
        self.under_way: Statement | None = None
        self.announced: dict[str, voice.Announcements] = {}
        """Waits that were announced, by the first words of the statement."""
        self.ask_again_s = 0.0
        _WATCHER.watch(self)

    def place(self) -> dict[str, Any]:
        """Return the host of the DSN that the session is with: another host may have a process of the same number."""
        host, port = self.info.host, self.info.port
        return {"host": host, "port": port} if host and "hostaddr" not in parse_dsn(self.whole_dsn) else {}

    def commit(self) -> None:
        """Commit, under watch like a statement: a synchronous standby may keep it waiting."""
        self.under_way = statement = Statement(time.monotonic(), "COMMIT")
        try:
            super().commit()
        finally:
            self.under_way = None
        if self.announced:
            self.note_done(statement)

    def note_done(self, statement: Statement) -> None:
        """Note that a statement has succeeded, and announce the end of its wait if the wait was announced."""
        words = first_words(statement.query)
        if (announcements := self.announced.pop(words, None)) is not None:
            voice.say_over(f"{self.who} goes on", time.monotonic() - announcements.begun_s, statement=words)


class WatchedCursor(Cursor):
    """Be a cursor whose statements are watched."""

    connection: WatchedConnection

    def execute(self, query: Any, variables: Any = None) -> None:
        """Execute `query`."""
        connection = self.connection
        connection.under_way = statement = Statement(time.monotonic(), query)
        try:
            super().execute(query, variables)
        finally:
            connection.under_way = None
        if connection.announced:
            connection.note_done(statement)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """Copy to or from `file`."""
        connection = self.connection
        connection.under_way = statement = Statement(time.monotonic(), sql)
        try:
            super().copy_expert(sql, file, size)
        finally:
            connection.under_way = None
        if connection.announced:
            connection.note_done(statement)


def first_words(query: Any) -> str:
    """Return the beginning of a statement, on one line."""
    text = query.decode(errors="replace") if isinstance(query, bytes) else str(query)
    words = " ".join(text[: 4 * WORDS_MAX].split())
    return f"{words[:WORDS_MAX]}…" if len(words) > WORDS_MAX else words


class _Watcher:
    """Look at all connections of the process from a thread of its own."""

    def __init__(self) -> None:
        self.begin_again()

    def begin_again(self) -> None:
        """Forget everything, as a forked process must: the thread is not in it."""
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
            except Exception as error:  # noqa: BLE001  a thread that died would leave later waits unannounced
                voice.say("waits are not told", f"a wait could not be told ({type(error).__name__}: {error})")


def look(connections: Iterable[WatchedConnection]) -> None:
    """Announce the statements that have waited for long."""
    for connection in connections:
        statement = connection.under_way
        if statement is None:
            continue

        now_s = time.monotonic()
        if now_s - statement.begun_s < AGAIN_S or now_s < connection.ask_again_s:
            continue

        # repeated attempts at one statement are one wait
        words = first_words(statement.query)
        announcements = connection.announced.get(words)
        if announcements is None or announcements.is_over(now_s):
            announcements = voice.Announcements(statement.begun_s)
        if announcements.is_due(now_s):
            connection.ask_again_s = now_s + ASK_EVERY_S
            _announce(connection, statement, words, announcements)


def _announce(
    connection: WatchedConnection, statement: Statement, words: str, announcements: voice.Announcements
) -> None:
    """Announce a statement with its reason, unless it is done by now or is the long work of a command."""
    from engine.store.session.blockers import ask  # noqa: PLC0415  that module needs the one that makes our connections

    wait = ask(connection.whole_dsn, connection.get_backend_pid(), **connection.place())
    if connection.under_way is not statement or not (wait.is_held_up or connection.is_serving):
        return

    now_s = time.monotonic()
    announcements.note(now_s)
    connection.announced[words] = announcements
    waited_s = now_s - announcements.begun_s
    blocked_by = {"blocked_by": list(wait.blocked_by)} if wait.blocked_by else {}
    voice.say(
        f"{connection.who} waits",
        f"`{words}` has waited for {waited_s:.0f} s for {wait.sentence}",
        waited_s=round(waited_s),
        **blocked_by,
    )


_WATCHER = _Watcher()
os.register_at_fork(after_in_child=_WATCHER.begin_again)
