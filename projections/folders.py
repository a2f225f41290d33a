"""Fold a whole log into a new build on several connections, each with some of the shards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Self

import psycopg2

from engine.store.database import NO_LIMIT
from projections import runner
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.store.cursor import Connection
    from projections.runner import LogName

CORES = 2
"""The number of connections that fold at once, by default."""

READ_THROUGH = 4
"""A log of at most this number of ranges a shard is read from end to end, which is faster than by its index."""


class ShardFolds:
    """Fold `build` up to the end that its log had at the beginning.

    Each thread waits for a connection of its own. Leaving the context ends all of them, whatever they do.

    Args:
        database_url: the address of the database.
        build: a new build, without rows.
        positions: the number of positions to fold, in all shards.
        progress: called with the numbers of folded and of all positions, by one thread at a time.
        log: the log that the build folds.
    """

    def __init__(
        self,
        database_url: str,
        build: int,
        positions: int,
        progress: Callable[[int, int], None],
        *,
        log: LogName = "reward",
    ) -> None:
        self._database_url = database_url
        self._build = build
        self._positions = positions
        self._progress = progress
        self._log: LogName = log
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._connections: list[Connection] = []
        self._done = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the folds that still run."""
        self._stop.set()
        for connection in self._connections:
            with suppress(psycopg2.Error):  # closed by its thread
                connection.cancel()

    def fold(self, cores: int) -> int:
        """Fold with `cores` connections and return the number of positions; later positions are left."""
        size = -(-SHARDS // cores)
        parts = [range(first, min(first + size, SHARDS)) for first in range(0, SHARDS, size)]
        with ThreadPoolExecutor(len(parts)) as pool:
            try:
                for ended in as_completed([pool.submit(self._fold, shards) for shards in parts]):
                    ended.result()
            except BaseException:
                self.__exit__()
                raise
        return self._done

    def _fold(self, shards: Sequence[int]) -> None:
        """Fold some shards, range by range, until a range is not full: then little is left."""
        # a short reward log is read from end to end; a long one, and the source log always, by its index
        most = runner.most_of(self._log)
        reads_through = self._log == "reward" and self._positions <= READ_THROUGH * most * SHARDS
        url = self._database_url
        with closing(
            runner.connect_to_rebuild(url) if reads_through else runner.connect_to_project(url, NO_LIMIT)
        ) as connection:
            self._connections.append(connection)

            moved = most
            while moved >= most and not self._stop.is_set():
                moved = runner.advance(connection, [self._build], shards=shards, most=most)
                with self._lock:
                    self._done += moved
                    self._progress(self._done, self._positions)
