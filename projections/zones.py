"""Fix the zone whose local days the rollups of a build have, before its first row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def zone_of(cursor: Cursor, build: int) -> str | None:
    """Return the zone of a build's rollups; None where its first events came before there were rollups.

    A build without events gets the zone of the newest programme version of its generation, for good. A build of the
    source log gets that of the live generation. Processes that fold the first events of several shards at once
    agree on one.

    Args:
        cursor: in the transaction that folds.
        build: of a projection that has rollups.
    """
    cursor.execute(_ZONE, (build,))
    row = cursor.fetchone()
    if row is None:
        cursor.execute(_FIX, {"build": build})
        cursor.execute(_ZONE, (build,))
        row = cursor.fetchone()
    return None if row is None else str(row[0])


def forget_zone(cursor: Cursor, build: int) -> None:
    """Delete the zone of a build whose rows are deleted."""
    cursor.execute("DELETE FROM guerdon.rollup_zone WHERE build = %s", (build,))


_ZONE = "SELECT zone FROM guerdon.rollup_zone WHERE build = %s"

_FIX = """
INSERT INTO guerdon.rollup_zone (build, zone)
SELECT b.build, coalesce((
    SELECT v.timezone FROM guerdon.generation_schedule s JOIN guerdon.programme_version v USING (version)
    WHERE s.generation = coalesce(b.generation, (SELECT generation FROM guerdon.generation WHERE status = 'live'))
    ORDER BY v.version DESC LIMIT 1
), 'UTC')
FROM guerdon.projection_build b
WHERE b.build = %(build)s
  AND NOT EXISTS (SELECT FROM guerdon.projection_cursor c WHERE c.build = b.build AND c.pos > 0)
ON CONFLICT DO NOTHING
"""
