"""Keep the members of a generation that is not live: a whole shard in memory, written at the end of each chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from engine.store.generations import live_generation
from engine.store.generations.live_generation import version_in
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.source_log import Head, RewardEnd, SourceEnd
from engine.store.members import profiles
from engine.store.members.member_states import Member, decode_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.ledger.books import Activation
    from engine.member.profile import MemberProfile
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation


@dataclass(slots=True)
class Shard:
    """Hold one shard as far as it is folded, and its changes since the last chunk."""

    head: Head
    schedule: list[Activation]
    """The versions that have judged here."""

    outside: list[Activation]
    """The versions that judge the events outside the file's time."""

    members: dict[str, Member] = field(default_factory=dict)

    due: dict[str, int] = field(default_factory=dict)
    """When (ms) something happens to a member by itself, as in the column `due_at`."""

    agenda: list[tuple[int, str]] = field(default_factory=list)
    """The entries of `due` as a heap, and out-of-date entries among them."""

    touched: dict[str, Member] = field(default_factory=dict)
    """Members whose states have changed since the last chunk."""

    profiles: dict[str, MemberProfile | None] = field(default_factory=dict)
    """The profiles of such members as they were at the last chunk."""

    erased: set[str] = field(default_factory=set)
    """Members who were erased since the last chunk."""

    reviewed: dict[str, int] = field(default_factory=dict)
    """Members whom the next tick is to review, with the instant (ms)."""

    fresh: list[Activation] = field(default_factory=list)
    """Activations since the last chunk."""

    @property
    def number(self) -> int:
        """Return the shard's number."""
        return self.head.shard

    @property
    def ticked_ms(self) -> int:
        """Return the instant (ms) up to which ticks have performed everything that was due."""
        return self.head.ticked_ms or 0

    def member(self, member_id: str) -> Member:
        """Return a member who is about to change, made now where they are new."""
        member = self.members.get(member_id)
        if member is None:
            member = self.members[member_id] = Member(member_id, self.number, pack_text(member_id), opened=True)
        self.touched[member_id] = member
        return member

    def outside_at(self, seq: int) -> int:
        """Return the version that judges a source event outside the file's time."""
        outside = self.outside
        if outside and outside[-1].from_seq < seq:
            return outside[-1].version
        return version_in(outside, seq)

    def change_version(self, activation: Activation) -> int:
        """Let a version judge from now on; return the version before it if this is the first such change, else 0.

        Members without an event must follow a first change. Late events at the edge of a file's time repeat it again
        and again, and nobody has to follow the repetitions.
        """
        before, from_seq = self.head.version, activation.from_seq
        is_first = (before, activation.version) not in pairwise(each.version for each in self.schedule)
        if self.schedule and self.schedule[-1].from_seq == from_seq:
            self.schedule.pop()
            self.fresh = [row for row in self.fresh if row.from_seq != from_seq]
        self.schedule.append(activation)
        self.fresh.append(activation)
        self.head.version = activation.version
        return before if is_first else 0

    def plan(self, member: Member) -> None:
        """Note when something happens next to a member who has changed; ticks find no suspended member."""
        member_id, state = member.member_id, member.state
        if self.reviewed:
            self.reviewed.pop(member_id, None)
        due_ms = None if state.suspended_since else state.due_ms
        if self.due.get(member_id) != due_ms:
            self._note_due(member_id, due_ms)

    def review(self, at_ms: int) -> None:
        """Make ticks find every member at an instant: the programme has changed for all of them."""
        for member_id in self.members:
            due_ms = min(self.due.get(member_id, at_ms), at_ms)
            self.reviewed[member_id] = due_ms
            self._note_due(member_id, due_ms)

    def _note_due(self, member_id: str, due_ms: int | None) -> None:
        if due_ms is None:
            self.due.pop(member_id, None)
        elif self.due.get(member_id) != due_ms:
            self.due[member_id] = due_ms
            heappush(self.agenda, (due_ms, member_id))

    def take_due(self, until_ms: int, members_max: int) -> list[Member]:
        """Return the members with something due by an instant, `members_max` at most, in the order of `engine.live`."""
        due_members: list[Member] = []
        agenda, due = self.agenda, self.due
        while agenda and agenda[0][0] <= until_ms and len(due_members) < members_max:
            due_ms, member_id = heappop(agenda)
            if due.get(member_id) == due_ms:
                del due[member_id]
                due_members.append(self.member(member_id))

        # with room left, everything is done that was due
        if len(due_members) < members_max:
            self.head.ticked_ms = max(self.ticked_ms, until_ms)
        return due_members


def lock_heads(cursor: Cursor, generation: Generation, shards: Sequence[int]) -> dict[int, Head]:
    """Lock the heads of a generation that is not live, and return them, without the source log's hash."""
    cursor.execute(
        """
        SELECT shard, seq, pos, hash, version, guerdon.ms(ticked_at) FROM guerdon.generation_head
        WHERE generation = %s AND shard = ANY(%s) ORDER BY shard FOR UPDATE
        """,
        (generation.number, list(shards)),
    )
    return {
        shard: Head(shard, SourceEnd(seq, ticked_ms=ticked_ms), RewardEnd(pos, bytes(last_hash), version))
        for shard, seq, pos, last_hash, version, ticked_ms in cursor.fetchall()
    }


