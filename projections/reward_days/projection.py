"""Project the reward log by local days: sums of each kind of reward, who took part when, and orders with a grant.

A row is a change that occurred on one day and was recorded on one day, so that a report adds up what was known by a
local midnight. The days are those of the time zone that the generation's newest version has when a build begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.extras import execute_values

from projections.reward_days import comparison, texts_of_lots
from projections.reward_days.lanes import take_lane
from projections.reward_days.lots import NEVER, Lot, Move, corrections, unpacked
from projections.reward_days.participation import Recorded, pairs
from projections.reward_days.texts import ADD, ADD_PAIRS, FIRST
from projections.zones import fixed_zone, forget_zone, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.store.cursor import Cursor

TABLES = ("reward_day", "participation_day", "reward_count", "reward_lot", "lot_day")


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Add the rewards in `projection_range` to the sums of `build`."""
    lane = take_lane(cursor)
    where = {"build": build, "generation": generation, "zone": zone_of(cursor, build, had_always=True), "lane": lane}

    # sums, and the pairs of days of members whose days come in their order; the other members one after the other
    cursor.execute(FIRST if is_first else ADD, where)
    late = cursor.fetchall()
    _add(
        cursor,
        cursor.mogrify(ADD_PAIRS, where),
        [
            (each.day, each.previous, each.recorded_day, measure, each.members)
            for measure, known, days, recorded_days in late
            for each in pairs(known, map(Recorded, days, recorded_days))
        ],
    )

    # further movements of lots as they are; of the complex lots by all of their movements, before and after
    cursor.execute(texts_of_lots.FOLLOW_FIRST if is_first else texts_of_lots.FOLLOW, where)
    followed = cursor.fetchall()
    _add(
        cursor,
        cursor.mogrify(texts_of_lots.ADD_CORRECTIONS, where),
        [row for *lot, moves, points in followed for row in _corrected(Lot(*lot), unpacked(moves, points))],
    )


def _corrected(lot: Lot, added: list[Move]) -> Iterator[tuple[Any, ...]]:
    """Yield how the corrections of one lot change by further movements."""
    before = lot.all_moves()
    changes = corrections([*before, *added])
    changes.subtract(corrections(before))
    for cell, points in changes.items():
        if points:
            expires = "infinity" if cell.expires == NEVER else cell.expires
            yield (lot.granted_day, cell.day, cell.recorded_day, cell.way, expires, cell.left_day, points)


def _add(cursor: Cursor, query: bytes, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        execute_values(cursor, query, rows, page_size=len(rows))


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no report reads them."""
    for table in TABLES:
        cursor.execute(f"DELETE FROM guerdon.{table} WHERE build = %s", (build,))
    forget_zone(cursor, build)


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first row that is not as the log up to the cursor says; None: all are.

    Sums are over all shards, so they are compared with the first one.
    """
    return comparison.difference(cursor, build, generation, fixed_zone(cursor, build), shards)
