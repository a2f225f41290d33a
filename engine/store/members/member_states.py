"""Keep the states of members: a cache in the worker, rows in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field, msgpack

from engine.member.parts import Parts  # noqa: TC001  msgspec reads the annotations
from engine.member.profile import MemberProfile
from engine.member.state import MemberState
from engine.programme.rules.tiers import TierReport  # noqa: TC001  as above
from engine.referral.tracker import Tracker  # noqa: TC001  as above
from engine.store.eras import keep_to_keys, newest
from engine.store.logs.binary_copy import NULL, copy_rows, pack_bigint, pack_bytes, pack_text, pack_timestamp
from engine.store.logs.forwards import tracker_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.store.cursor import Cursor

MEMBERS_CACHED_MAX = 60_000
"""Members in memory, about 1 KB each; beyond this number the least recently used shard goes as a whole."""


def _left_out(part: object) -> None:
    """Store nothing in place of a profile, which has a column of its own."""
    if not isinstance(part, MemberProfile):
        raise TypeError(f"a state cannot hold a {type(part).__name__}")


LIVE = "guerdon.member_state"
"""The live generation's table of states; other generations have their own (`engine.store.generations.shadows`)."""

encode_state = msgpack.Encoder(enc_hook=_left_out).encode
decode_state = msgpack.Decoder(MemberState).decode
_COLUMNS = (
    "seq, shard, member_id, state, personal, due_at, tier, tier_since, tier_until, qualifying, next_tier, to_next_tier"
)
_HEAD = b"\0\x0c\0\0\0\x08%b\0\0\0\x02%b"
_NO_TIER = NULL * 6


class Member(Struct):
    """Hold a member as the live transaction works on them."""

    member_id: str
    shard: int
    packed_id: bytes
    """The member_id, packed for COPY."""

    seq: int = 0
    """Their last source event, 0 before the first."""

    state: MemberState = field(default_factory=MemberState)
    stored: bool = False
    """Whether the table has a row of the member."""

    opened: bool = False
    """Whether the stored profile is in `state`; until then the state has none."""

    parts: Parts | None = None
    """The parts of the ledger; None until they are opened."""

    stored_parts: dict[str, bytes] = field(default_factory=dict)
    """These parts as they are stored, by name."""

    tier_report: TierReport | None = None
    """The row of `reward.member_tier`; None where the programme has no tiers."""

    tracker: Tracker | None = None
    """The tracker of a member whom somebody referred."""

    recalled: bool = False
    """Whether the stored pages of uses are in `state` again, so that they are to be dropped."""


class MemberCache:
    """Keep members by shard, which is valid only while the shard's head stands where this worker left it.

    Another worker may hold a shard between two transactions of this one. The head's seq shows it: if it has moved, all
    members of the shard are out of date, and are dropped before anybody reads them.
    """

    def __init__(self, members_max: int = MEMBERS_CACHED_MAX) -> None:
        self._members_max = members_max
        self._shards: dict[int, dict[str, Member]] = {}
        self._heads: dict[int, tuple[int, int]] = {}

    def of_shard(self, shard: int, head: tuple[int, int]) -> dict[str, Member]:
        """Return the cached members of `shard`; none if this worker did not write its head, (generation, seq)."""
        if self._heads.get(shard) != head:
            self._shards[shard] = {}
        return self._shards[shard]

    def keep(self, heads: dict[int, tuple[int, int]]) -> None:
        """Keep the members of these shards until their heads move; the caller has committed."""
        for shard, head in heads.items():
            self._heads.pop(shard, None)
            self._heads[shard] = head  # the newest last: the first is the least recently used

        members = sum(map(len, self._shards.values()))
        for shard in list(self._heads):
            if members <= self._members_max:
                break
            members -= len(self._shards.pop(shard, {}))
            del self._heads[shard]

    def forget(self) -> None:
        """Drop everything, because a transaction failed after states were changed in memory."""
        self._shards.clear()
        self._heads.clear()


