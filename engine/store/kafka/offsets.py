"""Keep the next offset of each Kafka partition, in the transaction that takes the records before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import astuple
from psycopg2.extras import execute_values

from engine.intake.batch import LastRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.intake.batch import Admitted, OffsetMove, Partition, SetAside
    from engine.store.cursor import Cursor


class Fenced(Exception):
    """Say that another worker has moved an offset first: this worker's batch is void and must be read again."""


def add_partitions(cursor: Cursor, first_offsets: Mapping[Partition, int]) -> None:
    """Add rows for new partitions, at the first offset that the broker still has.

    No key of the table keeps a partition to one row, so the table is locked against other writers meanwhile.
    """
    if positions(cursor, first_offsets).keys() >= first_offsets.keys():
        return
    cursor.execute("LOCK TABLE guerdon.consumer_offset IN SHARE ROW EXCLUSIVE MODE")
    present = positions(cursor, first_offsets)
    execute_values(
        cursor,
        "INSERT INTO guerdon.consumer_offset (topic, partition, next_offset, first_offset) VALUES %s",
        [(*partition, first, first) for partition, first in sorted(first_offsets.items()) if partition not in present],
    )


def positions(cursor: Cursor, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, int]]:
    """Return (next offset, highest occurred_at in ms) of each of `partitions` that has a row."""
    wanted = set(partitions)
    cursor.execute(
        """
        SELECT topic, partition, next_offset, coalesce((extract(epoch FROM high_at) * 1000)::bigint, 0)
        FROM guerdon.consumer_offset WHERE topic = ANY(%s)
        """,
        (sorted({topic for topic, _ in wanted}),),
    )
    return {
        (topic, partition): (next_offset, high_ms)
        for topic, partition, next_offset, high_ms in cursor.fetchall()
        if (topic, partition) in wanted
    }


def passing(cursor: Cursor, partitions: Iterable[Partition]) -> dict[Partition, frozenset[int]]:
    """Return the offsets that an operator lets pass, by partition; partitions without any are left out."""
    cursor.execute(
        "SELECT topic, partition, passing FROM guerdon.consumer_offset WHERE passing IS NOT NULL AND topic = ANY(%s)",
        (sorted({topic for topic, _ in partitions}),),
    )
    return {(topic, partition): frozenset(listed) for topic, partition, listed in cursor.fetchall()}


def let_pass(cursor: Cursor, partition: Partition, offset: int, why: str) -> int | None:
    """Let the record at `offset` pass, and return the partition's next offset; None if that is past it, or unknown."""
    cursor.execute(
        """
        UPDATE guerdon.consumer_offset SET passing = array_append(passing, %s)
        WHERE topic = %s AND partition = %s AND next_offset <= %s RETURNING next_offset
        """,
        (offset, *partition, offset),
    )
    row = cursor.fetchone()
    if row is None:
        return None

    cursor.execute(
        "INSERT INTO guerdon.consumer_pass (topic, partition, offset_, why) VALUES (%s, %s, %s, %s)",
        (*partition, offset, why),
    )
    return int(row[0])


def compare_and_set(cursor: Cursor, moves: Mapping[Partition, OffsetMove]) -> set[tuple[str, int, int]]:
    """Lock every row of `moves` at its expected offset, or refuse all; return the offsets in between that may pass.

    This is the fence. A worker that was stopped, or that Kafka has replaced without its noticing, still believes that
    it owns its partitions. It may have polled and decoded records, and be about to append what its successor appended
    long ago. Both come here with the position they started from. The row lock lets one pass, and the other finds that
    the table no longer says what it expects. `expected` must be the offset that this worker sought or last wrote, never
    that of the first message: transaction markers and compaction leave holes before it.

    Returns:
        (topic, partition, offset) of records that an operator lets pass.

    Raises:
        Fenced: another worker was here.
    """
    if not moves:
        return set()

    # lock the rows that stand where this worker expects them
    ordered = sorted(moves.items())
    cursor.execute(
        """
        SELECT o.topic, o.partition, o.next_offset, o.passing
        FROM unnest(%s::text[], %s::integer[], %s::bigint[]) AS w (topic, partition, expected)
        JOIN guerdon.consumer_offset o
          ON o.topic = w.topic AND o.partition = w.partition AND o.next_offset = w.expected
        ORDER BY o.topic, o.partition FOR UPDATE OF o
        """,
        (
            [topic for (topic, _), _ in ordered],
            [number for (_, number), _ in ordered],
            [move.expected for _, move in ordered],
        ),
    )
    rows = cursor.fetchall()

    # name the partition that has moved
    if len(rows) < len(ordered):
        stand = positions(cursor, moves)
        for (topic, partition), move in ordered:
            at, _ = stand.get((topic, partition), (None, 0))
            if at != move.expected:
                raise Fenced(f"{topic} partition {partition} stands at {at}, not at {move.expected}")
        raise Fenced("another one moved a partition to and fro in this moment")

    return {
        (topic, partition, offset)
        for topic, partition, expected, offsets in rows
        for offset in offsets or ()
        if expected <= offset < moves[topic, partition].next
    }


