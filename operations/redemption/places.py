"""Find where a redemption stands: in the log, in quarantine, or on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.store import quarantine
from engine.store.logs import source_log
from schemas.canonical import IDENTITY_BYTES, event_identity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import IdentityPlace

TOPIC = "redemptions"
"""The topic of redemptions, without its prefix."""


class Key(NamedTuple):
    """Name a redemption for ever: its source, and the key that the source gave it, which is its event_id."""

    source: str
    event_id: str

    @property
    def identity(self) -> bytes:
        """Return the identity as the database keeps it."""
        return event_identity(self.source, self.event_id)[:IDENTITY_BYTES]


_ASIDE = "seq IS NULL AND kind = 'redemption' AND status <> 'released'"
"""The condition that a record of quarantine is a redemption that is in no log."""


def recorded(cursor: Cursor, key: Key) -> IdentityPlace | None:
    """Return the place of a redemption in the log; None: the log does not have it."""
    return source_log.find_known(cursor, [key.identity]).get(key.identity)


def set_aside(cursor: Cursor, key: Key) -> list[dict[str, Any]]:
    """Return the records in quarantine under this key that are not in the log, the oldest first."""
    return quarantine.rows(
        cursor,
        f"event_id = %s AND source = %s AND {_ASIDE}",
        (key.event_id, key.source),
    )


def arrived(cursor: Cursor, keys: Sequence[Key]) -> list[Key]:
    """Return those keys whose redemptions are in the log or in quarantine."""
    known = source_log.find_known(cursor, [key.identity for key in keys])
    cursor.execute(
        f"""
        SELECT w.source, w.event_id FROM unnest(%s::text[], %s::text[]) AS w (source, event_id)
        WHERE EXISTS (
            SELECT FROM guerdon.quarantine q
            WHERE q.event_id = w.event_id AND q.source = w.source AND {_ASIDE}
        )
        """,
        ([key.source for key in keys], [key.event_id for key in keys]),
    )
    aside = {Key(*row) for row in cursor.fetchall()}
    return [key for key in keys if key.identity in known or key in aside]


def is_passed(cursor: Cursor, topic: str, partition: int, offset: int) -> bool:
    """Whether workers have read past an offset: what stands there is in the log, in quarantine, or was let pass."""
    cursor.execute(
        "SELECT next_offset > %s FROM guerdon.consumer_offset WHERE topic = %s AND partition = %s",
        (offset, topic, partition),
    )
    row = cursor.fetchone()
    return row is not None and bool(row[0])
