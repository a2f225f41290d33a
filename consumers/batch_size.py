"""Take smaller batches for a while where PostgreSQL's time limits are too tight for large ones."""

from __future__ import annotations

import time

SMALL_FOR_S = 60.0
"""How long a smaller size stays before twice that is tried."""


class BatchSize:
    """Decide how many events the next batch may have: `most`, and fewer after a batch that took too long."""

    def __init__(self, most: int) -> None:
        self._most = self._now = most
        self._until = 0.0

    def now(self) -> int:
        """Return how many events the next batch may have at most."""
        if self._now < self._most and time.monotonic() > self._until:
            self._set(min(2 * self._now, self._most))
        return self._now

    def shrink(self, events: int) -> int:
        """Halve the size after a batch of `events` events that took too long, and return the new size."""
        self._set(max(1, events // 2))
        return self._now

    def _set(self, size: int) -> None:
        self._now = size
        self._until = time.monotonic() + SMALL_FOR_S
