"""Prove that every consumed offset became exactly one thing: an event, a duplicate, a quarantined record, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.database import one

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812  a class under a module's name
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  as above

_KEPT = """
    WITH taken AS (
        SELECT o.*, least(o.first_offset, r.least_to) AS lowest, greatest(o.next_offset, r.greatest_from) AS beyond,
               coalesce(r.went_back, 0) AS went_back
        FROM guerdon.consumer_offset o
        LEFT JOIN (
            SELECT topic, partition, min(to_offset) AS least_to, max(from_offset) AS greatest_from,
                   count(*) FILTER (WHERE to_offset < from_offset) AS went_back
            FROM guerdon.consumer_reset GROUP BY topic, partition
        ) r USING (topic, partition)
    ), kept AS (
        SELECT t.topic AS ending, s.partition, s.offset_, format('shard %s, seq %s', s.shard, s.seq) AS place,
               true AS is_event
        FROM guerdon.source_event s JOIN guerdon.topic_of_kind t USING (kind) WHERE s.partition >= 0
        UNION ALL
        SELECT q.topic, q.partition, q.offset_, format('quarantine %s', q.id), false
        FROM guerdon.quarantine q WHERE q.seq IS NULL AND q.topic IS NOT NULL AND q.offset_ IS NOT NULL
    ), placed AS (
        SELECT coalesce(t.topic, k.ending) AS topic, k.partition, k.offset_, k.place, k.is_event,
               t.lowest, t.beyond, t.went_back
        FROM kept k
        LEFT JOIN taken t ON t.partition = k.partition AND right(t.topic, length(k.ending)) = k.ending
    )
"""
"""What is kept of each offset. A topic that was made anew begins at 0 again: an offset then stands for two."""


def offsets(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Hold each consumed offset to be exactly one of accepted, duplicate, quarantined or passed (I1).

    Of duplicates and passed offsets only the number is kept.
    """
    with connection.cursor() as cursor:
        (looked_at,) = one(cursor, "SELECT coalesce(sum(next_offset - first_offset), 0) FROM guerdon.consumer_offset")
        return int(looked_at), _miscounted(cursor) or _misplaced(cursor)


def _miscounted(cursor: Cursor) -> str | None:
    """Name the first partition whose counters are not what is kept of it, with its first offset that may be amiss."""
    cursor.execute(
        f"""
        {_KEPT}, counted AS (
            SELECT topic, partition, count(*) FILTER (WHERE is_event) AS events,
                   count(*) FILTER (WHERE NOT is_event) AS records
            FROM placed GROUP BY topic, partition
        )
        SELECT o.topic, o.partition, o.first_offset, o.next_offset, o.accepted, o.duplicate, o.quarantined, o.passed,
               coalesce(c.events, 0), coalesce(c.records, 0),
               (
                   SELECT min(at) FROM (
                       SELECT offset_ + 1 AS at, lead(offset_) OVER (ORDER BY offset_) AS following FROM (
                           SELECT o.first_offset - 1 AS offset_
                           UNION
                           SELECT p.offset_ FROM placed p
                           WHERE p.topic = o.topic AND p.partition = o.partition AND p.offset_ >= o.first_offset
                       ) each
                   ) step
                   WHERE following IS DISTINCT FROM at AND at < o.next_offset
               )
        FROM guerdon.consumer_offset o LEFT JOIN counted c USING (topic, partition)
        WHERE o.next_offset - o.first_offset <> o.accepted + o.duplicate + o.quarantined + o.passed
           OR o.accepted <> coalesce(c.events, 0) OR o.quarantined <> coalesce(c.records, 0)
           OR least(o.accepted, o.duplicate, o.quarantined) < 0
        ORDER BY o.topic, o.partition LIMIT 1
        """  # noqa: S608  a constant of this module
    )
    row = cursor.fetchone()
    if row is None:
        return None
    topic, partition, first, following, accepted, duplicate, quarantined, passed, events, records, free = row
    kept = "each of them is kept" if free is None else f"offset {free} is the first of which neither has anything"
    return (
        f"{topic} partition {partition}: offsets {first} to {following - 1} were taken, {following - first}, but "
        f"{accepted} are accepted, {duplicate} duplicate, {quarantined} quarantined, {passed} passed; the log holds "
        f"{events}, the quarantine {records}; {kept}"
    )


def _misplaced(cursor: Cursor) -> str | None:
    """Name the first offset that was never taken, or became two things."""
    cursor.execute(
        f"""
        {_KEPT}
        SELECT topic, partition, offset_, min(place), max(place), count(*) AS times, lowest IS NULL
        FROM placed GROUP BY topic, partition, offset_, lowest, beyond, went_back
        HAVING lowest IS NULL OR offset_ < lowest OR offset_ >= beyond OR count(*) > 1 + went_back
        ORDER BY topic, partition, offset_ LIMIT 1
        """  # noqa: S608  a constant of this module
    )
    row = cursor.fetchone()
    if row is None:
        return None
    topic, partition, offset, place, other, times, is_unknown = row
    where = f"{topic} partition {partition}, offset {offset}"
    if is_unknown:
        return f"{where} stands in {place}, and the partition was never taken"
    if times > 1:
        return f"{where} became {times} things: it stands in {place} and in {other}"
    return f"{where} stands in {place}, and was never taken"
