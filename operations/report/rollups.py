"""Decide whether rollups can answer a report, or say why it reads the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from operations.report.periods import midnight_after

if TYPE_CHECKING:
    from datetime import datetime

    from engine.store.cursor import Cursor

REBUILD = "`guerdon projection rebuild {name}`"


class Wanted(NamedTuple):
    """Hold what a report asks of rollups."""

    zone: str
    by: str | None
    known_at: datetime | None
    """None: all that is known."""


def why_logs(cursor: Cursor, wanted: Wanted) -> str | None:
    """Return in a sentence why a report must read the logs; None: the rollups answer it.

    Rollups hold sums by local day and by the local day of recording. So they know the log as it stood at a local
    midnight, and not within a day.
    """
    if wanted.by is not None:
        return f"rows split by {wanted.by} are read from the logs, which takes longer"
    if wanted.known_at is not None and midnight_after(wanted.known_at, wanted.zone) != wanted.known_at:
        return (
            "an instant within a day is answered from the logs, which takes longer: rollups know how things stood at "
            f"midnights of {wanted.zone}"
        )
    return _why_not(cursor, wanted.zone, "facts")


def _why_not(cursor: Cursor, zone: str, name: str) -> str | None:
    """Return in a sentence why the rollups of a live projection cannot be used; None: they can."""
    cursor.execute(
        """
        SELECT z.zone, EXISTS (SELECT FROM guerdon.projection_gap g WHERE g.build = b.build),
               (SELECT coalesce(sum(f.lag), 0)::bigint FROM reward.freshness f WHERE f.projection = b.projection)
        FROM guerdon.live_build b LEFT JOIN guerdon.rollup_zone z USING (build) WHERE b.projection = %s
        """,
        (name,),
    )
    row = cursor.fetchone()
    rebuild = REBUILD.format(name=name)
    if row is None or row[0] is None:
        return f"there are no rollups of {name} yet, and the logs take longer to read; {rebuild} makes them"
    own_zone, has_gaps, lag = row
    if own_zone != zone:
        return f"the rollups of {name} have days of {own_zone}, not of {zone}, so the logs are read; {rebuild} mends it"
    if has_gaps:
        return f"events were set aside by {name}, so the logs are read; see `guerdon projection verify {name}`"
    if lag:
        return f"the rollups of {name} lack the newest {lag} events, so the logs are read, which takes longer"
    return None
