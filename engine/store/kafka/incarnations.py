"""Keep the incarnations of the topic of reward events: which is in force, and begin another one.

Whoever follows the topic keeps, of each shard, what an incarnation says from its beginning on. Another one begins when
what the topic holds is not what the log says any more, or when the topic was made anew.
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
"""What stands for the incarnation of messages of a release that knew none: less than any."""

LOCKED_WITHIN = "35s"
"""How long to wait for the rounds under way: a little longer than one may wait for the brokers."""

_MS_DIGITS = 13
_DIGEST_DIGITS = 12
_FORM = re.compile(rf"[0-9]{{{_MS_DIGITS + _DIGEST_DIGITS}}}")

_NOT_TO_BE_HAD = (
    errors.InsufficientPrivilege,
    errors.UndefinedFunction,
    errors.FeatureNotSupported,
    errors.ObjectNotInPrerequisiteState,
)


class Origin(NamedTuple):
    """Say of which database and which making of the topic an incarnation is; None: it is not to be had."""

    system_id: str | None
    timeline: str | None
    topic: str
    topic_id: str | None

    def is_another_topic(self, topic_id: str | None) -> bool:
        """Whether the topic of this name was made anew since."""
        return topic_id is not None and self.topic_id is not None and topic_id != self.topic_id


class Incarnation(NamedTuple):
    """Hold one incarnation, and which generation was live when it began."""

    name: str
    generation: int
    origin: Origin


def is_name(text: str) -> bool:
    """Whether `text` has the form of an incarnation; headers may hold anything."""
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
    """Return PostgreSQL's identifier of the cluster and of its timeline; None for what may not be asked.

    A copy of the database in another cluster has another identifier; a promoted standby, and a server that was
    recovered to a point in time, have another timeline.
    """
    return (
        _asked(cursor, "SELECT system_identifier::text FROM pg_control_system()"),
        # not from pg_control_checkpoint(): after a promotion that one is late
        _asked(cursor, "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"),
    )


def _asked(cursor: Cursor, query: str) -> str | None:
    cursor.execute("SAVEPOINT asked")
    try:
        (found,) = one(cursor, query)
    except _NOT_TO_BE_HAD:
        cursor.execute("ROLLBACK TO SAVEPOINT asked")
        return None
    return str(found)


def lock(cursor: Cursor) -> None:
    """Wait for every round of publishing to end, and let none begin before this transaction ends."""
    cursor.execute("SELECT FROM guerdon.publication_cursor ORDER BY generation, shard FOR UPDATE")


def positions(cursor: Cursor, generation: int) -> dict[int, tuple[int, str]]:
    """Return for each shard how far the topic is, and under which incarnation its beginning was told."""
    cursor.execute("SELECT shard, pos, begun FROM guerdon.publication_cursor WHERE generation = %s", (generation,))
    return {shard: (pos, begun) for shard, pos, begun in cursor.fetchall()}


def newest_generation(cursor: Cursor, incarnation: Incarnation) -> int:
    """Return the highest number of a generation that followers have seen under an incarnation."""
    (found,) = one(
        cursor, "SELECT max(generation) FROM guerdon.publication_cursor WHERE begun = %s", (incarnation.name,)
    )
    return max(incarnation.generation, found or 0)


def begin(
    cursor: Cursor,
    origin: Origin,
    generation: int,
    begins: Mapping[int, int] | None,
    why: tuple[str, str],
    newest: str = NONE,
) -> str:
    """Begin an incarnation and return its name; `lock` must be held.

    Args:
        cursor: of a transaction.
        origin: which database and topic it is of.
        generation: the live one.
        begins: for shards of it, the last position that stands: what comes after is sent again. None: nothing is, and
            followers need not be told, as they have what the log says.
        why: for who asks later, and who or what began it.
        newest: the greatest incarnation that the topic is known to have had; the new one is greater.
    """
    name = _next_name(now_ms(cursor), max(newest, in_force(cursor)), origin)
    cursor.execute(
        """
        INSERT INTO guerdon.incarnation
            (incarnation, of_generation, system_id, timeline, topic, topic_id, why, begun_by)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (name, generation, *origin, *why),
    )
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
    """Return a name greater than `newest`: digits only, as followers of earlier releases read headers as numbers."""
    if newest:
        at_ms = max(at_ms, int(newest[:_MS_DIGITS]) + 1)
    digest = sha256("/".join(part or "-" for part in origin).encode()).digest()
    return f"{at_ms:0{_MS_DIGITS}}{int.from_bytes(digest[:8]) % 10**_DIGEST_DIGITS:0{_DIGEST_DIGITS}}"
