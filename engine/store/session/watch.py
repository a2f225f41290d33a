"""Give up a connection on which no answer will ever come, so that its user can connect again.

libpq waits for an answer without limit. If the host is gone, the limits in `connect.LIMITS` end the wait. If a proxy or
a firewall in between goes on to acknowledge lost bytes, nothing ends it. So a thread looks at the sessions of
this process. When a session has waited long without any traffic, the thread asks PostgreSQL on a connection of its own
what the session does. This costs the sessions nothing, as the kernel counts the traffic.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import sys
import termios
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import psycopg2
import structlog
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE

from engine.store.session.asking import Inquiry

if TYPE_CHECKING:
    from engine.store.session.watched import WatchedConnection

log = structlog.get_logger()

LOOK_S = 1.0
ASK_AFTER_S = 5.0
"""The silence after which PostgreSQL is asked."""

SETTLED_S = 3.0
"""How long the server must have done nothing for the session before the answer counts as lost."""

ASK_AGAIN_S_MAX = 60.0
ANSWERS_WITHIN_S = 5.0
UNREACHABLE_S = 60.0
"""How long PostgreSQL may leave all questions unanswered before a waiting session is given up."""

STOPPED_S = 3 * LOOK_S
"""A turn that took longer means that this process was stopped, so the waits seen before mean nothing."""

# Whether PostgreSQL still works for the session; a COPY that waits for this side waits for data that were lost.
STATE = """
SELECT state IS NULL OR state IN ('active', 'disabled') AND wait_event IS DISTINCT FROM 'ClientRead'
       AND wait_event IS DISTINCT FROM 'ClientWrite' OR state_change > clock_timestamp() - %s * interval '1 s'
FROM pg_stat_activity WHERE pid = %s
"""

_TCP_INFO = 11  # Linux' number for it, which Python's socket module has from 3.12 on
_ESTABLISHED = 1
_LAST_SENT, _LAST_RECEIVED = 44, 52  # where `struct tcp_info` says, in ms, how long ago data went and came


class _Wait:
    """Hold the times of one wait, by the monotonic clock: its begin, the next question, PostgreSQL's last answer."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.ask_at = 0.0
        self.heard = now


class _Watch:
    """Look at sessions in a thread that begins with the first session."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: WeakSet[WatchedConnection] = WeakSet()
        self._waits: WeakKeyDictionary[WatchedConnection, _Wait] = WeakKeyDictionary()
        self._thread: threading.Thread | None = None

    def over(self, session: WatchedConnection) -> None:
        with self.lock:
            self.sessions.add(session)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
                self._thread.start()

    def forget(self, session: WatchedConnection) -> None:
        with self.lock:
            self.sessions.discard(session)
            self._waits.pop(session, None)

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            time.sleep(LOOK_S)
            now = time.monotonic()
            with self.lock:
                if now - looked > STOPPED_S:
                    self._waits.clear()
                sessions = list(self.sessions)
            looked = now
            while sessions:  # each is let go at once: a session that its user drops must be closed
                self._look(sessions.pop())
                looked = time.monotonic()

    def _look(self, session: WatchedConnection) -> None:
        now = time.monotonic()
        with self.lock:
            silent_s = self._silent_s(session, now)
            wait = self._waits.get(session)
        if wait is None or silent_s < ASK_AFTER_S or now < wait.ask_at:
            return

        why = _lost(session, wait)
        if why is not None:
            with self.lock:
                # unless the answer came during the question
                if self._silent_s(session, time.monotonic()) >= silent_s:
                    _shut(session, why)

    def _silent_s(self, session: WatchedConnection, now: float) -> float:
        """Return for how long `session` has waited without a byte in either direction; 0 where it does not wait."""
        if (
            session not in self.sessions
            or session.closed
            or session.info.transaction_status != TRANSACTION_STATUS_ACTIVE
        ):
            self._waits.pop(session, None)
            return 0.0
        wait = self._waits.setdefault(session, _Wait(now))
        with suppress(psycopg2.Error, OSError), _socket(session) as link:
            return min(now - wait.since, _quiet_s(link))
        return 0.0


def _socket(session: WatchedConnection) -> socket.socket:
    """Return the session's socket under a file number of its own, which nobody else closes."""
    return socket.socket(fileno=os.dup(session.fileno()))


def _quiet_s(link: socket.socket) -> float:
    """Return for how long there was no traffic; 0 where data wait here unread, so that this process is the slow one."""
    unread = array.array("i", [0])
    fcntl.ioctl(link, termios.FIONREAD, unread)
    if unread[0]:
        return 0.0
    if link.family == socket.AF_UNIX or sys.platform != "linux":
        return float("inf")  # the kernel does not count here: the age of the wait decides alone

    tcp_info = link.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 64)
    if tcp_info[0] != _ESTABLISHED:
        return 0.0  # opening or closing: libpq notices by itself
    return float(min(struct.unpack_from("=I", tcp_info, at)[0] for at in (_LAST_SENT, _LAST_RECEIVED))) / 1000


def _lost(session: WatchedConnection, wait: _Wait) -> str | None:
    """Return in a sentence why no answer will come; None where one may come."""
    try:
        asked = Inquiry(session.url, ANSWERS_WITHIN_S, application_name="guerdon watch", **session.place())
        with closing(asked) as asking:
            row = asking.one(STATE, (SETTLED_S, session.pid))
    except TimeoutError:
        if time.monotonic() - wait.heard > UNREACHABLE_S:
            return f"PostgreSQL did not answer for {UNREACHABLE_S:.0f} s while a statement waited"
        return None
    except psycopg2.Error:  # the server is there and refuses (full, perhaps), or its host says that it has ended
        row = (True,)

    wait.heard = time.monotonic()
    wait.ask_at = wait.heard + min(wait.heard - wait.since, ASK_AGAIN_S_MAX)
    if row is None or not row[0]:
        return "an answer of PostgreSQL was lost on the way: the server has no statement of this session under way"
    return None


def _shut(session: WatchedConnection, why: str) -> None:
    """End the wait for an answer; libpq raises the error of a broken connection."""
    session.given_up = why
    if structlog.is_configured():  # a command says its own sentence
        log.warning("connection given up", why=why)
    with suppress(psycopg2.Error, OSError), _socket(session) as link:
        link.shutdown(socket.SHUT_RDWR)


def give_up(session: WatchedConnection, why: str) -> None:
    """End the connection of `session`, whichever thread waits for it."""
    with _watch.lock:
        if session in _watch.sessions and not session.closed:
            _shut(session, why)


_watch = _Watch()


def _begin_again() -> None:
    """Watch nothing in a forked process: the sessions are its parent's, and so is the thread."""
    global _watch  # noqa: PLW0603  one a process
    _watch = _Watch()


os.register_at_fork(after_in_child=_begin_again)


def over(session: WatchedConnection) -> None:
    """Watch `session` until it is closed."""
    _watch.over(session)


def forget(session: WatchedConnection) -> None:
    """Watch `session` no more."""
    _watch.forget(session)