def refuse_passing(places: set[tuple[str, int, int]], read: Iterable[Admitted | SetAside]) -> None:
    """Refuse a batch with a record that an operator has let pass meanwhile: the batch is to be read again without it.

    Raises:
        Fenced: there is such a record.
    """
    offsets = {(record.topic or "", record.partition, record.offset) for record in read}
    for topic, partition, offset in sorted(offsets & places):
        raise Fenced(f"{topic} partition {partition}: offset {offset} is to be let pass")


def advance(cursor: Cursor, moves: Mapping[Partition, OffsetMove], counts: Mapping[Partition, list[int]]) -> None:
    """Write the new offsets; `counts` has the numbers of accepted, duplicate and quarantined records by partition."""
    if not moves:
        return

    # a batch without a message, such as one over transaction markers alone, keeps the last record as it is
    execute_values(
        cursor,
        """
        UPDATE guerdon.consumer_offset o
        SET next_offset = v.next_offset,
            high_at = greatest(o.high_at, to_timestamp(nullif(v.high_ms, 0) / 1000.0)),
            accepted = o.accepted + v.accepted,
            duplicate = o.duplicate + v.duplicate,
            quarantined = o.quarantined + v.quarantined,
            passed = o.passed + v.passed,
            last_offset = coalesce(v.last_offset::bigint, o.last_offset),
            leader_epoch = CASE WHEN v.last_offset IS NULL THEN o.leader_epoch ELSE v.leader_epoch::integer END,
            last_digest = CASE WHEN v.last_offset IS NULL THEN o.last_digest ELSE v.last_digest::bytea END,
            ahead_at = to_timestamp(v.ahead_ms::bigint / 1000.0),
            is_silent = v.is_silent
        FROM (VALUES %s) AS v (topic, partition, expected, next_offset, high_ms, accepted, duplicate, quarantined,
                               passed, ahead_ms, is_silent, last_offset, leader_epoch, last_digest)
        WHERE o.topic = v.topic AND o.partition = v.partition AND o.next_offset = v.expected
        """,
        [
            (
                topic, partition, move.expected, move.next, move.high_ms,
                *counts.get((topic, partition), (0, 0, 0)), move.passed, move.ahead_ms, move.is_silent,
                *((None, None, None) if move.last is None else astuple(move.last)),
            )
            for (topic, partition), move in sorted(moves.items())
        ],
        page_size=len(moves),
    )  # fmt: skip


def note_read(cursor: Cursor, partitions: Iterable[Partition]) -> None:
    """Note that a worker begins to read partitions: that they were silent for another worker says nothing any more."""
    wanted = tuple(partitions)
    if wanted:
        cursor.execute(
            """
            UPDATE guerdon.consumer_offset SET is_silent = false WHERE (topic, partition) IN (
                SELECT topic, partition FROM guerdon.consumer_offset
                WHERE is_silent AND (topic, partition) IN %s FOR UPDATE SKIP LOCKED
            )
            """,
            (wanted,),
        )


class Frontier(NamedTuple):
    """Hold the position of a partition: every record from `offset` on is at `at_ms` or later (0: not known)."""

    offset: int
    at_ms: int
    is_silent: bool
    is_stopped: bool


def frontiers(cursor: Cursor, topics: Iterable[str]) -> dict[Partition, Frontier]:
    """Return the frontier of each partition of some topics; those never assigned to a worker have none."""
    cursor.execute(
        """
        SELECT topic, partition, next_offset, coalesce(guerdon.ms(coalesce(ahead_at, high_at)), 0), is_silent,
               stopped IS NOT NULL
        FROM guerdon.consumer_offset WHERE topic = ANY(%s)
        """,
        (sorted(topics),),
    )
    return {(topic, partition): Frontier(*rest) for topic, partition, *rest in cursor.fetchall()}


