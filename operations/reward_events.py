"""Look after the topic of reward events: what it lacks, which incarnations there were, and send it again."""

from __future__ import annotations

import getpass
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka.admin import AdminClient

from engine.store import archives, generations, incarnations, publication
from engine.store.database import transaction
from engine.store.incarnations import Origin
from operations.initialise import OUTPUT_TOPIC
from operations.output_topic import topic_id
from operations.rows import dictionaries
from schemas.errors import InputError

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from operations.settings import Settings


class Again(NamedTuple):
    """Say what an operator's incarnation is called, and how many reward events are sent under it."""

    incarnation: str
    reward_events: int


def publish_again(settings: Settings, why: str, from_ms: int | None = None) -> Again:
    """Begin an incarnation under which workers send the live log again, or what was recorded from an instant on.

    Raises:
        InputError: there is no such topic.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    topic = settings.topic_prefix + OUTPUT_TOPIC
    made = _topic_id(settings, topic)
    with transaction(settings.database_url) as cursor:
        generation = generations.live(cursor)
        publication.begin(cursor, generation)
        incarnations.lock(cursor)
        known = incarnations.positions(cursor, generation)
        begins = dict.fromkeys(known, 0)
        if from_ms is not None:
            ends = archives.ends(cursor, generation, from_ms)
            begins = {shard: min(pos, ends[shard].reward_pos) for shard, (pos, _) in known.items()}
        current = incarnations.current(cursor)
        if current is not None and from_ms is not None and current.origin.topic_id != made:
            raise InputError(
                f"the topic {topic} was deleted and made again and has nothing from before; leave --from out, or let a "
                "worker run, which sends everything by itself"
            )
        origin = Origin(*incarnations.database_origin(cursor), topic, made)
        name = incarnations.begin(cursor, origin, generation, begins, (why, _who()))
        return Again(name, publication.lag(cursor))


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Return every incarnation of the topic, the newest first."""
    with transaction(settings.database_url) as cursor:
        return dictionaries(
            cursor,
            """
            SELECT incarnation, begun_at, begun_by, why, topic, topic_id, system_id, timeline
            FROM guerdon.incarnation ORDER BY incarnation DESC
            """,
        )


def stopped_why(settings: Settings, cursor: Cursor) -> str:
    """Return why the topic does not have what the database believes that it has, as a sentence, else nothing."""
    topic = settings.topic_prefix + OUTPUT_TOPIC
    try:
        made = _topic_id(settings, topic)
    except InputError as missing:
        return str(missing)
    current = incarnations.current(cursor)
    if current is None or None in (made, current.origin.topic_id) or made == current.origin.topic_id:
        return ""
    return f"the topic {topic} was deleted and made again; a worker that runs sends everything again within seconds"


def _topic_id(settings: Settings, topic: str) -> str | None:
    admin = AdminClient({**settings.kafka_config()})
    return topic_id(admin, topic)


def _who() -> str:
    try:
        return f"{getpass.getuser()} on {socket.gethostname()}"
    except (KeyError, OSError):  # a container's user may have no name
        return f"somebody on {socket.gethostname()}"
