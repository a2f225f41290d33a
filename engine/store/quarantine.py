"""Keep records that were set aside, until an operator releases or discards them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from psycopg2.extras import RealDictCursor, execute_values

from engine.intake.batch import NO_OFFSET
from engine.store.cursor import one
from engine.store.logs.forwards import OWN_NAMES, ROWS
from engine.store.members import personal
from schemas.canonical import event_identity
from schemas.errors import AnswerIsNo
from schemas.events import ID_CHARACTERS_MAX, TYPE_NAMES
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.intake.batch import SetAside
    from engine.store.cursor import Cursor
    from engine.store.members.personal import Owner
    from schemas.events import Event

TICK = "tick"
"""The kind of a record about a member whose tick failed; nobody sent an event."""

_COLUMNS = (
    "stage", "reason", "message", "topic", "partition", "offset_", "payload", "sealed", "schema_id",
    "shard", "seq", "kind", "member_id", "source", "event_id",
)  # fmt: skip


_INSERT = f"INSERT INTO guerdon.quarantine ({', '.join(_COLUMNS)}) VALUES %s"


SUSPENDS = "status = 'open' AND seq IS NOT NULL"
"""The condition of records that suspend a member: their event is in the log, whichever step failed."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Choose records by conditions, which all must hold; None sets no condition.

    `topics` are full names. `since_ms` and `until_ms` bound the instant at which a record was set aside, the second
    exclusive. `after` is the last record of the page before. `suspends` chooses records whose event is in the log: they
    suspend their member while they are open. Resolved records are chosen only with `everything`.
    """

    reason: str | None = None
    topics: tuple[str, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: int = 0
    suspends: bool = False
    everything: bool = False

    @property
    def where(self) -> str:
        """Return the conditions in SQL, with places for `parameters`."""
        parts = ["id > %(after)s"]
        if not self.everything:
            parts.append("status = 'open'")
        if self.suspends:
            parts.append("seq IS NOT NULL")
        if self.reason is not None:
            parts.append("reason = %(reason)s")
        if self.topics is not None:
            parts.append("topic = ANY(%(topics)s)")
        if self.since_ms is not None:
            parts.append("quarantined_at >= to_timestamp(%(since_ms)s / 1000.0)")
        if self.until_ms is not None:
            parts.append("quarantined_at < to_timestamp(%(until_ms)s / 1000.0)")
        return " AND ".join(parts)

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the values for the places in `where`."""
        return {
            "after": self.after, "reason": self.reason, "topics": list(self.topics or ()), "since_ms": self.since_ms,
            "until_ms": self.until_ms,
        }  # fmt: skip


def kind_named(event: Event) -> str:
    """Return the kind under which the source log has an event, sent by upstream or written by Guerdon itself."""
    return TYPE_NAMES.get(type(event)) or OWN_NAMES.get(type(event)) or ROWS.get(type(event), TICK)


def personal_owner(record: SetAside) -> Owner | None:
    """Return the member whose key must seal the record; None where it holds no personal fields."""
    if record.event is None or not personal.is_personal(record.event):
        return None
    member_id = _owner_named(record.event.member_id) or ""  # type: ignore[attr-defined]  # both have one
    return shard_of(member_id), member_id


def add(
    cursor: Cursor,
    records: Sequence[SetAside],
    keys: Mapping[Owner, bytes | None],
    places: Mapping[int, tuple[int, int]] | None = None,
) -> None:
    """Write records; `places` has shard and seq of those that are in the log, by their index in `records`."""
    rows = []
    for index, record in enumerate(records):
        event, payload, sealed, schema_id = record.event, record.payload, None, record.schema_id

        # seal what is personal
        owner = personal_owner(record)
        if event is not None and owner is not None:
            # under the identity of the stored names: the reader of the record knows no others
            identity = event_identity(_storable(event.source) or "", _storable(event.event_id) or "")
            payload, sealed = personal.seal(event, identity, keys[owner])
            schema_id = personal.OWN_FORMAT

        shard, seq = (places or {}).get(index, (None, None))
        rows.append(
            (
                record.stage, str(record.reason), _storable(record.message), record.topic,
                None if record.partition == NO_OFFSET else record.partition,
                None if record.offset == NO_OFFSET else record.offset,
                payload, sealed, schema_id, shard, seq, None if event is None else kind_named(event),
                _owner_named(getattr(event, "member_id", None)), _storable(getattr(event, "source", None)),
                _storable(getattr(event, "event_id", None)),
            )
        )  # fmt: skip
    if rows:
        execute_values(cursor, _INSERT, rows)


