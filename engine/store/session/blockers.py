"""Ask PostgreSQL what a session waits for and which sessions block it, and say so in words."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2
from psycopg2.extensions import make_dsn

from engine.store.cursor import one

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

ASKED_WITHIN_S = 5
CLOSED_WITHIN_S = 1.0
"""How long PostgreSQL may take to let go of what a closed session had locked."""

WORDS_MAX = 60

_WAIT = """
SELECT a.state, a.wait_event_type, a.wait_event, pg_blocking_pids(a.pid),
       (SELECT coalesce(n.nspname || '.' || c.relname, l.locktype) FROM pg_locks l
        LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = a.pid AND (NOT l.granted OR l.locktype = 'tuple') ORDER BY c.relname IS NULL LIMIT 1)
FROM pg_stat_activity a WHERE a.pid = %s
"""

_SESSIONS = """
SELECT pid, usename, application_name, state, to_char(state_change AT TIME ZONE 'UTC', 'HH24:MI:SS"Z"'), query
FROM pg_stat_activity WHERE pid = ANY(%s) ORDER BY pid
"""

_MEANINGS = {
    ("IPC", "SyncRep"): "a synchronous standby that must confirm the commit (SyncRep): see synchronous_standby_names",
    ("Client", "ClientRead"): "this process to send on",
    ("Client", "ClientWrite"): "this process to read on",
}


class Wait(NamedTuple):
    """Say what a session waits for."""

    sentence: str
    is_held_up: bool
    """Whether another session or process must act before it goes on."""

    blocked_by: tuple[int, ...] = ()


def ask(dsn: str, pid: int, **place: Any) -> Wait:
    """Return what the session `pid` waits for; asked on a new connection to `dsn`, at `place` of its hosts."""
    own = make_dsn(dsn, application_name="guerdon waits", connect_timeout=ASKED_WITHIN_S, **place)
    try:
        with closing(psycopg2.connect(own)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", (f"{ASKED_WITHIN_S}s",))
            return wait_of(cursor, pid)
    except psycopg2.Error as error:
        return Wait(f"PostgreSQL, which does not answer ({str(error).strip().splitlines()[0]})", is_held_up=True)


def wait_of(cursor: Cursor, pid: int) -> Wait:
    """Return what the session `pid` waits for."""
    cursor.execute(_WAIT, (pid,))
    row = cursor.fetchone()
    if row is None:
        return Wait(
            "PostgreSQL, which does not know the session any more: it was ended, the network is cut, or a pooler "
            "stands in between",
            is_held_up=True,
        )

    state, kind, event, pids, place = row
    if pids:
        sentence = f"a lock on {place or 'something'} that {sessions(cursor, pids)}"
        return Wait(sentence, is_held_up=True, blocked_by=tuple(pids))
    if kind is None:
        return Wait("nobody: PostgreSQL works on it" if state == "active" else "this process", is_held_up=False)
    meaning = _MEANINGS.get((kind, event), f"{event} ({kind})")
    return Wait(meaning, is_held_up=(kind, event) == ("IPC", "SyncRep"))


def sessions(cursor: Cursor, pids: list[int]) -> str:
    """Return the holders of a lock in words, such as "pid 7 (user ann, psql, idle in transaction since …) holds"."""
    if set(pids) == {0}:
        return "a prepared transaction holds: see pg_prepared_xacts"
    cursor.execute(_SESSIONS, (list(pids),))
    holders = [_session(*row) for row in cursor.fetchall()]
    if not holders:
        return "somebody held until a moment ago"
    return f"{' and '.join(holders)} {'holds' if len(holders) == 1 else 'hold'}"


def _session(
    pid: int, user: str | None, application: str | None, state: str | None, since: str | None, query: str | None
) -> str:
    """Return a row of `_SESSIONS` in words."""
    words = " ".join((query or "").split())
    words = f"{words[:WORDS_MAX]}…" if len(words) > WORDS_MAX else words
    parts = [f"user {user}" if user else "", application or "", f"{state} since {since}" if state else ""]
    if words and not words.startswith("<"):  # what this user may not see
        parts.append(f"`{words}`")
    return f"pid {pid} ({', '.join(part for part in parts if part)})"


def who_writes(cursor: Cursor, table: str) -> str:
    """Return in words which other sessions hold rows of a table; asked when all rows left are locked."""
    cursor.execute(
        """
        SELECT DISTINCT l.pid FROM pg_locks l
        WHERE l.relation = %s::regclass AND l.granted AND l.mode IN ('RowShareLock', 'RowExclusiveLock')
          AND l.pid <> pg_backend_pid()
        """,
        (table,),
    )
    pids = [pid for (pid,) in cursor.fetchall()]
    return f"rows of {table} that {sessions(cursor, pids)}" if pids else f"rows of {table} that nobody holds now"


def who_uses(cursor: Cursor, *tables: str) -> str:
    """Return in words which other sessions read or write some tables now; empty where none does."""
    cursor.execute(
        """
        SELECT DISTINCT pid FROM pg_locks
        WHERE relation = ANY(%s::regclass[]) AND granted AND pid <> pg_backend_pid() LIMIT 5
        """,
        (list(tables),),
    )
    pids = [pid for (pid,) in cursor.fetchall()]
    return sessions(cursor, pids) if pids else ""


def take_alone(cursor: Cursor, space: int, number: Any) -> str | None:
    """Take an advisory lock until the connection is closed; return None, or its present holder in words.

    Any role of the database may take such a lock, so it must never guard what workers wait for. Here the second comer
    hardly waits, and learns who was first: a session that was closed a moment ago may still have the lock.
    """
    deadline = time.monotonic() + CLOSED_WITHIN_S
    while True:
        (alone,) = one(cursor, "SELECT pg_try_advisory_lock(%s, %s)", (space, number))
        if alone:
            return None
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    cursor.execute(
        """
        SELECT pid FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = %s AND objid::bigint = %s
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """,
        (space, number % 2**32),
    )
    return sessions(cursor, [pid for (pid,) in cursor.fetchall()])
