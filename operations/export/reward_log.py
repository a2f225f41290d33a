"""Read the live reward log after positions that a reader names, as analysts see it: erased members have pseudonyms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.generations import live_generation
from engine.store.views import REWARD_EVENT
from operations.rows import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.cursor import Cursor

COLUMNS = REWARD_EVENT.columns
"""The columns of a row."""

_ROWS = """
SELECT e.* FROM unnest(%(shards)s::smallint[], %(after)s::bigint[], %(upto)s::bigint[]) AS r (shard, after, upto)
CROSS JOIN LATERAL (
    SELECT * FROM reward.reward_event v WHERE v.shard = r.shard AND v.pos > r.after AND v.pos <= r.upto
    OFFSET 0  -- else PostgreSQL, where it believes the log short, reads it from its beginning
) e
ORDER BY e.shard, e.pos
"""


class LogPart(NamedTuple):
    """Hold a part of the live reward log."""

    generation: int
    rows: list[tuple[Any, ...]]
    """In the order of shards and positions, with the columns of `COLUMNS`."""

    positions: dict[int, int]
    """Up to where each shard that was asked for is read now."""

    behind: int
    """How many reward events follow in these shards."""


def read_after(cursor: Cursor, positions: Mapping[int, int], limit: int) -> LogPart:
    """Return the reward events after a position of each shard; positions have no gaps.

    Args:
        cursor: of a snapshot.
        positions: after which position each shard is read.
        limit: the most rows.
    """
    # share the limit out among the shards, as far as each has more
    generation = live_generation.live(cursor)
    cursor.execute("SELECT shard, pos FROM guerdon.generation_head WHERE generation = %s", (generation,))
    heads: dict[int, int] = dict(cursor.fetchall())
    upto, room = dict(positions), limit
    for shard, after in sorted(positions.items()):
        count = max(min(heads.get(shard, 0) - after, room), 0)
        upto[shard], room = after + count, room - count

    # read them
    wanted = [shard for shard in sorted(positions) if upto[shard] > positions[shard]]
    rows: list[tuple[Any, ...]] = []
    if wanted:
        ranges = {
            "shards": wanted, "after": [positions[each] for each in wanted], "upto": [upto[each] for each in wanted],
        }  # fmt: skip
        cursor.execute(_ROWS, ranges)
        places = {column.name: place for place, column in enumerate(cursor.description or ())}
        order = [places[column.name] for column in COLUMNS]
        rows = [tuple(plain(row[place]) for place in order) for row in cursor.fetchall()]

    behind = sum(max(heads.get(shard, 0) - pos, 0) for shard, pos in upto.items())
    return LogPart(generation, rows, upto, behind)
