"""Refuse to let a database read other topics, or another Kafka cluster, than before, until an operator says so."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, TopicCollection

from engine.store.database import connect, transaction
from engine.store.kafka import offsets, places
from engine.store.kafka.places import Place
from operations.kafka.ends import Ends, is_unknown
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from operations.settings import Settings

WAIT_S = 10.0


def claim(settings: Settings, ends: Ends) -> None:
    """Record the topics, and their cluster, that the database reads, or compare the settings with the record.

    Raises:
        InputError: the settings name others than those that the database reads.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    place = _place(settings, ends)
    with transaction(settings.database_url) as cursor:
        _compare(cursor, place)
        if places.current(cursor) is None:
            places.keep_first(cursor, place)
            _compare(cursor, place)  # another worker may have come first


def compare_place(settings: Settings, ends: Ends) -> None:
    """Compare the settings with the place that is recorded, without recording any; raises as `claim` does."""
    with transaction(settings.database_url) as cursor:
        _compare(cursor, _place(settings, ends))


def refuse_elsewhere(settings: Settings) -> None:
    """Refuse to publish to a place where the database does not read; without a database there is nothing to compare.

    Raises:
        InputError: the settings name other topics, or another Kafka cluster, than the database reads.
        ServiceUnreachable: Kafka does not answer.
    """
    try:
        connection = connect(settings.database_url)
    except (ServiceUnreachable, InputError):
        return
    with closing(connection), closing(Ends(settings.kafka_config(), WAIT_S)) as ends, connection.cursor() as cursor:
        _compare(cursor, _place(settings, ends))


def _compare(cursor: Cursor, place: Place) -> None:
    recorded = places.current(cursor)
    topics = places.topics_taken(cursor) if recorded is None else []
    if topics and not any(topic.startswith(place.topic_prefix) for topic in topics):
        raise InputError(
            f"this database has read {topics[0]}, but the settings name the topics {place.topic_prefix}…; {_ways_out()}"
        )
    if recorded is not None and recorded != place:
        raise InputError(
            f"this database reads the topics {recorded.topic_prefix}… of the Kafka cluster {recorded.cluster_id}, but "
            f"the settings name {place.topic_prefix}… of {place.cluster_id}; {_ways_out()}"
        )


def adopt(settings: Settings, why: str) -> dict[str, Any]:
    """Let the database read from now on the place that the settings name; return both places and the restarted topics.

    Topics of other names are read from their first offset. So are those of the same name on another cluster, as an
    offset means another record there. Events that are read twice count once.

    Raises:
        AnswerIsNo: workers are running, or the settings name the place that the database reads already.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    with closing(Ends(settings.kafka_config(), WAIT_S)) as ends, transaction(settings.database_url) as cursor:
        # it must be another place, and no worker may read meanwhile
        place = _place(settings, ends)
        before = places.current(cursor)
        if before == place:
            raise AnswerIsNo(f"this database reads the topics {place.topic_prefix}… of {place.cluster_id} already")
        if running := places.workers(cursor):
            raise AnswerIsNo(f"{running} workers are at work on this database; stop them first")
        places.move(cursor, place, why)

        # topics that were read before and are others now begin again
        topics = [topic for topic in places.topics_taken(cursor) if topic.startswith(place.topic_prefix)]
        ids = _ids(ends, topics)
        begin_again = []
        for topic in offsets.replaced_topics(cursor, ids) if ids else ():
            firsts = ends.first([(topic, number) for number in offsets.numbers(cursor, topic)])
            for partition, first in sorted(firsts.items()):
                offsets.begin_again(cursor, partition, first, why)
                begin_again.append(f"{partition[0]} partition {partition[1]}")
            offsets.keep_topic_id(cursor, topic, ids[topic])
    return {
        "from": None if before is None else f"{before.topic_prefix}… of {before.cluster_id}",
        "to": f"{place.topic_prefix}… of {place.cluster_id}",
        "begin_again": begin_again,
    }


def _ids(ends: Ends, topics: list[str]) -> dict[str, str]:
    """Return the ids of those of `topics` that the cluster has."""
    if not topics:
        return {}
    ids = {}
    for topic, future in ends.client().describe_topics(TopicCollection(topics), request_timeout=WAIT_S).items():
        error = future.exception()
        if error is None:
            ids[topic] = str(future.result().topic_id)
        elif not is_unknown(error):
            raise error
    return ids


def _place(settings: Settings, ends: Ends) -> Place:
    try:
        cluster = ends.client().describe_cluster(request_timeout=WAIT_S).result()
    except KafkaException as error:
        raise ServiceUnreachable(ends.why(error)) from error
    return Place(settings.topic_prefix, str(cluster.cluster_id))


def _ways_out() -> str:
    return (
        "correct GUERDON_TOPIC_PREFIX, KAFKA_BOOTSTRAP_SERVERS or GUERDON_DATABASE_URL; if the topics have moved, stop "
        "the workers and run `guerdon offsets adopt --why TEXT`"
    )
