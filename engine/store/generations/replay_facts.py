"""Read what a generation has decided across members, so that who repeats it need not decide it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.books import Redeemed
from engine.ledger.contests import Won
from engine.ledger.memory.budgets import Asking
from engine.member.state import LimitUse
from engine.store.campaigns.budgets import FACT
from engine.store.generations import live_generation, live_schedule
from engine.store.logs.history import History
from engine.store.logs.reward_log import first_pos
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation

HELD = "member_held"
"""The kind of a `generation_fact` that says from which event on a member is held."""


WON = "contest"
"""The kind of a `generation_fact` that says who has won a contest."""


class Facts(NamedTuple):
    """Hold what the base decided across members at some source events of one shard.

    `held` has (seq, member_id), `budgets` what was used where a budget stood in the way, `sold_out` the redemptions
    that found no stock, as (seq, event_id, reward), `won` the winners of contests that were closed at a seq. `redeemed`
    says what became of redemptions that are not decided again, by (shard, seq, event_id): `redeemed_by` has judged
    them, before `redeemed_upto`.
    """

    held: frozenset[tuple[int, str]] = frozenset()
    budgets: dict[Asking, LimitUse] = {}  # noqa: RUF012  never changed
    sold_out: frozenset[tuple[int, str, str]] = frozenset()
    won: dict[int, list[Won]] = {}  # noqa: RUF012  never changed
    redeemed: dict[tuple[int, int, str], Redeemed] = {}  # noqa: RUF012  never changed
    redeemed_by: int = 0
    redeemed_upto: int = 0


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
    sold_out = frozenset(cursor.fetchall())
    # what is older than the generation's turn was decided by another one, and honoured here; most have no such past
    other_upto = live_schedule.other_upto(cursor, base, shard)
    redeemed = read_redeemed(cursor, base, {shard: (after_seq, upto_seq)}, other_upto) if other_upto else Facts()
    return redeemed._replace(held=frozenset(held), budgets=budgets, sold_out=sold_out, won=won)


_REDEEMED = """
SELECT seq, event_id, coalesce(sum(amount) FILTER (WHERE type <> 'reward.refused'), 0)::bigint, max(reason)
FROM guerdon.reward_event
WHERE generation = %(generation)s AND shard = %(shard)s AND {which}
  AND (type IN ('points.reserved', 'cash.reserved') OR (type = 'reward.refused' AND rule_id IS NULL))
GROUP BY seq, event_id
"""


_LATER = """
SELECT DISTINCT r.seq FROM guerdon.generation_fact f
CROSS JOIN LATERAL (
    SELECT e.seq FROM guerdon.source_event e
    WHERE e.shard = f.shard AND e.seq > f.seq AND e.kind = 'release' AND e.member_id = f.fact->>'member_id'
    ORDER BY e.seq LIMIT 1
) r
WHERE f.generation = %(generation)s AND f.shard = %(shard)s AND f.kind = 'member_held' AND f.seq <= %(upto)s
  AND r.seq > %(upto)s
"""
"""Where members were released later of whom something waited by then."""


def read_redeemed(
    cursor: Cursor, generation: int, spans: Mapping[int, tuple[int, int]], upto_seq: int = INT64_MAX
) -> Facts:
    """Read what became of redemptions in a generation, of source events of each shard within (after, upto].

    What it has judged after `upto_seq` is its own decision, which nobody is to repeat.
    """
    found: dict[tuple[int, int, str], Redeemed] = {}
    for shard, (after, upto) in spans.items():
        cursor.execute(_LATER, {"generation": generation, "shard": shard, "upto": upto})
        later = [(seq - 1, seq) for (seq,) in cursor.fetchall() if seq <= upto_seq]
        for after_seq, last_seq in [(after, min(upto, upto_seq)), *later]:
            if after_seq < last_seq:
                where = {
                    "first": first_pos(cursor, generation, shard, after_seq + 1),
                    "end": first_pos(cursor, generation, shard, last_seq + 1),
                }
                redeemed = _redeemed(cursor, generation, shard, "pos >= %(first)s AND pos < %(end)s", where)
                found |= {(shard, *place): each for place, each in redeemed.items()}
    return Facts(redeemed=found, redeemed_by=generation, redeemed_upto=upto_seq)


def redeemed_by(cursor: Cursor, generation: int, shard: int, member_id: str) -> dict[tuple[int, str], Redeemed]:
    """Read what became of a member's redemptions in a generation, by event_id and the seq of each or of its release."""
    return _redeemed(cursor, generation, shard, "member_id = %(member)s", {"member": member_id})


def _redeemed(
    cursor: Cursor, generation: int, shard: int, which: str, where: Mapping[str, object]
) -> dict[tuple[int, str], Redeemed]:
    """Return what became of redemptions, by their own places and by the releases that judged some of them.

    The version is that of their own place, by what was live then.
    """
    cursor.execute(_REDEEMED.format(which=which), {"generation": generation, "shard": shard, **where})
    rows = cursor.fetchall()
    if not rows:
        return {}
    schedule = live_schedule.of(cursor, live_generation.live(cursor), shard)
    cursor.execute(
        "SELECT seq FROM guerdon.source_event WHERE shard = %s AND seq = ANY(%s) AND kind = 'release'",
        (shard, [seq for seq, *_ in rows]),
    )
    releases = {seq for (seq,) in cursor.fetchall()}
    history = History(cursor, bare=True)
    found = {}
    for judged_seq, event_id, amount, reason in rows:
        seq = history.seq_of(shard, judged_seq, event_id) if judged_seq in releases else judged_seq
        version = live_generation.version_in(schedule, seq)
        found[seq, event_id] = found[judged_seq, event_id] = Redeemed(amount, None if amount else reason, version)
    return found


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
