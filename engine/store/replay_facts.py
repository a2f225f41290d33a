"""Read what a generation has decided across members, so that who repeats it need not decide it again."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.contests import Won
from engine.ledger.memory_budgets import Asking
from engine.ledger.parts import Redeemed
from engine.state import LimitUse
from engine.store import generations
from engine.store.budgets import FACT
from engine.store.reward_log import first_pos

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from engine.store.shadows import Generation

HELD = "member_held"
"""The kind of a `generation_fact` that says from which event on a member is held."""


WON = "contest"
"""The kind of a `generation_fact` that says who has won a contest."""


class Facts(NamedTuple):
    """Hold what the base decided across members at some source events of one shard.

    `held` has (seq, member_id), `budgets` what was used where a budget stood in the way, `sold_out` the redemptions
    that found no stock, as (seq, event_id, reward), `won` the winners of contests that were closed at a seq. `redeemed`
    is for generations that decide for themselves: what became of redemptions, by (shard, seq, event_id).
    """

    held: frozenset[tuple[int, str]] = frozenset()
    budgets: dict[Asking, LimitUse] = {}  # noqa: RUF012  never changed
    sold_out: frozenset[tuple[int, str, str]] = frozenset()
    won: dict[int, list[Won]] = {}  # noqa: RUF012  never changed
    redeemed: dict[tuple[int, int, str], Redeemed] = {}  # noqa: RUF012  never changed


def read_facts(cursor: Cursor, base: int, shard: int, after_seq: int, upto_seq: int) -> Facts:
    """Read the facts of source events after `after_seq` up to `upto_seq`; of stock, the log itself tells."""
    where = {"g": base, "shard": shard, "after": after_seq, "upto": upto_seq}
    where |= {
        "first": first_pos(cursor, base, shard, after_seq + 1),
        "end": first_pos(cursor, base, shard, upto_seq + 1),
    }
    cursor.execute(
        """
        SELECT seq, kind, fact FROM guerdon.generation_fact
        WHERE generation = %(g)s AND shard = %(shard)s AND seq > %(after)s AND seq <= %(upto)s ORDER BY seq, n
        """,
        where,
    )
    held: set[tuple[int, str]] = set()
    budgets: dict[Asking, LimitUse] = {}
    won: dict[int, list[Won]] = {}
    for seq, kind, fact in cursor.fetchall():
        if kind == HELD:
            held.add((seq, fact["member_id"]))
        elif kind == FACT:
            asking = Asking(bytes.fromhex(fact["event"]), fact["rule"], fact["budget"], fact["period"], fact["weighed"])
            budgets[asking] = LimitUse(fact["period"], fact["amount"], fact["times"])
        elif kind == WON:
            won.setdefault(seq, []).append(Won(**fact))
    cursor.execute(
        """
        SELECT seq, event_id, item FROM guerdon.reward_event
        WHERE generation = %(g)s AND shard = %(shard)s AND item IS NOT NULL AND debit IS NULL
          AND type = 'reward.refused' AND reason = 'out_of_stock' AND pos >= %(first)s AND pos < %(end)s
        """,
        where,
    )
    return Facts(frozenset(held), budgets, frozenset(cursor.fetchall()), won)


_REDEEMED = """
SELECT seq, event_id, coalesce(sum(amount) FILTER (WHERE type <> 'reward.refused'), 0)::bigint, max(reason)
FROM guerdon.reward_event
WHERE generation = %(generation)s AND shard = %(shard)s AND {which}
  AND (type IN ('points.reserved', 'cash.reserved') OR (type = 'reward.refused' AND rule_id IS NULL))
GROUP BY seq, event_id
"""


def read_redeemed(cursor: Cursor, live: int, spans: Mapping[int, tuple[int, int]]) -> Facts:
    """Read what became of redemptions in the live generation, from source events of each shard within (after, upto]."""
    found: dict[tuple[int, int, str], Redeemed] = {}
    for shard, (after_seq, upto_seq) in spans.items():
        where = {
            "first": first_pos(cursor, live, shard, after_seq + 1),
            "end": first_pos(cursor, live, shard, upto_seq + 1),
        }
        redeemed = _redeemed(cursor, live, shard, "pos >= %(first)s AND pos < %(end)s", where)
        found |= {(shard, *place): each for place, each in redeemed.items()}
    return Facts(redeemed=found)


def redeemed_by(cursor: Cursor, generation: int, shard: int, member_id: str) -> dict[tuple[int, str], Redeemed]:
    """Read what became of a member's redemptions in a generation, by (seq, event_id)."""
    return _redeemed(cursor, generation, shard, "member_id = %(member)s", {"member": member_id})


def _redeemed(
    cursor: Cursor, generation: int, shard: int, which: str, where: Mapping[str, object]
) -> dict[tuple[int, str], Redeemed]:
    schedule = generations.schedule(cursor, generation, shard)
    cursor.execute(_REDEEMED.format(which=which), {"generation": generation, "shard": shard, **where})
    return {
        (seq, event_id): Redeemed(amount, None if amount else reason, version_in(schedule, seq))
        for seq, event_id, amount, reason in cursor.fetchall()
    }


def copy_facts(cursor: Cursor, generation: Generation, shard: int, after_seq: int, upto_seq: int) -> None:
    """Let a repetition have its base's facts of these source events as its own."""
    cursor.execute(
        """
        INSERT INTO guerdon.generation_fact (generation, shard, seq, n, kind, fact)
        SELECT %s, shard, seq, n, kind, fact FROM guerdon.generation_fact
        WHERE generation = %s AND shard = %s AND seq > %s AND seq <= %s
        """,
        (generation.number, generation.base, shard, after_seq, upto_seq),
    )


def version_in(schedule: list[tuple[int, int]], seq: int) -> int:
    """Return which version judges the source event at `seq`, by (from_seq, version) pairs; 0 before the first."""
    index = bisect_left(schedule, (seq, 0)) - 1
    return 0 if index < 0 else schedule[index][1]