def _storable(text: str | None) -> str | None:
    """Return `text` as PostgreSQL can hold it; the payload keeps the original."""
    return None if text is None else text.replace("\0", "␀").encode("utf-8", "replace").decode()


def _owner_named(member_id: str | None) -> str | None:
    """Return a member_id as indexes can hold it; one that is too long to be admitted is cut and ends with a digest."""
    name = _storable(member_id)
    if name is None or len(name) <= ID_CHARACTERS_MAX:
        return name
    digest = sha256(name.encode()).hexdigest()
    return f"{name[: ID_CHARACTERS_MAX - len(digest) - 1]}…{digest}"


def rows(
    cursor: Cursor, where: str = "status = 'open'", parameters: Any = (), *, most: int | None = None
) -> list[dict[str, Any]]:
    """Return quarantined records as dictionaries, the oldest first, at most `most` of them."""
    with cursor.connection.cursor(cursor_factory=RealDictCursor) as dictionaries:
        dictionaries.execute(
            f"""
            SELECT id, stage, reason, message, topic, partition, offset_ AS "offset", shard, seq, kind, member_id,
                   source, event_id, status, quarantined_at, resolved_at, resolved_why, schema_id, payload, sealed
            FROM guerdon.quarantine WHERE {where} ORDER BY id {"" if most is None else f"LIMIT {most:d}"}
            """,
            parameters,
        )
        return [dict(row) for row in dictionaries.fetchall()]


def ids(cursor: Cursor, chosen: Chosen) -> list[int]:
    """Return the numbers of the chosen records, the oldest first."""
    cursor.execute(
        f"SELECT id FROM guerdon.quarantine WHERE {chosen.where} ORDER BY id",
        chosen.parameters,
    )
    return [record_id for (record_id,) in cursor.fetchall()]


def discard(cursor: Cursor, record_ids: Sequence[int], why: str) -> set[int]:
    """Discard those of the records that are open and not in the log, and return their numbers."""
    cursor.execute(
        """
        UPDATE guerdon.quarantine SET status = 'discarded', resolved_at = clock_timestamp(), resolved_why = %s
        WHERE id = ANY(%s) AND status = 'open' AND seq IS NULL RETURNING id
        """,
        (why, list(record_ids)),
    )
    return {record_id for (record_id,) in cursor.fetchall()}


def suspended_members(cursor: Cursor) -> list[str]:
    """Return the suspended members: their events are recorded, and judged after a release."""
    cursor.execute(f"SELECT DISTINCT member_id FROM guerdon.quarantine WHERE {SUSPENDS} ORDER BY 1")
    return [member_id for (member_id,) in cursor.fetchall()]


def count_suspended(cursor: Cursor) -> int:
    """Return the number of suspended members."""
    (count,) = one(cursor, f"SELECT count(DISTINCT member_id) FROM guerdon.quarantine WHERE {SUSPENDS}")
    return int(count)


def counts(cursor: Cursor) -> dict[str, int]:
    """Return the number of open records by reason, the most frequent first."""
    cursor.execute(
        "SELECT reason, count(*) FROM guerdon.quarantine WHERE status = 'open' GROUP BY reason ORDER BY 2 DESC, 1"
    )
    return dict(cursor.fetchall())


def resolve(cursor: Cursor, record_id: int, status: str, why: str | None) -> None:
    """Mark an open record as released or discarded.

    Raises:
        AnswerIsNo: somebody else did so meanwhile; the caller must roll back.
    """
    cursor.execute(
        """
        UPDATE guerdon.quarantine SET status = %s, resolved_at = clock_timestamp(), resolved_why = %s
        WHERE id = %s AND status = 'open'
        """,
        (status, why, record_id),
    )
    if cursor.rowcount != 1:
        raise AnswerIsNo(
            f"record {record_id} was released or discarded by somebody else meanwhile; nothing was changed"
        )
