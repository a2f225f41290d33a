"""Hold evaluation still over several transactions, so that one process alone writes to the live generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2

from engine.store.database import connect
from engine.store.generations import live_generation
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


class Stillness:
    """Keep everybody from evaluating until `close`, by a transaction of its own that does nothing but hold the lock.

    The process that writes meanwhile takes no lock, as this one keeps everybody else out. Before each commit it calls
    `check`, which says whether the lock was held all the time. The open transaction has written nothing, so it does
    not keep PostgreSQL from clearing up old rows.

    Raises:
        psycopg2.errors.LockNotAvailable: somebody's transaction was under way for longer than `lock_timeout_s`.
    """

    def __init__(self, database_url: str, lock_timeout_s: int) -> None:
        self._connection = connect(database_url, application="guerdon promote", idle_max="0")
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{lock_timeout_s}s",))
                # this session idles by design, whatever the operator allows others; it ends with this process
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                live_generation.hold_evaluation(cursor)
        except BaseException:
            self._connection.close()
            raise

    def live(self, cursor: Cursor) -> int:
        """Return the number of the live generation, in order to write to it while evaluation is held still.

        Raises:
            AnswerIsNo: evaluation is held still no more, or nothing may be added to the log.
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