def load(cursor: Cursor, generation: Generation, head: Head) -> Shard:
    """Read a whole shard with all its members and their profiles."""
    # the schedule, and every member's row with the key of the profile
    shard = Shard(head, live_generation.schedule(cursor, generation.number, head.shard), [])
    reload_schedule(cursor, generation, shard)
    cursor.execute(
        f"""
        SELECT m.member_id, m.seq, m.state, m.personal, k.key, guerdon.ms(m.due_at)
        FROM {generation.table("member_state")} m
        LEFT JOIN guerdon.member_key k
               ON m.personal IS NOT NULL AND k.shard = m.shard AND k.member_id = m.member_id
        WHERE m.shard = %s
        """,
        (head.shard,),
    )

    for member_id, seq, body, sealed, key, due_ms in cursor.fetchall():
        state = decode_state(body)
        if sealed is not None and key is not None:
            state.profile = profiles.opened(member_id, bytes(sealed), bytes(key))
        shard.members[member_id] = Member(
            member_id, head.shard, pack_text(member_id), seq, state, stored=True, opened=True
        )
        if due_ms is not None:
            shard.due[member_id] = due_ms

    shard.agenda = sorted((due_ms, member_id) for member_id, due_ms in shard.due.items())
    return shard


def reload_schedule(cursor: Cursor, generation: Generation, shard: Shard) -> None:
    """Read again which versions judge outside the file's time: the base may have a new one by now."""
    if generation.base is not None:
        shard.outside = live_generation.schedule(cursor, generation.base, shard.number)
    elif not shard.outside:
        shard.outside = list(shard.schedule)


def sealed_profiles(cursor: Cursor, shards: Iterable[Shard]) -> dict[tuple[int, str], bytes]:
    """Return the changed profiles, sealed, by (shard, member_id); NOTHING for a member without a key."""
    changed = {
        (shard.number, member_id): shard.members[member_id].state.profile
        for shard in shards
        for member_id, before in shard.profiles.items()
        if shard.members[member_id].state.profile != before
    }
    gone = {(shard.number, member_id): profiles.NOTHING for shard in shards for member_id in shard.erased}
    if not changed:
        return gone

    # a member who was erased meanwhile has no key
    cursor.execute(
        "SELECT shard, member_id, key FROM guerdon.member_key WHERE key IS NOT NULL AND (shard, member_id) IN %s",
        (tuple(changed),),
    )
    keys = {(shard, member_id): bytes(key) for shard, member_id, key in cursor.fetchall()}
    return {owner: profiles.sealed(owner[1], profile, keys.get(owner)) for owner, profile in changed.items()} | gone


def save(cursor: Cursor, generation: Generation, shards: Sequence[Shard]) -> None:
    """Write heads, schedules and members to review, after the states, and begin the next chunk."""
    # members whom the next tick reviews
    number = generation.number
    reviewed = [(s.number, member_id, due_ms) for s in shards for member_id, due_ms in s.reviewed.items()]
    if reviewed:
        execute_values(
            cursor,
            f"""
            UPDATE {generation.table("member_state")} m SET due_at = to_timestamp(v.due_ms / 1000.0)
            FROM (VALUES %s) AS v (shard, member_id, due_ms) WHERE m.shard = v.shard AND m.member_id = v.member_id
            """,
            reviewed,
        )

    # activations
    fresh = [(number, shard.number, *row) for shard in shards for row in shard.fresh]
    if fresh:
        execute_values(
            cursor,
            """
            INSERT INTO guerdon.generation_schedule (generation, shard, from_seq, version, at) VALUES %s
            ON CONFLICT (generation, shard, from_seq) DO UPDATE SET version = excluded.version, at = excluded.at
            """,
            fresh,
            template="(%s, %s, %s, %s, to_timestamp(%s / 1000.0))",
        )

    # heads
    heads = [(s.number, s.head.seq, s.head.pos, s.head.reward_hash, s.head.version, s.head.ticked_ms) for s in shards]
    execute_values(
        cursor,
        f"""
        UPDATE guerdon.generation_head h
        SET seq = v.seq, pos = v.pos, hash = v.hash, version = v.version,
            ticked_at = to_timestamp(v.ticked_ms::bigint / 1000.0)
        FROM (VALUES %s) AS v (shard, seq, pos, hash, version, ticked_ms)
        WHERE h.generation = {number:d} AND h.shard = v.shard
        """,
        heads,
    )

    # the next chunk begins without changes
    for shard in shards:
        for member in shard.touched.values():
            member.stored = True
        for changed in (shard.touched, shard.profiles, shard.erased, shard.reviewed, shard.fresh):
            changed.clear()
