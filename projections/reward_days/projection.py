"""Project the reward log by local days: sums of each kind of reward, who took part when, and orders with a grant.

A row is a change that occurred on one day and was recorded on one day, so that a report adds up what was known by a
local midnight. The days are those of the time zone that the generation's newest version has when a build begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from projections.reward_days import comparison
from projections.reward_days.lanes import take_lane
from projections.reward_days.participation import Recorded, pairs
from projections.reward_days.texts import ADD, ADD_PAIRS, FIRST
from projections.zones import forget_zone, zone_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

TABLES = ("reward_day", "participation_day", "reward_count")


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Add the rewards in `projection_range` to the sums of `build`."""
    lane = take_lane(cursor, build)
    where = {"build": build, "generation": generation, "zone": zone_of(cursor, build), "lane": lane}

    # sums, and the pairs of days of members whose days come in their order
    cursor.execute(FIRST if is_first else ADD, where)
    late = cursor.fetchall()

    # the others, one member after the other
    changed = [
        (each.day, each.previous, each.recorded_day, measure, each.members)
        for measure, known, days, recorded_days in late
        for each in pairs(known, map(Recorded, days, recorded_days))
    ]
    if changed:
        execute_values(cursor, cursor.mogrify(ADD_PAIRS, where), changed, page_size=len(changed))


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no report reads them."""
    for table in TABLES:
        cursor.execute(f"DELETE FROM guerdon.{table} WHERE build = %s", (build,))
    forget_zone(cursor, build)


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first row that is not as the log up to the cursor says; None: all are.

    Sums are over all shards, so they are compared with the first one.
    """
    cursor.execute("SELECT zone FROM guerdon.rollup_zone WHERE build = %s", (build,))
    zone = cursor.fetchone()
    return None if zone is None else comparison.difference(cursor, build, generation, zone[0], shards)
