"""Let folds of different shards add to the same sums without waiting for each other.

The rows of this projection are sums over all shards, so they are few. They are kept in lanes, and a reader adds all
lanes up. A fold writes the first lane that nobody else writes, and has it to the end of its transaction: where one
process folds at a time, as is usual, there is one lane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def take_lane(cursor: Cursor) -> int:
    """Return a lane that nobody else writes until this transaction ends; all builds of a fold have the same one.

    A fold has the cursor of at least one shard, so there are as many lanes as folds.
    """
    (lane,) = one(cursor, "SELECT lane FROM guerdon.reward_lane ORDER BY lane LIMIT 1 FOR UPDATE SKIP LOCKED")
    return int(lane)
