"""Make the bytes that identify events and rewards: identities, digests, reward keys."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import msgpack

if TYPE_CHECKING:
    from schemas.events import Event

IDENTITY_BYTES = 16
"""How many bytes of an identity's sha256 the database keeps: a collision is expected only after 2^64 events."""

DIGEST_BYTES = 16

_encode = msgpack.Encoder(order="deterministic").encode


def event_identity(source: str, event_id: str) -> bytes:
    """Return the 32-byte identity of an event; ids hold no control characters, so NUL separates them safely."""
    return sha256(f"event\0{source}\0{event_id}".encode()).digest()


def order_identity(member_id: str, order_id: str) -> bytes:
    """Return the 32-byte identity of an order, which is a member's."""
    return sha256(f"order\0{member_id}\0{order_id}".encode()).digest()


def content_digest(event: Event, secret: bytes) -> bytes:
    """Return 16 bytes that two events share only if all their decoded fields are equal.

    The digest is keyed with the database's secret, so that nobody can use it to test a guess at a birthday. A field at
    its default is left out, so that a field that is added later does not change the digests of older events.
    """
    return sha256(b"%b\0%b\0%b" % (secret, type(event).__name__.encode(), _encode(event))).digest()[:DIGEST_BYTES]


def grant_key(identity: bytes, rule_id: str, member_id: str, index: int) -> bytes:
    """Return the reward_key of the give at `index` of a rule: the same in every generation and version."""
    return sha256(b"%b\0grant\0%b\0%b\0%d" % (identity, rule_id.encode(), member_id.encode(), index)).digest()


def movement_key(lot: bytes, verb: str, nth: int) -> bytes:
    """Return the reward_key of the nth movement of a lot by a verb, counted from 1."""
    return sha256(b"%b\0%b\0%d" % (lot, verb.encode(), nth)).digest()


def occasion_identity(kind: str, member_id: str, nth: int) -> bytes:
    """Return the 32-byte identity of an occasion, such as a birthday or the nth change of tier.

    It does not depend on a source event, so an occasion has the same identity whichever tick brings it about.
    """
    return sha256(f"occasion\0{kind}\0{member_id}\0{nth}".encode()).digest()


def again_identity(identity: bytes, name: str) -> bytes:
    """Return the 32-byte identity of a completion that a refund brings about.

    Args:
        identity: the identity of the refund.
        name: the name of the order, or other event, that reaches the goal.
    """
    return sha256(b"%b\0again\0%b" % (identity, name.encode())).digest()


def completion_key(identity: bytes, rule_id: str, member_id: str) -> bytes:
    """Return the reward_key of a `challenge.completed`."""
    return sha256(b"%b\0challenge\0%b\0%b" % (identity, rule_id.encode(), member_id.encode())).digest()


def entry_key(identity: bytes, salt: str, member_id: str) -> bytes:
    """Return the reward_key of a `cohort.entered`."""
    return sha256(b"%b\0cohort\0%b\0%b" % (identity, salt.encode(), member_id.encode())).digest()


def refusal_key(identity: bytes, rule_id: str, member_id: str, index: int, reason: str) -> bytes:
    """Return the reward_key of a `reward.refused` that cut off or refused the give at `index`."""
    return sha256(
        b"%b\0refused\0%b\0%b\0%d\0%b" % (identity, rule_id.encode(), member_id.encode(), index, reason.encode())
    ).digest()
