"""Keep the incarnations of the topic of reward events: read the one in force, and begin another one.

A follower of the topic keeps, for each shard, the messages of an incarnation from its beginning on. Another incarnation
begins when the topic no longer agrees with the log, or when the topic was deleted and created again.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from psycopg2 import errors

from engine.store.cursor import one
from engine.store.generations.live_generation import now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.cursor import Cursor

NONE = ""
"""The name for messages of releases that had no incarnations: less than every other name."""

LOCKED_WITHIN = "35s"
"""How long to wait for the rounds under way: a little longer than a round may wait for the brokers."""

_MS_DIGITS = 13
_DIGEST_DIGITS = 12
_FORM = re.compile(rf"[0-9]{{{_MS_DIGITS + _DIGEST_DIGITS}}}")

_REFUSALS = (
    errors.InsufficientPrivilege,
    errors.UndefinedFunction,
    errors.FeatureNotSupported,
    errors.ObjectNotInPrerequisiteState,
)
"""Errors of a server, or a hosting provider, that does not answer a question about the cluster."""


class Origin(NamedTuple):
    """Identify the database and the topic of an incarnation; None for what the server or the brokers do not say."""

    system_id: str | None
    timeline: str | None
    topic: str
    topic_id: str | None

    def is_another_topic(self, topic_id: str | None) -> bool:
        """Whether the topic was deleted and created again under its name."""
        return topic_id is not None and self.topic_id is not None and topic_id != self.topic_id


class Incarnation(NamedTuple):
    """Hold one incarnation, with the generation that was live at its beginning."""

    name: str
    generation: int
    origin: Origin


def is_name(text: str) -> bool:
    """Whether `text` has the form of an incarnation's name; headers may hold anything."""
    return _FORM.fullmatch(text) is not None


def current(cursor: Cursor) -> Incarnation | None:
    """Return the incarnation in force, None before the first."""
    cursor.execute(
        """
        SELECT incarnation, of_generation, system_id, timeline, topic, topic_id
        FROM guerdon.incarnation ORDER BY incarnation DESC LIMIT 1
        """
    )
    row = cursor.fetchone()
    return None if row is None else Incarnation(row[0], row[1], Origin(*row[2:]))


def in_force(cursor: Cursor) -> str:
    """Return the name of the incarnation in force, NONE before the first."""
    (name,) = one(cursor, "SELECT coalesce(max(incarnation), %s) FROM guerdon.incarnation", (NONE,))
    return str(name)


def database_origin(cursor: Cursor) -> tuple[str | None, str | None]:
    """Return PostgreSQL's identifiers of the cluster and of its timeline; None for what the server does not tell.

    A copy of the database in another cluster has another identifier; a promoted standby, and a server that was
    recovered to a point in time, have another timeline.
    """
    return (
        _asked(cursor, "SELECT system_identifier::text FROM pg_control_system()"),
        # pg_control_checkpoint() would be late after a promotion
        _asked(cursor, "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"),
    )


def _asked(cursor: Cursor, query: str) -> str | None:
    cursor.execute("SAVEPOINT asked")
    try:
        (answer,) = one(cursor, query)
    except _REFUSALS:
        cursor.execute("ROLLBACK TO SAVEPOINT asked")
        return None
    return str(answer)


def lock(cursor: Cursor) -> None:
    """Wait for every round of publishing to end, and keep others from beginning until this transaction ends."""
    cursor.execute("SELECT FROM guerdon.publication_cursor ORDER BY generation, shard FOR UPDATE")


def positions(cursor: Cursor, generation: int) -> dict[int, tuple[int, str]]:
    """Return by shard the position that the topic has reached, and the incarnation whose beginning it has."""
    cursor.execute("SELECT shard, pos, begun FROM guerdon.publication_cursor WHERE generation = %s", (generation,))
    return {shard: (pos, begun) for shard, pos, begun in cursor.fetchall()}


def newest_generation(cursor: Cursor, incarnation: Incarnation) -> int:
    """Return the highest generation that followers have seen under an incarnation."""
    (highest,) = one(
        cursor, "SELECT max(generation) FROM guerdon.publication_cursor WHERE begun = %s", (incarnation.name,)
    )
    return max(incarnation.generation, highest or 0)


def begin(
    cursor: Cursor,
    origin: Origin,
    generation: int,
    begins: Mapping[int, int] | None,
    *,
    why: str,
    begun_by: str,
    newest: str = NONE,
) -> str:
    """Begin an incarnation and return its name; the caller has called `lock`.

    Args:
        cursor: belongs to a transaction.
        origin: the database and topic of the incarnation.
        generation: the live generation.
        begins: the last position of each shard that stands: everything after it is sent again. None: nothing is sent
            again, and followers need no message, as they have what the log says.
        why: the reason, in a sentence.
        begun_by: the worker or operator that begins it.
        newest: the greatest incarnation that the topic is known to have had; the new one is greater.
    """
    name = _next_name(now_ms(cursor), max(newest, in_force(cursor)), origin)
    cursor.execute(
        """
        INSERT INTO guerdon.incarnation
            (incarnation, of_generation, system_id, timeline, topic, topic_id, why, begun_by)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (name, generation, *origin, why, begun_by),
    )

    # without positions every shard has the new beginning already, else its beginning is sent next
    if begins is None:
        cursor.execute("UPDATE guerdon.publication_cursor SET begun = %s WHERE generation = %s", (name, generation))
    else:
        cursor.execute(
            """
            UPDATE guerdon.publication_cursor c SET pos = b.pos, as_of = clock_timestamp()
            FROM unnest(%s::smallint[], %s::bigint[]) AS b (shard, pos)
            WHERE c.generation = %s AND c.shard = b.shard
            """,
            (list(begins), list(begins.values()), generation),
        )
    return name


def _next_name(at_ms: int, newest: str, origin: Origin) -> str:
    """Return a name greater than `newest`, of digits only: followers of earlier releases read headers as numbers."""
    if newest:
        at_ms = max(at_ms, int(newest[:_MS_DIGITS]) + 1)
    digest = sha256("/".join(part or "-" for part in origin).encode()).digest()
    return f"{at_ms:0{_MS_DIGITS}}{int.from_bytes(digest[:8]) % 10**_DIGEST_DIGITS:0{_DIGEST_DIGITS}}"
