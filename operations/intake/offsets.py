"""Show how far each partition is taken; continue partitions that lost records, and let single records pass."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from engine.store.database import transaction
from engine.store.kafka import offsets
from operations.kafka.ends import Ends, opened_at
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engine.intake.batch import Partition
    from operations.kafka.ends import Span
    from operations.settings import Settings

T = TypeVar("T")

TIMEOUT_S = 10.0


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Return each partition's position, the counts of its offsets, its lag, and why it is stopped if it is.

    `lag` counts the offsets that the broker would deliver now, `held` those behind a transaction that a producer has
    not ended; `held_since` is the time of the transaction's first record. All three are None where the broker has no
    such partition.
    """
    with transaction(settings.database_url) as cursor:
        rows = dictionaries(
            cursor,
            """
            SELECT topic, partition, next_offset, accepted, duplicate, quarantined, passed, high_at, stopped, (
                       SELECT string_agg(format('%s: %s', p.offset_, p.why), '; ' ORDER BY p.offset_)
                       FROM guerdon.consumer_pass p WHERE (p.topic, p.partition) = (o.topic, o.partition)
                   ) AS let_pass
            FROM guerdon.consumer_offset o ORDER BY topic, partition
            """,
        )

    # ask the broker where the partitions end, and since when open transactions are open
    positions = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    spans = _spans(settings, positions)
    blocked = {each: span.stable for each, span in spans.items() if positions[each] <= span.stable < span.true}
    times = _answered(lambda: opened_at(settings.kafka_config(), blocked))

    for row in rows:
        partition = row["topic"], row["partition"]
        span = spans.get(partition)
        row["lag"] = None if span is None else _lag(row["next_offset"], span)
        row["held"] = None if span is None else span.true - max(span.stable, min(row["next_offset"], span.true))
        row["held_since"] = iso_from_instant(times[partition]) if partition in times else None
        if span is not None and row["next_offset"] > span.true:
            row["stopped"] = row["stopped"] or f"ends at {span.true}, but {row['next_offset']} was read before"
    return rows


def _lag(position: int, span: Span) -> int:
    """Return how many offsets are left; where the broker lost its tail, all that it has now."""
    return span.true - span.first if position > span.true else max(0, span.stable - position)


def reset(settings: Settings, topic: str, why: str) -> list[dict[str, Any]]:
    """Read the stopped partitions of `topic` on from the first offset that the broker still has.

    Events that were deleted before they were read are lost to Guerdon; the reason is recorded with the topic. Events
    that are read twice count once.

    Raises:
        InputError: no partition of `topic` is stopped.
    """
    with transaction(settings.database_url) as cursor:
        stopped = dictionaries(
            cursor,
            """
            SELECT partition, next_offset, stopped FROM guerdon.consumer_offset
            WHERE topic = %s AND stopped IS NOT NULL ORDER BY partition FOR UPDATE
            """,
            (topic,),
        )
        if not stopped:
            raise InputError(f"no partition of {topic} is stopped; `guerdon offsets list` shows all")

        spans = _spans(settings, [(topic, row["partition"]) for row in stopped])
        identifier = topic_ids(settings.kafka_config(), [topic])[topic]
        for row in stopped:
            low = spans[topic, row["partition"]].first
            offsets.begin_again(cursor, (topic, row["partition"]), low, f"{why} (was {row['next_offset']})")
            row["continues_at"] = low
        offsets.keep_topic_id(cursor, topic, identifier)
    return stopped


def let_pass(settings: Settings, topic: str, partition: int, offset: int, why: str) -> dict[str, Any]:
    """Let one record pass that stops the workers; it counts as passed, and the reason is recorded.

    Workers need not be stopped: one that has read the record already is fenced, and reads on without it.

    Raises:
        InputError: nothing was read of the partition yet, or it ends before the offset.
        AnswerIsNo: the offset was taken already, or is let pass already; nothing was changed.
    """
    place = (topic, partition)
    with transaction(settings.database_url) as cursor:
        if not dictionaries(cursor, "SELECT 1 FROM guerdon.consumer_offset WHERE (topic, partition) = (%s, %s)", place):
            raise InputError(f"nothing was read of {topic} partition {partition} yet; `guerdon offsets list` shows all")

        # the record must exist
        span = _spans(settings, [place]).get(place)
        if span is None or offset >= span.true:
            end = "there is no such partition" if span is None else f"it ends at {span.true}"
            raise InputError(f"{topic} partition {partition} has no record at offset {offset} yet: {end}")

        # and it must not have been taken or let pass before
        if offset in offsets.passing(cursor, [place]).get(place, ()):
            raise AnswerIsNo(f"{topic} partition {partition}: offset {offset} is let pass already; nothing was changed")
        stands_at = offsets.let_pass(cursor, place, offset, why)
        if stands_at is None:
            raise AnswerIsNo(
                f"{topic} partition {partition}: offset {offset} was taken already; nothing was changed: see "
                "`guerdon quarantine list` and `guerdon why`"
            )
    return {"topic": topic, "partition": partition, "offset": offset, "stands_at": stands_at, "why": why}


def topic_ids(kafka: Mapping[str, Any], topics: list[str]) -> dict[str, str]:
    """Return the id that the cluster gave each topic when it was made: a topic that is made again gets another."""
    admin = AdminClient({"log_level": 0, **kafka})  # in a variable, as the answers die with it
    described = admin.describe_topics(TopicCollection(topics), request_timeout=TIMEOUT_S)
    return {topic: str(future.result().topic_id) for topic, future in described.items()}


def _spans(settings: Settings, partitions: Iterable[Partition]) -> dict[Partition, Span]:
    with closing(Ends(settings.kafka_config(), TIMEOUT_S)) as ends:
        return _answered(lambda: ends.spans(partitions), ends)


def _answered(ask: Callable[[], T], ends: Ends | None = None) -> T:
    try:
        return ask()
    except KafkaException as error:
        why = str(error.args[0].str()) if ends is None else ends.why(error)
        raise ServiceUnreachable(why) from error
