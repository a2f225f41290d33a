"""Hold what a worker hands to the live transaction: one merged run of records, and the offsets it moves."""

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
    """Hold one event that passed admission; `identity` and `order_identity` have 32 bytes, `digest` 16."""

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
    """Hold one record that cannot be taken, with the reason code and a sentence for the operator."""

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
    """Say which record of a partition was taken last, so that it shows when the broker holds another in its place.

    `leader_epoch` is the one under which the broker's log got it, `digest` tells its value from others; each is None
    where it is not known.
    """

    offset: int
    leader_epoch: int | None = None
    digest: bytes | None = None


def digest_of(value: bytes | None) -> bytes:
    """Return what tells a message's value from others; a tombstone counts as empty."""
    return sha256(value or b"").digest()[:16]


class OffsetMove(Struct, frozen=True):
    """Move a partition from `expected`, which the table must still say, to `next`; `passed` offsets had no event.

    `last` is the last record that was taken with it; None: there were only offsets without one. `ahead_ms` is the event
    time before which nothing comes from `next` on, where that is known, and `is_silent` says that what is there does
    not come: by these other workers know how long to wait. A move may tell only these.
    """

    expected: int
    next: int
    high_ms: int
    passed: int = 0
    last: LastRecord | None = None
    ahead_ms: int | None = None
    is_silent: bool = False


class ClockMove(Struct, frozen=True):
    """Let ticks move clocks on to `until_ms`, in the batch's shards or, with `everywhere`, in those nobody works on.

    With `hourly` a shard has its tick only when an hour has passed since its last one, or that one left members due.
    Those of `shards` have one even where nothing is due: it may be due in a generation that is not live.
    `reached_ms` is the time that all partitions have passed, `until_ms` where late events are waited for: what was
    forwarded, and who waits for a referrer, waits only for the first.
    """

    until_ms: int
    everywhere: bool = False
    hourly: bool = True
    reached_ms: int = 0
    shards: tuple[int, ...] = ()


def admitted_from(event: Event, shard: int, schema_id: int, payload: bytes, secret: bytes) -> Admitted:
    """Make the record of an event that passed `engine.intake.admit.check`."""
    member_id = "" if type(event) is Touch else event.member_id  # type: ignore[attr-defined]
    return Admitted(
        event,
        TYPE_NAMES[type(event)],
        member_id,
        shard,
        event_identity(event.source, event.event_id),
        content_digest(event, secret),
        order_identity(member_id, event.order_id) if type(event) is Purchase else None,
        schema_id,
        payload,
    )
