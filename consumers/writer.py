"""Write one batch at a time in a thread, so that the next one is decoded while PostgreSQL works."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg2
import structlog

from engine.live.transaction import LiveTransaction
from engine.store.session.failures import cannot_go_on, passes, words_of
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from engine.live.batch import Batch
    from engine.live.work import Outcome

log = structlog.get_logger()

BACK_OFF_S_FIRST = 0.1
BACK_OFF_S_MAX = 5.0


class Stopped(Exception):
    """Say that the worker was stopped while PostgreSQL was away; the batch was not written."""


class TookTooLong(Exception):
    """Say that a time limit of PostgreSQL's ended the batch and nothing was written; a smaller batch may pass."""


class Writer:
    """Hand batches to the live transaction, and try again while PostgreSQL is away; `why` then gives the reason."""

    def __init__(
        self,
        database_url: str,
        schema_text: Callable[[int], str | None],
        stop: threading.Event,
        observe: Callable[[str], None] | None = None,
    ) -> None:
        self._database_url = database_url
        self._schema_text = schema_text
        self._stop = stop
        self._observe = observe
        self._transaction: LiveTransaction | None = None
        self.why: str | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def begin(self, batch: Batch) -> Future[Outcome]:
        """Begin to append, evaluate and record `batch`.

        The future raises `Fenced`, `TookTooLong` or `Stopped` where it was not written.
        """
        return self._thread.submit(self._write, batch)

    def cancel(self) -> None:
        """Cancel the transaction under way, which may wait for a lock; its future raises `Stopped`."""
        if (transaction := self._transaction) is not None:
            transaction.cancel()

    def close(self) -> None:
        """End after the transaction under way."""
        self._thread.shutdown()
        self._disconnect()

    def _write(self, batch: Batch) -> Outcome:
        """Write `batch`, however long PostgreSQL is away.

        A connection that breaks during the commit leaves open whether it took effect. The next attempt's
        compare-and-set decides it: if it did, the offsets have moved, and the worker reads on from the table's.
        """
        back_off_s = BACK_OFF_S_FIRST
        while True:
            start_s = time.monotonic()
            try:
                outcome = self._connected().commit(batch)
            except (psycopg2.Error, ServiceUnreachable) as error:
                # some errors no repetition mends
                transaction = self._transaction
                limit = None if transaction is None else transaction.limit_of(error, time.monotonic() - start_s)
                if isinstance(error, psycopg2.Error) and limit is None and not passes(error):
                    raise cannot_go_on(error) from error

                # a time limit may let a smaller batch pass
                self._disconnect()
                if limit is not None and len(batch.admitted) > 1 and not self._stop.is_set():
                    raise TookTooLong(f"PostgreSQL's {limit} ended it: {str(error).strip()}") from error

                # anything else passes by itself
                self.why = words_of(error)
                log.warning("writer pauses", why=self.why, retry_s=back_off_s)
                if self._stop.wait(back_off_s):
                    raise Stopped from error
                back_off_s = min(2 * back_off_s, BACK_OFF_S_MAX)
            except MemoryError as error:
                raise cannot_go_on(error) from error
            else:
                self.why = None
                return outcome

    def _connected(self) -> LiveTransaction:
        if self._transaction is None:
            observe: dict[str, Any] = {} if self._observe is None else {"observe": self._observe}
            self._transaction = LiveTransaction(self._database_url, self._schema_text, **observe)
        return self._transaction

    def _disconnect(self) -> None:
        if self._transaction is not None:
            self._transaction.close()
            self._transaction = None
