"""Agree with other workers on the incarnation of the topic of reward events, and begin a new one where it is due."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

import structlog
from psycopg2.errors import LockNotAvailable

from consumers.output.comparison import Finding, Stand, Tail, finding_of
from consumers.output.topic_tail import NotAllowed
from engine.store.database import end_frozen
from engine.store.kafka import incarnations, publication
from engine.store.kafka.incarnations import LOCKED_WITHIN, NONE, Origin
from engine.store.kafka.publication import Range

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from consumers.output.topic_tail import TailReader
    from engine.store.cursor import Connection, Cursor
    from engine.store.kafka.incarnations import Incarnation
    from engine.store.kafka.publication import LogReader

log = structlog.get_logger()

FIRST = "the first one"


class Topic(NamedTuple):
    """Name the topic, the id that Kafka gave it when it was made, and how many partitions it has."""

    name: str
    id: str | None
    """None: Kafka does not say it."""

    partitions: int


class Cause(NamedTuple):
    """Say why another incarnation is due."""

    why: str
    begins: Mapping[int, int] | None
    """By shard, up to which position the messages stay valid; None: all of them."""

    newest: str
    """The greatest incarnation in the topic: the new one must be greater."""


class Agreement:
    """Compare what followers have with the log, each time that a worker begins to publish."""

    def __init__(self, database_url: str, tails: TailReader, reader: LogReader, stop: threading.Event) -> None:
        self._database_url = database_url
        self._tails = tails
        self._reader = reader
        self._stop = stop

    def make(self, connection: Connection, generation: int, topic: Topic) -> None:
        """Compare the log with the topic, and begin another incarnation where they differ.

        Most often they do not, and nobody waits. Where they seem to, they are compared again while nobody
        publishes, as messages that another worker is sending look like a difference. A worker that comes second finds
        the incarnation that the first has begun.
        """
        with connection, connection.cursor() as cursor:
            publication.begin(cursor, generation)
            if self._cause(cursor, generation, topic) is None:
                return
        try:
            self._begin(connection, generation, topic)
        except LockNotAvailable:
            end_frozen(self._database_url)
            raise

    def _begin(self, connection: Connection, generation: int, topic: Topic) -> None:
        with connection, connection.cursor() as cursor:
            # nobody publishes from here on
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (LOCKED_WITHIN,))
            incarnations.lock(cursor)
            cause = self._cause(cursor, generation, topic)
            if cause is None:
                return

            # begin it
            before = incarnations.positions(cursor, generation)
            origin = Origin(*incarnations.database_origin(cursor), topic.name, topic.id)
            by = f"worker on {socket.gethostname()}"
            name = incarnations.begin(
                cursor, origin, generation, cause.begins, why=cause.why, begun_by=by, newest=cause.newest
            )

        if cause.begins is None:
            log.info("incarnation begins", incarnation=name, why=cause.why)
        else:
            again = sum(max(0, pos - cause.begins.get(shard, pos)) for shard, (pos, _) in before.items())
            log.warning("incarnation begins", incarnation=name, why=cause.why, sent_again=again)

    def _cause(self, cursor: Cursor, generation: int, topic: Topic) -> Cause | None:
        """Return why another incarnation is due; None where followers have what the log says."""
        current = incarnations.current(cursor)
        tail = self._tail(cursor, topic)
        newest = max((last.incarnation for last in tail.last.values()), default=NONE)
        cursors = incarnations.positions(cursor, generation)

        # another topic or another generation: everything is sent
        if current is not None and (why := _why_all(cursor, current, generation, topic, cursors)):
            return Cause(why, dict.fromkeys(cursors, 0), newest)

        # the topic and the log differ: only the difference is sent
        finding = self._compare(cursor, Stand(current.name if current else NONE, generation, cursors), tail)
        if finding is not None:
            return Cause(*finding, newest)

        # they agree: nothing is sent again
        if current is None:
            return Cause(FIRST, None, newest)
        why = _why_moved(current.origin, *incarnations.database_origin(cursor))
        return None if why is None else Cause(why, {shard: pos for shard, (pos, _) in cursors.items()}, newest)

    def _tail(self, cursor: Cursor, topic: Topic) -> Tail:
        try:
            return self._tails.read(topic.partitions, self._stop, lambda: cursor.execute("SELECT 1"))
        except NotAllowed as denied:
            log.warning(
                "topic not compared", topic=topic.name,
                why=f"{denied}: grant READ on it, else a log that went back is known by PostgreSQL's identifiers alone",
            )  # fmt: skip
            return Tail({}, is_whole=False)

    def _compare(self, cursor: Cursor, stand: Stand, tail: Tail) -> Finding | None:
        """Look up the log's rows at the end of the topic, after the topic was read, and compare both."""
        places = [Range(shard, last.pos - 1, last.pos) for shard, last in tail.last.items() if last.pos > 0]
        rows = {
            row.shard: (row.seq, row.reward_key.decode(), row.recorded_at_ms)
            for row in self._reader.read(cursor, stand.generation, places)
        }
        return finding_of(stand, tail, rows)


def _why_all(
    cursor: Cursor, current: Incarnation, generation: int, topic: Topic, cursors: Mapping[int, tuple[int, str]]
) -> str | None:
    """Return why all of the live log must be sent, or None."""
    if topic.name != current.origin.topic:
        return f"the topic is another one: {current.origin.topic} before"
    if current.origin.is_another_topic(topic.id):
        return "the topic was deleted and made again"
    newest_generation = incarnations.newest_generation(cursor, current)
    was_published = any(pos for pos, _ in cursors.values())
    if generation < newest_generation or (generation > newest_generation and was_published):
        return f"generation {generation} is live and followers have {newest_generation}"
    return None


def _why_moved(origin: Origin, system_id: str | None, timeline: str | None) -> str | None:
    """Return why the log may have gone back, by PostgreSQL's own identifiers, or None."""
    if system_id is not None and origin.system_id is not None and system_id != origin.system_id:
        return "the database is a copy in another cluster of PostgreSQL (a restore, or an upgrade)"
    if timeline is not None and origin.timeline is not None and timeline != origin.timeline:
        return f"PostgreSQL went on from timeline {origin.timeline} to {timeline} (a failover, or a recovery)"
    return None
