"""Read the closed periods of contests, and the place of each closing in a shard's log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def closed_in(cursor: Cursor, shard: int) -> dict[tuple[str, int], int]:
    """Return the seq of a shard at which each (contest, period) was closed."""
    cursor.execute("SELECT contest, period, seq FROM guerdon.contest_closing WHERE shard = %s", (shard,))
    return {(contest, period): seq for contest, period, seq in cursor.fetchall()}
