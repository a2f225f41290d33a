"""Give a connection up on which an answer will never come, so that whoever waits for it can connect anew.

libpq waits for an answer without limit. Where the host is gone, the limits of `session.LIMITS` end that; where a proxy
or a firewall between the two goes on to acknowledge what it has lost, nothing does. So a thread looks at the sessions
of this process. When one has waited long and nothing came or went, it asks PostgreSQL on a connection of its own what
that session is at. It costs the sessions nothing: the kernel counts.
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

from engine.store.session.asking import Asked

if TYPE_CHECKING:
    from engine.store.session.watched import WatchedConnection

log = structlog.get_logger()

LOOK_S = 1.0
ASK_AFTER_S = 5.0
"""How long nothing may come or go before PostgreSQL is asked."""

SETTLED_S = 3.0
"""How long the server must be at nothing for the session before that is believed."""

ASK_AGAIN_S_MAX = 60.0
ANSWERS_WITHIN_S = 5.0
UNREACHABLE_S = 60.0
"""How long PostgreSQL may not answer at all, while a session waits, before the session is given up."""

STOPPED_S = 3 * LOOK_S
"""A turn that took longer says that this process was stopped: then nothing is known of what came meanwhile."""

# What the session does by PostgreSQL's own account; a COPY that waits for this side waits for what was lost on the way.
STATE = """
SELECT state IS NULL OR state IN ('active', 'disabled') AND wait_event IS DISTINCT FROM 'ClientRead'
       AND wait_event IS DISTINCT FROM 'ClientWrite' OR state_change > clock_timestamp() - %s * interval '1 s'
FROM pg_stat_activity WHERE pid = %s
"""

_TCP_INFO = 11  # Linux' number for it, which Python's socket module has from 3.12 on
_ESTABLISHED = 1
_LAST_SENT, _LAST_RECEIVED = 44, 52  # where `struct tcp_info` says, in ms, how long ago data went and came


class _Wait:
    """Hold what is known of a session that waits for an answer."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.ask_at = 0.0
        self.heard = now


class _Watch:
    """Look at sessions in a thread that begins with the first of them."""

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
            while sessions:  # held no longer than it takes: who drops a session has it closed
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
                # the same statement as before the question, or it has had its answer by now
                if self._silent_s(session, time.monotonic()) >= silent_s:
                    _shut(session, why)

    def _silent_s(self, session: WatchedConnection, now: float) -> float:
        """Return for how long `session` waits already without a byte that came or went; 0 where it does not wait."""
        if session not in self.sessions or session.closed or _status(session) != TRANSACTION_STATUS_ACTIVE:
            self._waits.pop(session, None)
            return 0.0
        wait = self._waits.setdefault(session, _Wait(now))
        with suppress(psycopg2.Error, OSError), _socket(session) as link:
            return min(now - wait.since, _quiet_s(link))
        return 0.0


def _status(session: WatchedConnection) -> int:
    return session.info.transaction_status


def _socket(session: WatchedConnection) -> socket.socket:
    """Return the session's socket under a number of its own, which nobody else closes."""
    return socket.socket(fileno=os.dup(session.fileno()))


def _quiet_s(link: socket.socket) -> float:
    """Return for how long nothing came or went; 0 where what came is not read yet, and it is us who are slow."""
    unread = array.array("i", [0])
    fcntl.ioctl(link, termios.FIONREAD, unread)
    if unread[0]:
        return 0.0
    if link.family == socket.AF_UNIX or sys.platform != "linux":
        return float("inf")  # the kernel does not count here: what was seen of the session has to do
    told = link.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 64)
    if told[0] != _ESTABLISHED:
        return 0.0  # in the making, or ending: libpq hears of it by itself
    return float(min(struct.unpack_from("=I", told, at)[0] for at in (_LAST_SENT, _LAST_RECEIVED))) / 1000


def _lost(session: WatchedConnection, wait: _Wait) -> str | None:
    """Return why no answer will come, in a sentence; None where one may."""
    try:
        asked = Asked(session.url, ANSWERS_WITHIN_S, application_name="guerdon watch", **session.place())
        with closing(asked) as asking:
            row = asking.one(STATE, (SETTLED_S, session.pid))
    except TimeoutError:
        if time.monotonic() - wait.heard > UNREACHABLE_S:
            return f"PostgreSQL did not answer for {UNREACHABLE_S:.0f} s while a statement waited"
        return None
    except psycopg2.Error:  # it is there and says no (full, perhaps), or its host says that it has ended
        row = (True,)
    wait.heard = time.monotonic()
    wait.ask_at = wait.heard + min(wait.heard - wait.since, ASK_AGAIN_S_MAX)
    if row is None or not row[0]:
        return "an answer of PostgreSQL was lost on the way: the server has no statement of this session under way"
    return None


def _shut(session: WatchedConnection, why: str) -> None:
    """Let whoever waits for an answer wait no longer; libpq raises what it does for a broken connection."""
    session.given_up = why
    if structlog.is_configured():  # else a command, whose own sentence follows
        log.warning("connection given up", why=why)
    with suppress(psycopg2.Error, OSError), _socket(session) as link:
        link.shutdown(socket.SHUT_RDWR)


def give_up(session: WatchedConnection, why: str) -> None:
    """End the connection of `session`, in whichever thread it is waited for."""
    with _watch.lock:
        if session in _watch.sessions and not session.closed:
            _shut(session, why)


_watch = _Watch()


def _begin_again() -> None:
    """Watch nothing in a process that was forked: the sessions are its parent's, and so is the thread."""
    global _watch  # noqa: PLW0603  one a process
    _watch = _Watch()


os.register_at_fork(after_in_child=_begin_again)


def over(session: WatchedConnection) -> None:
    """Watch `session` until it is closed."""
    _watch.over(session)


def forget(session: WatchedConnection) -> None:
    """Look at `session` no more."""
    _watch.forget(session)
