"""Read what a generation has decided across members, so that who repeats it need not decide it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.contests import Won
from engine.ledger.memory_budgets import Asking
from engine.state import LimitUse
from engine.store.budgets import FACT
from engine.store.reward_log import first_pos

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from engine.store.shadows import Generation

HELD = "member_held"
"""The kind of a `generation_fact` that says from which event on a member is held."""


WON = "contest"
"""The kind of a `generation_fact` that says who has won a contest."""


class Facts(NamedTuple):
    """Hold what the base decided across members at some source events of one shard.

    `held` has (seq, member_id), `budgets` what was used where a budget stood in the way, `sold_out` the redemptions
    that found no stock, as (seq, event_id, reward), `won` the winners of contests that were closed at a seq.
    """

    held: frozenset[tuple[int, str]] = frozenset()
    budgets: dict[Asking, LimitUse] = {}  # noqa: RUF012  never changed
    sold_out: frozenset[tuple[int, str, str]] = frozenset()
    won: dict[int, list[Won]] = {}  # noqa: RUF012  never changed


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
