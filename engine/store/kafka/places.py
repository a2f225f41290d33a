"""Keep the Kafka cluster and the topics that a database reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.store.cursor import one
from engine.store.database import WORKER

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


class Place(NamedTuple):
    """Name a Kafka cluster by its own id, and the topics by their prefix."""

    topic_prefix: str
    cluster_id: str


def current(cursor: Cursor) -> Place | None:
    """Return the place where the database reads, None before the first."""
    cursor.execute("SELECT topic_prefix, cluster_id FROM guerdon.kafka_place ORDER BY place DESC LIMIT 1")
    row = cursor.fetchone()
    return None if row is None else Place(*row)


def keep_first(cursor: Cursor, place: Place) -> None:
    """Keep the very first place; of two at once one is kept."""
    cursor.execute(
        "INSERT INTO guerdon.kafka_place (topic_prefix, cluster_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", place
    )


def move(cursor: Cursor, place: Place, why: str) -> None:
    """Let the database read elsewhere from now on, and keep the reason."""
    cursor.execute("INSERT INTO guerdon.kafka_place (topic_prefix, cluster_id, why) VALUES (%s, %s, %s)", (*place, why))


def topics_taken(cursor: Cursor) -> list[str]:
    """Return the topics that were ever read."""
    cursor.execute("SELECT DISTINCT topic FROM guerdon.consumer_offset ORDER BY topic")
    return [topic for (topic,) in cursor.fetchall()]


def workers(cursor: Cursor) -> int:
    """Return the number of workers that write to the database now, as far as this user may see them."""
    (count,) = one(
        cursor,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
        (f"{WORKER} positions",),
    )
    return int(count)
