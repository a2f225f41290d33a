"""Ask PostgreSQL single questions on a connection of their own, with a limit to every wait."""

from __future__ import annotations

import select
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE

if TYPE_CHECKING:
    from engine.store.cursor import Connection


class Inquiry:
    """Hold a connection that never blocks for longer than `patience_s`; each statement is a transaction.

    Raises:
        TimeoutError: PostgreSQL did not accept the connection within `patience_s`.
        psycopg2.Error: PostgreSQL refused it.
    """

    def __init__(self, url: str, patience_s: float, **parameters: Any) -> None:
        self._patience_s = patience_s
        self._connection = psycopg2.connect(url, async_=1, **parameters)
        try:
            _await(self._connection, patience_s)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection, even while a statement is under way."""
        self._connection.close()

    def one(self, query: str, values: Any = None) -> Any:
        """Return the first row of `query`, or None where it has none.

        Raises:
            TimeoutError: no answer came in time.
            psycopg2.Error: PostgreSQL refused, or the connection broke.
        """
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(query, values)
            _await(self._connection, self._patience_s)
            return cursor.fetchone()


def _await(connection: Connection, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while (state := connection.poll()) != POLL_OK:
        reading = [connection] if state == POLL_READ else []
        writing = [connection] if state == POLL_WRITE else []
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not any(select.select(reading, writing, [], left_s)):
            raise TimeoutError(f"no answer within {patience_s:.0f} s")
