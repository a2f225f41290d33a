"""Copy the rewards of erased members from the log: nobody can read their profiles and judge their events again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.store.logs.reward_log import first_pos
from schemas.rewards import Posting, RewardEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

_POSTING = ("type", "unit", "debit", "credit", "rule_id", "rule_version", "campaign", "item", "reason")


class Copied(NamedTuple):
    """Hold the rewards of erased members for some source events of one shard."""

    members: frozenset[str] = frozenset()
    """The members of the shard who are erased."""

    rewards: dict[tuple[int, str], list[tuple[str, RewardEvent]]] = {}  # noqa: RUF012  never changed
    """Their rewards by (seq, member_id), each as (event_id, reward event)."""

    order: dict[int, list[str]] = {}  # noqa: RUF012  as above
    """All members of each such source event, in the order of the log."""

    def woven(self, seq: int, member_ids: Sequence[str]) -> list[str]:
        """Return the members of a tick in order, with the erased ones in their places in the log."""
        woven = [member_id for member_id in member_ids if member_id not in self.members]
        before: str | None = None
        for member_id in self.order.get(seq, []):
            if member_id in self.members:
                woven.insert(woven.index(before) + 1 if before in woven else 0, member_id)
            if member_id in self.members or member_id in woven:
                before = member_id
        return woven


def is_erased(cursor: Cursor, shard: int, member_id: str) -> bool:
    """Whether a member was erased."""
    cursor.execute(
        "/* keep the plan */ SELECT 1 FROM guerdon.member_key WHERE shard = %s AND member_id = %s AND key IS NULL",
        (shard, member_id),
    )
    return cursor.fetchone() is not None


def read_copied(cursor: Cursor, generation: int, shard: int, after_seq: int, upto_seq: int) -> Copied:
    """Read the rewards of erased members in `generation`, for source events after `after_seq` up to `upto_seq`."""
    # most shards have no erased member
    cursor.execute("SELECT member_id FROM guerdon.member_key WHERE shard = %s AND key IS NULL", (shard,))
    members = frozenset(member_id for (member_id,) in cursor.fetchall())
    if not members:
        return Copied()

    where = {
        "generation": generation,
        "shard": shard,
        "first": first_pos(cursor, generation, shard, after_seq + 1),
        "end": first_pos(cursor, generation, shard, upto_seq + 1),
        "members": sorted(members),
    }
    cursor.execute(
        """
        SELECT seq, member_id, event_id, amount, reward_key, guerdon.ms(occurred_at), order_id, lot,
               guerdon.ms(available_at), guerdon.ms(expires_at), type::text, unit, debit::text, credit::text, rule_id,
               rule_version, campaign, item, reason
        FROM guerdon.reward_event
        WHERE generation = %(generation)s AND shard = %(shard)s AND pos >= %(first)s AND pos < %(end)s
          AND member_id = ANY(%(members)s)
        ORDER BY pos
        """,
        where,
    )

    rewards: dict[tuple[int, str], list[tuple[str, RewardEvent]]] = {}
    for seq, member_id, event_id, amount, key, occurred_ms, order_id, lot, available_ms, expires_ms, *said in cursor:
        posting = Posting(**dict(zip(_POSTING, said, strict=True)))
        times = (occurred_ms, order_id, None if lot is None else bytes(lot), available_ms, expires_ms)
        rewards.setdefault((seq, member_id), []).append((event_id, RewardEvent(posting, amount, bytes(key), *times)))
    return Copied(members, rewards, _order(cursor, where, sorted({seq for seq, _ in rewards})))


def _order(cursor: Cursor, where: dict[str, object], seqs: list[int]) -> dict[int, list[str]]:
    cursor.execute(
        """
        SELECT seq, array_agg(member_id ORDER BY pos) FROM (
            SELECT seq, member_id, min(pos) AS pos FROM guerdon.reward_event
            WHERE generation = %(generation)s AND shard = %(shard)s AND pos >= %(first)s AND pos < %(end)s
              AND seq = ANY(%(seqs)s)
            GROUP BY seq, member_id
        ) AS firsts GROUP BY seq
        """,
        {**where, "seqs": seqs},
    )
    return dict(cursor.fetchall())
