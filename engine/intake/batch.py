"""Define what a worker hands to the live transaction: one merged run of records, and the offsets that it moves."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from schemas.canonical import content_digest, event_identity, order_identity
from schemas.events import TYPE_NAMES, Purchase, Touch

if TYPE_CHECKING:
    from schemas.events import Event
    from schemas.rejection import Reason

NO_OFFSET = -1
"""Partition and offset of an event that did not come from Kafka."""

Partition = tuple[str, int]
"""A topic's full name and a partition's number."""


class Admitted(Struct, gc=False):
    """Hold one admitted event; `identity` and `order_identity` have 32 bytes, `digest` 16."""

    event: Event
    kind: str
    member_id: str
    shard: int
    identity: bytes
    digest: bytes
    order_identity: bytes | None
    schema_id: int
    payload: bytes
    topic: str = ""
    partition: int = NO_OFFSET
    offset: int = NO_OFFSET


class SetAside(Struct, gc=False):
    """Hold one rejected record, with the reason code and a sentence for the operator."""

    stage: str
    reason: Reason
    message: str
    topic: str | None
    partition: int
    offset: int
    payload: bytes
    event: Event | None = None
    schema_id: int | None = None


class LastRecord(Struct, frozen=True):
    """Name the last record read from a partition: it shows when the broker has another record at that offset."""

    offset: int
    leader_epoch: int | None = None
    """The epoch under which the broker's log got the record; None: unknown."""
    digest: bytes | None = None
    """The digest of its value, as `digest_of` makes it; None: unknown."""


def digest_of(value: bytes | None) -> bytes:
    """Return a digest of a message's value; a tombstone counts as empty."""
    return sha256(value or b"").digest()[:16]


class OffsetMove(Struct, frozen=True):
    """Move the offset of a partition; a move from an offset to itself only says how long others must wait."""

    expected: int
    """The offset that the table must still have."""
    next: int
    """The offset after the move."""
    high_ms: int
    """The latest event time read from the partition."""
    passed: int = 0
    """How many of the offsets had no event."""
    last: LastRecord | None = None
    """The last record read with this move; None: there was none at these offsets."""
    ahead_ms: int | None = None
    """Nothing from `next` on is earlier than this event time; None: unknown. Other workers wait by it."""
    is_silent: bool = False
    """Whether the broker has records from `next` on and does not deliver them. Other workers wait no longer then."""


class ClockMove(Struct, frozen=True):
    """Let ticks move the members' clocks."""

    until_ms: int
    """The instant to which ticks move clocks; it leaves time for late events."""
    everywhere: bool = False
    """Whether ticks go to the shards that nobody works on, instead of the batch's."""
    hourly: bool = True
    """Whether a shard has a tick only an hour after its last one, unless that one left members due."""
    reached_ms: int = 0
    """The time that all partitions have passed. Forwarded events and waiting signups need no more than this."""
    shards: tuple[int, ...] = ()
    """Shards that have a tick even where nothing is due: it may be due in a generation that is not live."""


def admitted_from(event: Event, shard: int, schema_id: int, payload: bytes, secret: bytes) -> Admitted:
    """Return the record of an event that passed `engine.intake.admit.check`."""
    member_id = "" if type(event) is Touch else event.member_id  # type: ignore[attr-defined]
    return Admitted(
        event=event,
        kind=TYPE_NAMES[type(event)],
        member_id=member_id,
        shard=shard,
        identity=event_identity(event.source, event.event_id),
        digest=content_digest(event, secret),
        order_identity=order_identity(member_id, event.order_id) if type(event) is Purchase else None,
        schema_id=schema_id,
        payload=payload,
    )
