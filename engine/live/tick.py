"""Hold a tick: a source event of one shard that moves the clocks of members who have no event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import msgpack

from engine.evaluate import advance
from engine.live.verdicts import failed
from engine.programme.rules.occurrence import Occurrence
from engine.store.logs.binary_copy import pack_text
from schemas.canonical import event_identity
from schemas.events import MemberEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.intake.batch import SetAside
    from engine.programme.compile.module import CompiledJudge
    from engine.store.logs.source_log import Head, SourceRows
    from engine.store.members.books import StoredBooks
    from engine.store.members.member_states import Member
    from schemas.rewards import RewardEvent


class TickOf(MemberEvent, frozen=True, kw_only=True, gc=False):
    """Name a tick as the event of one of its members, for the quarantine; the log's tick has no member."""


@dataclass(slots=True)
class Tick:
    """Hold a tick of one shard: how far it moves the clocks, and of which members, in the order of what is due.

    It has its place in the log once it is appended; `event_id` and `identity` are empty until then.
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

    def advance(self, member: Member, head: Head, judge: CompiledJudge, books: StoredBooks) -> Sequence[RewardEvent]:
        """Perform what is due for a member; held and erased ones stay where they are."""
        if member.state.suspended_since or member.state.erased:
            return ()
        occurrence = Occurrence(self.identity, head.seq, head.recorded_ms)
        return advance(member.member_id, member.state, occurrence, judge, books.of(member), self.until_ms)

    def names(self, member: Member) -> bytes:
        """Return member_id and event_id, packed as the reward log has them."""
        return member.packed_id + pack_text(self.event_id)

    def set_aside(self, member_id: str, error: Exception) -> SetAside:
        """Return the record of a member for whom the tick failed."""
        event = TickOf(
            event_id=self.event_id, occurred_at=self.until_ms, member_id=member_id, source="guerdon"
        )  # fmt: skip
        return failed(error, self.payload, event)

    @staticmethod
    def failure_of(member_id: str) -> bytes:
        """Return under which key the failure of a member's tick is remembered, beside those of events' identities."""
        return b"tick of " + member_id.encode()
