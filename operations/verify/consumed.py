"""Prove that every consumed offset became exactly one of: an event, a duplicate, a quarantined record, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor

_KEPT = """
    WITH ending AS (
        SELECT DISTINCT topic FROM guerdon.topic_of_kind
    ), taken AS (
        SELECT o.*, coalesce(e.topic, o.topic) AS ending, least(o.first_offset, r.least_to) AS lowest,
               greatest(o.next_offset, r.greatest_from) AS beyond, coalesce(r.went_back, 0) AS went_back
        FROM guerdon.consumer_offset o
        LEFT JOIN ending e ON right(o.topic, length(e.topic)) = e.topic
        LEFT JOIN (
            SELECT topic, partition, min(to_offset) AS least_to, max(from_offset) AS greatest_from,
                   count(*) FILTER (WHERE to_offset < from_offset) AS went_back
            FROM guerdon.consumer_reset GROUP BY topic, partition
        ) r ON r.topic = o.topic AND r.partition = o.partition
    ), kept AS (
        SELECT t.topic AS ending, NULL AS topic, s.partition, s.offset_,
               format('shard %s, seq %s', s.shard, s.seq) AS place, true AS is_event
        FROM guerdon.source_event s JOIN guerdon.topic_of_kind t USING (kind) WHERE s.partition >= 0
        UNION ALL
        SELECT coalesce(e.topic, q.topic), q.topic, q.partition, q.offset_, format('quarantine %s', q.id), false
        FROM guerdon.quarantine q LEFT JOIN ending e ON right(q.topic, length(e.topic)) = e.topic
        WHERE q.seq IS NULL AND q.topic IS NOT NULL AND q.offset_ IS NOT NULL
    )
"""
"""The event or the record that is stored for each offset.

A topic that was deleted and made again begins at 0 again, so an offset may stand for two records. An event does not say
under which prefix its topic was read. Where a database has read topics of several prefixes, topics with the same ending
are compared with the log together: an offset may then stand for one record in each of them.
"""


def offsets(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Check that each consumed offset is exactly one of accepted, duplicate, quarantined or passed (I1).

    Duplicates and passed offsets are stored as numbers only.
    """
    with connection.cursor() as cursor:
        (looked_at,) = one(cursor, "SELECT coalesce(sum(next_offset - first_offset), 0) FROM guerdon.consumer_offset")
        return int(looked_at), _miscounted(cursor) or _misplaced(cursor)


def _miscounted(cursor: Cursor) -> str | None:
    """Name the first partition whose counters differ from its stored rows, with its first offset without a row."""
    cursor.execute(
        f"""
        {_KEPT}, events AS (
            SELECT ending, partition, count(*) AS events FROM kept WHERE is_event GROUP BY ending, partition
        ), records AS (
            SELECT topic, partition, count(*) AS records FROM kept WHERE NOT is_event GROUP BY topic, partition
        ), alike AS (
            SELECT ending, partition, sum(accepted)::bigint AS accepted FROM taken GROUP BY ending, partition
        )
        SELECT o.topic, o.partition, o.first_offset, o.next_offset, o.accepted, o.duplicate, o.quarantined, o.passed,
               coalesce(e.events, 0) - (a.accepted - o.accepted), coalesce(r.records, 0),
               (
                   SELECT min(at) FROM (
                       SELECT offset_ + 1 AS at, lead(offset_) OVER (ORDER BY offset_) AS following FROM (
                           SELECT o.first_offset - 1 AS offset_
                           UNION
                           SELECT k.offset_ FROM kept k
                           WHERE k.ending = o.ending AND k.partition = o.partition AND k.offset_ >= o.first_offset
                       ) each
                   ) step
                   WHERE following IS DISTINCT FROM at AND at < o.next_offset
               )
        FROM taken o JOIN alike a USING (ending, partition) LEFT JOIN events e USING (ending, partition)
        LEFT JOIN records r ON r.topic = o.topic AND r.partition = o.partition
        WHERE o.next_offset - o.first_offset <> o.accepted + o.duplicate + o.quarantined + o.passed
           OR a.accepted <> coalesce(e.events, 0) OR o.quarantined <> coalesce(r.records, 0)
           OR least(o.accepted, o.duplicate, o.quarantined) < 0
        ORDER BY o.topic, o.partition LIMIT 1
        """
    )
    row = cursor.fetchone()
    if row is None:
        return None
    topic, partition, first, following, accepted, duplicate, quarantined, passed, events, records, free = row
    stored = "each of them is kept" if free is None else f"offset {free} is the first of which neither has anything"
    return (
        f"{topic} partition {partition}: offsets {first} to {following - 1} were taken, {following - first}, but "
        f"{accepted} are accepted, {duplicate} duplicate, {quarantined} quarantined, {passed} passed; the log holds "
        f"{events}, the quarantine {records}; {stored}"
    )


def _misplaced(cursor: Cursor) -> str | None:
    """Name the first offset that has a row and was never taken, or that has two rows."""
    cursor.execute(
        f"""
        {_KEPT}
        , things AS (
            SELECT ending, partition, offset_, min(topic) AS topic, min(place) AS place, max(place) AS other,
                   count(*) AS times
            FROM kept GROUP BY ending, partition, offset_
        )
        SELECT coalesce(min(t.topic), h.topic, h.ending) AS topic, h.partition, h.offset_, h.place, h.other, h.times,
               count(t.topic) = 0, count(*) FILTER (WHERE h.offset_ >= t.lowest AND h.offset_ < t.beyond) = 0
        FROM things h LEFT JOIN taken t USING (ending, partition)
        GROUP BY h.ending, h.partition, h.offset_, h.topic, h.place, h.other, h.times
        HAVING h.times > coalesce(sum(1 + t.went_back) FILTER (WHERE h.offset_ >= t.lowest AND h.offset_ < t.beyond), 0)
        ORDER BY topic, partition, offset_ LIMIT 1
        """
    )
    row = cursor.fetchone()
    if row is None:
        return None
    topic, partition, offset, place, other, times, is_unknown, is_beyond = row
    where = f"{topic} partition {partition}, offset {offset}"
    if is_unknown:
        return f"{where} stands in {place}, and the partition was never taken"
    if times > 1 and not is_beyond:
        return f"{where} became {times} things: it stands in {place} and in {other}"
    return f"{where} stands in {place}, and was never taken"
