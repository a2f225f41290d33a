"""Read the decisions of a generation across members, so that a repetition need not decide them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.books import Redeemed
from engine.ledger.contests import Won
from engine.store.campaigns.budgets import FACT, cut_award
from engine.store.generations import live_generation, live_schedule
from engine.store.logs.history import History
from engine.store.logs.reward_log import first_pos
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.ledger.memory.budgets import Asking
    from engine.member.state import LimitUse
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation

HELD = "member_held"
"""The kind of a `generation_fact` that names the event from which on a member is suspended."""

WON = "contest"
"""The kind of a `generation_fact` that names a winner of a contest."""


class Facts(NamedTuple):
    """Hold the decisions of a base across members at some source events of one shard."""

    held: frozenset[tuple[int, str]] = frozenset()
    """Where members were suspended, as (seq, member_id)."""

    budgets: dict[Asking, LimitUse] = {}  # noqa: RUF012  never changed
    """The awards that a budget has cut, and its use then."""

    sold_out: frozenset[tuple[int, str, str]] = frozenset()
    """The redemptions that were refused for want of stock, as (seq, event_id, reward)."""

    won: dict[int, list[Won]] = {}  # noqa: RUF012  never changed
    """The winners of contests, by the seq of the closing."""

    redeemed: dict[tuple[int, int, str], Redeemed] = {}  # noqa: RUF012  never changed
    """The outcomes of redemptions that are not decided again, by (shard, seq, event_id)."""

    redeemed_by: int = 0
    """The generation that has judged these redemptions."""

    redeemed_upto: int = 0
    """The last seq whose redemptions are not decided again."""


def read_facts(cursor: Cursor, base: int, shard: int, after_seq: int, upto_seq: int) -> Facts:
    """Read the facts of source events after `after_seq` up to `upto_seq`."""
    where = {"g": base, "shard": shard, "after": after_seq, "upto": upto_seq}
    where |= {
        "first": first_pos(cursor, base, shard, after_seq + 1),
        "end": first_pos(cursor, base, shard, upto_seq + 1),
    }

    # suspensions, cut awards and winners are recorded as facts
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
            asking, use = cut_award(fact)
            budgets[asking] = use
        elif kind == WON:
            won.setdefault(seq, []).append(Won(**fact))

    # refusals for want of stock stand in the log
    cursor.execute(
        """
        SELECT seq, event_id, item FROM guerdon.reward_event
        WHERE generation = %(g)s AND shard = %(shard)s AND item IS NOT NULL AND debit IS NULL
          AND type = 'reward.refused' AND reason = 'out_of_stock' AND pos >= %(first)s AND pos < %(end)s
        """,
        where,
    )
    sold_out = frozenset(cursor.fetchall())

    # redemptions before the base was live were decided by another generation, and honoured; most bases have none
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
"""Redemptions, their reserved amounts, and why they were refused."""

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
"""The next releases of members who were suspended at a seq: their events up to it are judged at the release."""


def read_redeemed(
    cursor: Cursor, generation: int, spans: Mapping[int, tuple[int, int]], upto_seq: int = INT64_MAX
) -> Facts:
    """Read the outcomes of redemptions in a generation, for source events of each shard within (after, upto].

    Redemptions that it has judged after `upto_seq` are left out: those are to be decided again.
    """
    outcomes: dict[tuple[int, int, str], Redeemed] = {}
    for shard, (after, upto) in spans.items():
        cursor.execute(_LATER, {"generation": generation, "shard": shard, "upto": upto})
        releases = [(seq - 1, seq) for (seq,) in cursor.fetchall() if seq <= upto_seq]
        for after_seq, last_seq in [(after, min(upto, upto_seq)), *releases]:
            if after_seq < last_seq:
                where = {
                    "first": first_pos(cursor, generation, shard, after_seq + 1),
                    "end": first_pos(cursor, generation, shard, last_seq + 1),
                }
                redeemed = _redeemed(cursor, generation, shard, "pos >= %(first)s AND pos < %(end)s", where)
                outcomes |= {(shard, *place): each for place, each in redeemed.items()}
    return Facts(redeemed=outcomes, redeemed_by=generation, redeemed_upto=upto_seq)


def redeemed_by(cursor: Cursor, generation: int, shard: int, member_id: str) -> dict[tuple[int, str], Redeemed]:
    """Read the outcomes of a member's redemptions, by (seq, event_id) of the event and of its release."""
    return _redeemed(cursor, generation, shard, "member_id = %(member)s", {"member": member_id})


def _redeemed(
    cursor: Cursor, generation: int, shard: int, which: str, where: Mapping[str, object]
) -> dict[tuple[int, str], Redeemed]:
    """Return the outcomes of redemptions, by their own places and by the releases at which some were judged.

    The version is the one that was live at a redemption's own place.
    """
    cursor.execute(_REDEEMED.format(which=which), {"generation": generation, "shard": shard, **where})
    rows = cursor.fetchall()
    if not rows:
        return {}

    # find the rows that belong to a release
    schedule = live_schedule.of(cursor, live_generation.live(cursor), shard)
    cursor.execute(
        "SELECT seq FROM guerdon.source_event WHERE shard = %s AND seq = ANY(%s) AND kind = 'release'",
        (shard, [seq for seq, *_ in rows]),
    )
    releases = {seq for (seq,) in cursor.fetchall()}

    # under both places: a fold may ask by the one or by the other
    history = History(cursor, bare=True)
    outcomes = {}
    for judged_seq, event_id, amount, reason in rows:
        seq = history.seq_of(shard, judged_seq, event_id) if judged_seq in releases else judged_seq
        version = live_generation.version_in(schedule, seq)
        outcome = Redeemed(amount, None if amount else reason, version)
        outcomes[seq, event_id] = outcomes[judged_seq, event_id] = outcome
    return outcomes


def copy_facts(cursor: Cursor, generation: Generation, shard: int, after_seq: int, upto_seq: int) -> None:
    """Copy to a repetition the facts of its base about these source events."""
    cursor.execute(
        """
        INSERT INTO guerdon.generation_fact (generation, shard, seq, n, kind, fact)
        SELECT %s, shard, seq, n, kind, fact FROM guerdon.generation_fact
        WHERE generation = %s AND shard = %s AND seq > %s AND seq <= %s
        """,
        (generation.number, generation.base, shard, after_seq, upto_seq),
    )
