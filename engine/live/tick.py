"""Hold a tick: a source event of one shard that moves the clocks of members who have no event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import msgpack

from engine.live.verdicts import failed
from schemas.canonical import event_identity
from schemas.events import MemberEvent

if TYPE_CHECKING:
    from engine.intake.batch import SetAside
    from engine.store.logs.source_log import Head, SourceRows


class TickOf(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Name a tick as an event of one of its members: the quarantine files events by member, the log's tick has none."""


@dataclass(slots=True)
class Tick:
    """Hold a tick of one shard: it moves the clocks of `member_ids` up to `until_ms`, in the order of due times.

    `event_id` and `identity` are empty until it is appended and has its place in the log.
    """

    shard: int
    until_ms: int
    member_ids: list[str]
    event_id: str = ""
    identity: bytes = b""
    payload: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.payload = msgpack.encode({"until_ms": self.until_ms})

    def append(self, rows: SourceRows, head: Head) -> None:
        """Append the tick at the head's next position."""
        self.event_id = f"tick-{self.shard}-{head.seq + 1}"
        self.identity = event_identity("guerdon", self.event_id)
        rows.append_own("tick", head, event_id=self.event_id, payload=self.payload, occurred_ms=self.until_ms)

    def set_aside(self, member_id: str, error: Exception) -> SetAside:
        """Return the record of a member whose tick failed."""
        event = TickOf(event_id=self.event_id, occurred_at=self.until_ms, member_id=member_id, source="guerdon")
        return failed(error, self.payload, event)

    @staticmethod
    def failure_key(member_id: str) -> bytes:
        """Return the key under which the failure of a member's tick is remembered; events have their identity."""
        return b"tick of " + member_id.encode()
