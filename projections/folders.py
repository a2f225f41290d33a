"""Fold a whole log into a new build: some shards each, on as many connections as there are cores for it."""

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

CORES = 2
"""How many processes of PostgreSQL fold at once, unless somebody says otherwise."""

READ_THROUGH = 4
"""A log of at most so many ranges is read from end to end for each: faster than by its index, shard by shard."""


class Folders:
    """Fold `build` up to where its log ended when it was begun; all the work is PostgreSQL's.

    A thread here waits for a connection of its own. Leaving the context ends all of them, whatever they are at.

    Args:
        database_url: where.
        build: a new one, of which nothing is folded.
        positions: how many positions there are to fold, in all shards.
        progress: is told how many are folded and how many there are, by one thread at a time.
    """

    def __init__(self, database_url: str, build: int, positions: int, progress: Callable[[int, int], None]) -> None:
        self._database_url = database_url
        self._build = build
        self._positions = positions
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._connections: list[Connection] = []
        self._done = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what is still folding."""
        self._stop.set()
        for connection in self._connections:
            with suppress(psycopg2.Error):  # closed by its thread
                connection.cancel()

    def fold(self, cores: int) -> int:
        """Fold with `cores` connections and return how many positions that were; what comes meanwhile is left."""
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
        """Fold some shards, range by range, until a range is not full: what is left then is little."""
        ranges_max = runner.POSITIONS_MAX * SHARDS
        is_wide = self._positions <= READ_THROUGH * ranges_max
        url = self._database_url
        with closing(
            runner.connect_to_rebuild(url) if is_wide else runner.connect_to_project(url, NO_LIMIT)
        ) as connection:
            self._connections.append(connection)
            moved = runner.POSITIONS_MAX
            while moved >= runner.POSITIONS_MAX and not self._stop.is_set():
                moved = runner.advance(connection, [self._build], shards=shards)
                with self._lock:
                    self._done += moved
                    self._progress(self._done, self._positions)