def load(cursor: Cursor, wanted: Iterable[tuple[int, str]]) -> list[Member]:
    """Read members by (shard, member_id); those without a row begin empty."""
    pairs = list(wanted)
    if not pairs:
        return []
    cursor.execute(
        f"""
        /* keep the plan */
        SELECT w.shard, w.member_id, m.seq, m.state, {newest("tracker", "guerdon.referee", member_id="w.member_id")}
        FROM unnest(%s::smallint[], %s::text[]) AS w (shard, member_id)
        LEFT JOIN LATERAL (
            SELECT * FROM guerdon.member_state s
            WHERE s.shard = w.shard AND s.member_id = w.member_id ORDER BY s.era DESC LIMIT 1
        ) m ON true
        """,
        ([shard for shard, _ in pairs], [member_id for _, member_id in pairs]),
    )

    # without a row there is no stored profile to open
    return [
        Member(
            member_id, shard, pack_text(member_id), seq, decode_state(state), stored=True, tracker=tracker_of(tracker)
        )
        if seq
        else Member(member_id, shard, pack_text(member_id), opened=True)
        for shard, member_id, seq, state, tracker in cursor.fetchall()
    ]


def save(
    cursor: Cursor, members: Iterable[Member], profiles: Mapping[tuple[int, str], bytes], table: str = LIVE
) -> None:
    """Write members: new ones by COPY, stored ones through a staging table; the caller holds their shards' heads.

    Args:
        cursor: belongs to the transaction.
        members: the members whose states are written.
        profiles: changed profiles, sealed, by (shard, member_id); an empty one empties the column.
        table: the generation's table of states.
    """
    new: list[bytes] = []
    stored: list[bytes] = []
    for member in members:
        profile = profiles.get((member.shard, member.member_id)) if profiles else None
        row = b"".join(
            (
                _HEAD % (member.seq.to_bytes(8, "big"), member.shard.to_bytes(2, "big")),
                member.packed_id,
                pack_bytes(encode_state(member.state)),
                pack_bytes(profile) if profile or (profile is not None and member.stored) else NULL,
                # ticks find no member who is suspended
                pack_timestamp(None if member.state.suspended_since else member.state.due_ms),
                _NO_TIER if member.tier_report is None else _packed(member.tier_report),
            )
        )
        (stored if member.stored else new).append(row)

    if new:
        copy_rows(cursor, f"{table} ({_COLUMNS})", new)
    if stored:
        # the newest version of a row is the one with the highest era
        copy_rows(cursor, f"pending_state ({_COLUMNS})", stored)
        cursor.execute(
            f"""
            UPDATE {table} m
            SET changes = m.changes + 1,
                seq = p.seq, state = p.state, personal = nullif(coalesce(p.personal, m.personal), ''),
                due_at = p.due_at, tier = p.tier, tier_since = p.tier_since, tier_until = p.tier_until,
                qualifying = p.qualifying, next_tier = p.next_tier, to_next_tier = p.to_next_tier
            FROM pending_state p WHERE m.shard = p.shard AND m.member_id = p.member_id
             AND m.era = {newest("era", table, shard="p.shard", member_id="p.member_id")}
            """
        )


def let_wait(cursor: Cursor, shard: int, member_id: str) -> None:
    """Keep ticks from a member whose state cannot be read or written."""
    cursor.execute(
        "UPDATE guerdon.member_state SET due_at = NULL WHERE shard = %s AND member_id = %s", (shard, member_id)
    )


def _packed(tier_report: TierReport) -> bytes:
    """Pack the columns of `reward.member_tier`."""
    return b"".join(
        (
            pack_text(tier_report.tier),
            pack_timestamp(tier_report.since_ms),
            pack_timestamp(tier_report.until_ms),
            pack_bigint(tier_report.qualifying),
            pack_text(tier_report.next_tier),
            pack_bigint(tier_report.to_next_tier),
        )
    )


def begin_again(cursor: Cursor) -> None:
    """Empty the staging table, so that one transaction can save members more than once."""
    cursor.execute("TRUNCATE pending_state")


def prepare(cursor: Cursor) -> None:
    """Make the staging table, and keep the planner on the primary keys, as it has no statistics of that table."""
    cursor.execute(
        """
        CREATE TEMPORARY TABLE IF NOT EXISTS pending_state
            (seq bigint, shard smallint, member_id text, state bytea, personal bytea, due_at timestamptz, tier text,
             tier_since timestamptz, tier_until timestamptz, qualifying bigint, next_tier text, to_next_tier bigint)
            ON COMMIT DELETE ROWS
        """
    )
    keep_to_keys(cursor)