def last_taken(cursor: Cursor, partitions: Iterable[Partition]) -> dict[Partition, LastRecord]:
    """Return the last record taken from each of `partitions`, where it is known."""
    wanted = set(partitions)
    cursor.execute(
        """
        SELECT topic, partition, last_offset, leader_epoch, last_digest FROM guerdon.consumer_offset
        WHERE topic = ANY(%s) AND last_offset IS NOT NULL
        """,
        (sorted({topic for topic, _ in wanted}),),
    )
    return {
        (topic, partition): LastRecord(offset, epoch, None if digest is None else bytes(digest))
        for topic, partition, offset, epoch, digest in cursor.fetchall()
        if (topic, partition) in wanted
    }


def stop(cursor: Cursor, partition: Partition, why: str) -> None:
    """Stop a partition, and record why nobody reads on, for `guerdon status`."""
    cursor.execute(
        "UPDATE guerdon.consumer_offset SET stopped = %s WHERE topic = %s AND partition = %s", (why, *partition)
    )


def stops(cursor: Cursor, partitions: Iterable[Partition]) -> dict[Partition, str]:
    """Return the reasons of the stopped ones among `partitions`; only an operator's decision lets them go on."""
    wanted = tuple(partitions)
    if not wanted:
        return {}
    cursor.execute(
        """
        SELECT topic, partition, stopped FROM guerdon.consumer_offset
        WHERE stopped IS NOT NULL AND (topic, partition) IN %s
        """,
        (wanted,),
    )
    return {(topic, partition): why for topic, partition, why in cursor.fetchall()}


def replaced_topics(cursor: Cursor, ids: Mapping[str, str]) -> dict[str, str]:
    """Return the topics whose id has changed since they were first read, and remember the ids of new topics."""
    execute_values(
        cursor,
        "INSERT INTO guerdon.consumer_topic (topic, topic_id) VALUES %s ON CONFLICT DO NOTHING",
        sorted(ids.items()),
    )
    cursor.execute("SELECT topic, topic_id FROM guerdon.consumer_topic WHERE topic = ANY(%s)", (sorted(ids),))
    return {topic: topic_id for topic, topic_id in cursor.fetchall() if topic_id != ids[topic]}


def behind(cursor: Cursor, ends: Mapping[Partition, int]) -> dict[Partition, int]:
    """Return the next offset of each partition that is before its end in `ends`."""
    rows = positions(cursor, ends)
    offsets = {partition: rows.get(partition, (0, 0))[0] for partition in ends}
    return {partition: offset for partition, offset in offsets.items() if offset < ends[partition]}


def stopped(cursor: Cursor, topics: Iterable[str]) -> dict[int, str]:
    """Return the reasons, in a sentence, why partitions of `topics` are stopped, by the partition's number."""
    cursor.execute(
        """
        SELECT partition, min(stopped) FROM guerdon.consumer_offset
        WHERE stopped IS NOT NULL AND topic = ANY(%s) GROUP BY partition ORDER BY partition
        """,
        (sorted(topics),),
    )
    return dict(cursor.fetchall())


def begin_again(cursor: Cursor, partition: Partition, first_offset: int, why: str) -> None:
    """Continue a stopped partition at `first_offset`, count from there, and keep the reason in `consumer_reset`."""
    cursor.execute(
        """
        INSERT INTO guerdon.consumer_reset (topic, partition, from_offset, to_offset, why)
        SELECT topic, partition, next_offset, %s, %s FROM guerdon.consumer_offset WHERE topic = %s AND partition = %s
        """,
        (first_offset, why, *partition),
    )
    cursor.execute(
        """
        UPDATE guerdon.consumer_offset SET next_offset = %s, stopped = NULL, passing = NULL,
               last_offset = NULL, leader_epoch = NULL, last_digest = NULL, ahead_at = NULL, is_silent = false,
               passed = passed + (%s - next_offset)
        WHERE topic = %s AND partition = %s
        """,
        (first_offset, first_offset, *partition),
    )


def numbers(cursor: Cursor, topic: str) -> list[int]:
    """Return the numbers of the partitions of `topic` that have a row."""
    cursor.execute("SELECT partition FROM guerdon.consumer_offset WHERE topic = %s ORDER BY partition", (topic,))
    return [number for (number,) in cursor.fetchall()]


def keep_topic_id(cursor: Cursor, topic: str, topic_id: str) -> None:
    """Accept the present id of a topic."""
    cursor.execute("UPDATE guerdon.consumer_topic SET topic_id = %s WHERE topic = %s", (topic_id, topic))
