"""Let folds of different shards add to the same sums without waiting for each other.

The rows of this projection are sums over all shards, so they are few. They are kept in lanes, and a reader adds all
lanes up. A fold writes the first lane that nobody else writes, and has it to the end of its transaction: where one
process folds at a time, as is usual, there is one lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

LANE_LOCK = 0x6C61_6E65
"""Advisory lock with the number of a lane of a build."""


def take_lane(cursor: Cursor, build: int) -> int:
    """Return a lane of the build that nobody else writes until this transaction ends.

    A fold has the cursor of at least one shard, so there are as many lanes as folds.
    """
    (lane,) = one(
        cursor,
        """
        SELECT lane FROM generate_series(0, %(last)s) AS lane
        WHERE pg_try_advisory_xact_lock(%(lock)s, %(build)s * (%(last)s + 1) + lane)
        LIMIT 1  -- without an order, which would let PostgreSQL lock them all to sort them
        """,
        {"last": SHARDS - 1, "lock": LANE_LOCK, "build": build},
    )
    return int(lane)
