"""Decide whether rollups can answer a report, or say why it reads the logs; and find the time that they cover."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from engine.store.cursor import one
from operations.report.periods import midnight, midnight_after
from projections.zones import fixed_zone

if TYPE_CHECKING:
    from datetime import date, datetime

    from engine.store.cursor import Cursor

LAG_MAX = 10_000
"""The most reward events that rollups may lack: a second or so of a busy worker. Beyond it the logs are read."""

REBUILD = "`guerdon projection rebuild {name}`"


class Wanted(NamedTuple):
    """Hold what a report asks of rollups."""

    generation: int
    zone: str
    by: str | None
    known_at: datetime | None
    """None: all that is known."""

    since: date | None = None
    """None: from the first event on."""


def why_logs(cursor: Cursor, wanted: Wanted) -> str | None:
    """Return in a sentence why a report must read the logs; None: the rollups answer it.

    Rollups hold sums by local day and by the local day of recording. So they know the log as it stood at a local
    midnight, and not within a day. Of what a member did long before a day they know the month.
    """
    if wanted.by is not None:
        return f"rows split by {wanted.by} are read from the logs, which takes longer"
    if wanted.known_at is not None and midnight_after(wanted.known_at, wanted.zone) != wanted.known_at:
        return (
            "an instant within a day is answered from the logs, which takes longer: rollups know how things stood at "
            f"midnights of {wanted.zone}"
        )
    if wanted.since is not None and wanted.since.day > 1:
        return "a report that begins within a month is read from the logs, which takes longer"
    return _why_not(cursor, wanted, "facts") or _why_not(cursor, wanted, "reward_day")


def _why_not(cursor: Cursor, wanted: Wanted, name: str) -> str | None:
    """Return in a sentence why the rollups of a projection cannot be used; None: they can.

    Those of rewards are of the generation of the report, those of facts of all generations; these move with the facts,
    which a report reads otherwise, so only what rewards lack counts.
    """
    cursor.execute(
        """
        SELECT b.build, EXISTS (SELECT FROM guerdon.projection_gap g WHERE g.build = b.build)
        FROM guerdon.projection_build b
        WHERE b.projection = %s AND b.status = 'live' AND coalesce(b.generation = %s, true)
        """,
        (name, wanted.generation),
    )
    build, has_gaps = cursor.fetchone() or (None, False)
    own_zone = None if build is None else fixed_zone(cursor, build)
    rebuild = REBUILD.format(name=name)
    if own_zone is None and name == "reward_day" and has_no_reward(cursor, wanted.generation):
        return None
    if own_zone is None:
        return f"there are no rollups of {name} yet, and the logs take longer to read; {rebuild} makes them"
    if own_zone != wanted.zone:
        return (
            f"the rollups of {name} have days of {own_zone}, not of {wanted.zone}, so the logs are read; {rebuild} "
            "mends it"
        )
    if has_gaps:
        return f"events were set aside by {name}, so the logs are read; see `guerdon projection verify {name}`"
    if name == "reward_day" and (lag := lag_of_rewards(cursor, wanted.generation)) > LAG_MAX:
        return f"the rollups of {name} lack the newest {lag} events, so the logs are read, which takes longer"
    return None


def has_no_reward(cursor: Cursor, generation: int) -> bool:
    """Whether a generation's log is empty, so that there is nothing to add up."""
    (is_empty,) = one(
        cursor,
        "SELECT NOT EXISTS (SELECT FROM guerdon.generation_head WHERE generation = %s AND pos > 0)",
        (generation,),
    )
    return bool(is_empty)


def lag_of_rewards(cursor: Cursor, generation: int) -> int:
    """Return how many reward events of a generation its rollups lack."""
    (lag,) = one(
        cursor,
        """
        SELECT coalesce(sum(h.pos - c.pos), 0)::bigint
        FROM guerdon.projection_build b JOIN guerdon.projection_cursor c USING (build)
        CROSS JOIN LATERAL (
            SELECT g.pos FROM guerdon.generation_head g
            WHERE g.generation = b.generation AND g.shard = c.shard ORDER BY g.seq DESC LIMIT 1
        ) h
        WHERE b.projection = 'reward_day' AND b.status = 'live' AND b.generation = %s
        """,
        (generation,),
    )
    return int(lag)


def known_time(cursor: Cursor, build: int, known_before: date | None, zone: str) -> tuple[datetime, datetime] | None:
    """Return instants on the days of the first and of the last event that upstream systems had sent; None: of none.

    The last one is a midnight where nothing happened on its day but at that instant.
    """
    cursor.execute(
        """
        WITH days AS (
            SELECT day, sum(CASE WHEN measure = 'event' THEN amount ELSE -amount END) > 0 AS is_long
            FROM guerdon.rollup
            WHERE build = %(build)s AND measure IN ('event', 'midnight') AND recorded < %(known_before)s GROUP BY day
        )
        SELECT min(day), max(day), (SELECT is_long FROM days ORDER BY day DESC LIMIT 1) FROM days
        """,
        {"build": build, "known_before": known_before or "infinity"},
    )
    row = cursor.fetchone()
    if row is None or row[0] is None:
        return None
    first, last, is_long = row
    return midnight(first, zone), midnight(last, zone) + timedelta(microseconds=is_long)
