"""Fix the zone whose local days the rollups of a build have, before its first row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def zone_of(cursor: Cursor, build: int, *, had_always: bool = False) -> str | None:
    """Return the zone of the rollups of a build whose ranges in `projection_range` are folded now.

    It is that of the newest programme version of the build's generation when the build was begun, or of the first one
    where the build is older. A build of the source log takes the live generation's. Each shard notes it with its first
    events, as a note of all shards would let one that folds them wait for another.

    Args:
        cursor: in the transaction that folds.
        build: of a projection that has rollups.
        had_always: whether it is a projection that never was without them.

    Returns:
        None where events of these shards were folded before there were rollups.
    """
    cursor.execute(_NOTE, {"build": build, "had_always": had_always})
    cursor.execute(
        """
        SELECT min(z.zone), count(*) > count(z.zone) FROM projection_range r
        LEFT JOIN guerdon.rollup_zone z ON z.build = r.build AND z.shard = r.shard WHERE r.build = %s
        """,
        (build,),
    )
    return _zone(cursor)


def fixed_zone(cursor: Cursor, build: int) -> str | None:
    """Return the zone of a build's rollups; None where they lack events, or where nothing is folded yet."""
    cursor.execute(
        """
        SELECT min(z.zone), count(*) > count(z.zone) FROM guerdon.projection_cursor c
        LEFT JOIN guerdon.rollup_zone z ON z.build = c.build AND z.shard = c.shard WHERE c.build = %s AND c.pos > 0
        """,
        (build,),
    )
    return _zone(cursor)


def _zone(cursor: Cursor) -> str | None:
    row = cursor.fetchone()
    return None if row is None or row[1] else row[0]


def forget_zone(cursor: Cursor, build: int) -> None:
    """Delete the zone of a build whose rows are deleted."""
    cursor.execute("DELETE FROM guerdon.rollup_zone WHERE build = %s", (build,))


_NOTE = """
INSERT INTO guerdon.rollup_zone (build, shard, zone)
SELECT r.build, r.shard, coalesce((
    SELECT v.timezone FROM guerdon.generation_schedule s JOIN guerdon.programme_version v USING (version)
    WHERE s.generation = coalesce(b.generation, (SELECT generation FROM guerdon.generation WHERE status = 'live'))
    ORDER BY v.activated_at < b.started_at DESC,
             CASE WHEN v.activated_at < b.started_at THEN -v.version ELSE v.version END LIMIT 1
), 'UTC')
FROM projection_range r JOIN guerdon.projection_build b USING (build)
WHERE r.build = %(build)s AND (r.after_pos = 0 OR %(had_always)s)
ON CONFLICT DO NOTHING
"""
