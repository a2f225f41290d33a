"""Look after the topic of reward events: send it again, list its incarnations, and say why it lacks events."""

from __future__ import annotations

import getpass
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka.admin import AdminClient
from psycopg2.errors import LockNotAvailable

from engine.store import archives
from engine.store.database import NO_LIMIT, transaction
from engine.store.generations import live_generation
from engine.store.kafka import incarnations, publication
from engine.store.kafka.incarnations import LOCKED_WITHIN, Origin
from operations.kafka.output_topic import topic_id
from operations.rows import dictionaries
from operations.setup.initialise import OUTPUT_TOPIC
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from operations.settings import Settings


class NewIncarnation(NamedTuple):
    """Name an incarnation that an operator has begun, and say how many reward events are sent under it."""

    incarnation: str
    reward_events: int


def publish_again(settings: Settings, why: str, from_ms: int | None = None) -> NewIncarnation:
    """Begin an incarnation under which workers send the live log again, or the part recorded from an instant on.

    Raises:
        InputError: there is no such topic, or it was made again and has nothing from before `from_ms`.
        AnswerIsNo: a worker is publishing and does not finish.
        ServiceUnreachable: Kafka or PostgreSQL does not answer.
    """
    topic = settings.topic_prefix + OUTPUT_TOPIC
    topic_now = _topic_id(settings, topic)
    try:
        with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
            # nobody publishes from here on
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (LOCKED_WITHIN,))
            generation = live_generation.live(cursor)
            publication.begin(cursor, generation)
            incarnations.lock(cursor)

            origin = Origin(*incarnations.database_origin(cursor), topic, topic_now)
            begins = _begins(cursor, generation, origin, from_ms)
            name = incarnations.begin(cursor, origin, generation, begins, why=why, begun_by=_who())
            return NewIncarnation(name, publication.lag(cursor))
    except LockNotAvailable as error:
        raise AnswerIsNo(
            f"a worker has been sending for more than {LOCKED_WITHIN.removesuffix('s')} s and nothing was changed; see "
            "`guerdon status` whether Kafka answers, and try again"
        ) from error


def _begins(cursor: Cursor, generation: int, origin: Origin, from_ms: int | None) -> dict[int, int]:
    """Return up to which position of each shard the messages stay valid."""
    positions = incarnations.positions(cursor, generation)
    current = incarnations.current(cursor)
    if from_ms is None or (current is not None and incarnations.newest_generation(cursor, current) != generation):
        return dict.fromkeys(positions, 0)
    if current is not None and current.origin.is_another_topic(origin.topic_id):
        raise InputError(
            f"the topic {origin.topic} was deleted and made again and has nothing from before; leave --from out, or "
            "let a worker run, which sends everything by itself"
        )
    ends = archives.ends(cursor, generation, from_ms)
    return {shard: min(pos, ends[shard].reward_pos) for shard, (pos, _) in positions.items()}


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


def why_stopped(settings: Settings, cursor: Cursor) -> str:
    """Return a sentence where the topic lacks events that the database has recorded as sent, else an empty text."""
    topic = settings.topic_prefix + OUTPUT_TOPIC
    try:
        topic_now = _topic_id(settings, topic)
    except InputError as missing:
        return str(missing)
    current = incarnations.current(cursor)
    if current is None or not current.origin.is_another_topic(topic_now):
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
