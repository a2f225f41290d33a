"""Fold the source log into tables of facts: what members did, whatever a programme made of it (decision 0039)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from engine.store.logs.bare_log import BareLog, Range
from projections.facts import rows
from projections.facts.difference import difference
from projections.facts.earlier import Earlier, earlier_of
from projections.facts.fold import Fold
from projections.facts.rollups import cells
from projections.facts.rollups.rolling import Rolling
from projections.facts.writing import write
from projections.zones import forget_zone, zone_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.store.cursor import Cursor

__all__ = ["clear", "difference", "fold"]  # as the runner asks each projection for them

EVENTS_AT_ONCE = 5_000
"""The most events that are decoded at once, so that memory stays in bounds and near; of one shard all of a range."""


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:  # noqa: ARG001  facts have none
    """Fold the ranges of `build` in `projection_range`; their positions are seqs of the source log."""
    zone = zone_of(cursor, build)
    cursor.execute("SELECT shard, after_pos, upto_pos FROM projection_range WHERE build = %s ORDER BY shard", (build,))
    log = BareLog(cursor)
    for ranges in _together(Range(*row) for row in cursor.fetchall()):
        events = list(log.read(ranges))
        earlier = Earlier() if is_first else earlier_of(cursor, log, build, events)
        folded = Fold(build, earlier)
        folded.take(events)
        if zone is not None:
            Rolling(cursor, build, zone).roll(folded, events, earlier, ranges)
        write(cursor, build, folded, {shard: after_seq + 1 for shard, after_seq, _ in ranges})


def _together(ranges: Iterable[Range]) -> Iterator[list[Range]]:
    """Yield ranges in groups of EVENTS_AT_ONCE at most, or of one range."""
    group: list[Range] = []
    events = 0
    for each in ranges:
        size = each.upto_seq - each.after_seq
        if group and events + size > EVENTS_AT_ONCE:
            yield group
            group, events = [], 0
        group.append(each)
        events += size
    if group:
        yield group


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`."""
    cells.clear(cursor, build)
    forget_zone(cursor, build)
    for table in rows.TABLES:
        cursor.execute(
            sql.SQL("DELETE FROM {} WHERE build = %s").format(sql.Identifier("guerdon", table.name)), (build,)
        )
