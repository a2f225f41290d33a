"""Hold evaluation still over several transactions, for one process that writes to the live generation meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2

from engine.store.database import connect
from engine.store.generations import live_generation
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


class Stillness:
    """Let nobody evaluate until `close`, by a transaction of its own that holds the lock and does nothing else.

    Who writes meanwhile takes no lock, as this one keeps everybody else out; before each commit `check` says whether
    it has done so all the time. An open transaction that has written nothing keeps PostgreSQL from clearing up nothing.

    Raises:
        psycopg2.errors.LockNotAvailable: somebody's transaction was under way for longer than `lock_timeout_s`.
    """

    def __init__(self, database_url: str, lock_timeout_s: int) -> None:
        self._connection = connect(database_url, application="guerdon promote", idle_max="0")
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{lock_timeout_s}s",))
                # it idles by design, whatever the operator allows others; it ends with this process
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                live_generation.hold_evaluation(cursor)
        except BaseException:
            self._connection.close()
            raise

    def live(self, cursor: Cursor) -> int:
        """Return the number of the live generation to who writes while it is held still.

        Raises:
            AnswerIsNo: it is held still no more, or nothing may be added to its log.
        """
        self.check()
        return live_generation.writable(cursor)

    def check(self) -> None:
        """Raise `AnswerIsNo` where evaluation was not held still all the time."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as error:
            raise AnswerIsNo(
                f"PostgreSQL ended the session that held evaluation still ({str(error).strip().splitlines()[0]}); what "
                "was not committed before is not written: try again"
            ) from error

    def close(self) -> None:
        """Let others evaluate again."""
        self._connection.close()
