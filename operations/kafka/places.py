"""Ask before a database reads other topics, or another Kafka cluster, than it did."""

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
    """Keep which topics of which cluster the database reads, or hold the settings to what is kept.

    Raises:
        InputError: the settings name others than those that the database reads.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    place = _place(settings, ends)
    with transaction(settings.database_url) as cursor:
        _hold(cursor, place)
        if places.current(cursor) is None:
            places.keep_first(cursor, place)
            _hold(cursor, place)  # another one may have come first


def hold_to_place(settings: Settings, ends: Ends) -> None:
    """Hold the settings to what is kept, and keep nothing; raises as `claim` does."""
    with transaction(settings.database_url) as cursor:
        _hold(cursor, _place(settings, ends))


def refuse_elsewhere(settings: Settings) -> None:
    """Refuse to publish where the database does not read; where there is none to ask, there is nothing to hold to.

    Raises:
        InputError: the settings name other topics, or another Kafka cluster, than the database reads.
        ServiceUnreachable: Kafka does not answer.
    """
    try:
        connection = connect(settings.database_url)
    except (ServiceUnreachable, InputError):
        return
    with closing(connection), closing(Ends(settings.kafka_config(), WAIT_S)) as ends, connection.cursor() as cursor:
        _hold(cursor, _place(settings, ends))


def _hold(cursor: Cursor, place: Place) -> None:
    kept = places.current(cursor)
    taken = places.topics_taken(cursor) if kept is None else []
    if taken and not any(topic.startswith(place.topic_prefix) for topic in taken):
        raise InputError(
            f"this database has read {taken[0]}, but the settings name the topics {place.topic_prefix}…; {_ways_out()}"
        )
    if kept is not None and kept != place:
        raise InputError(
            f"this database reads the topics {kept.topic_prefix}… of the Kafka cluster {kept.cluster_id}, but the "
            f"settings name {place.topic_prefix}… of {place.cluster_id}; {_ways_out()}"
        )


def adopt(settings: Settings, why: str) -> dict[str, Any]:
    """Let the database read from now on what the settings name; return from where to where, and what begins again.

    Topics of other names are read from their first offset. So are those of the same name on another cluster, as an
    offset means another record there. What is met again counts once.

    Raises:
        AnswerIsNo: workers are running, or the settings name what the database reads anyway.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    with closing(Ends(settings.kafka_config(), WAIT_S)) as ends, transaction(settings.database_url) as cursor:
        place = _place(settings, ends)
        kept = places.current(cursor)
        if kept == place:
            raise AnswerIsNo(f"this database reads the topics {place.topic_prefix}… of {place.cluster_id} already")
        if running := places.workers(cursor):
            raise AnswerIsNo(f"{running} workers are at work on this database; stop them first")
        places.move(cursor, place, why)
        taken = [topic for topic in places.topics_taken(cursor) if topic.startswith(place.topic_prefix)]
        ids = _ids(ends, taken)
        begun = []
        for topic in offsets.replaced_topics(cursor, ids) if ids else ():
            firsts = ends.first([(topic, number) for number in offsets.numbers(cursor, topic)])
            for partition, first in sorted(firsts.items()):
                offsets.begin_again(cursor, partition, first, why)
                begun.append(f"{partition[0]} partition {partition[1]}")
            offsets.keep_topic_id(cursor, topic, ids[topic])
    return {
        "from": None if kept is None else f"{kept.topic_prefix}… of {kept.cluster_id}",
        "to": f"{place.topic_prefix}… of {place.cluster_id}",
        "begin_again": begun,
    }


def _ids(ends: Ends, topics: list[str]) -> dict[str, str]:
    """Return the ids of those of `topics` that the cluster has."""
    if not topics:
        return {}
    found = {}
    for topic, future in ends.client().describe_topics(TopicCollection(topics), request_timeout=WAIT_S).items():
        error = future.exception()
        if error is None:
            found[topic] = str(future.result().topic_id)
        elif not is_unknown(error):
            raise error
    return found


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
