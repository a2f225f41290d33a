"""Project the reward events about referrals, and the rewards of referrers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.eras import newest
from projections.differences import sentence
from projections.gaps import is_folded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

_TYPES = "('referral.attributed', 'referral.qualified', 'referral.rejected', 'referral.voided')"
_EARNED = """
    SELECT e.shard, e.member_id, e.unit,
           sum(CASE WHEN e.debit = 'issued' THEN e.amount ELSE -e.amount END) AS amount
"""
_ADD = """
        ON CONFLICT (build, shard, member_id, unit, era) DO UPDATE
        SET changes = p.changes + 1, amount = p.amount + excluded.amount
"""
_CHANGES = newest(
    "changes", "guerdon.referrer_earning", build="%(build)s", shard="f.shard", member_id="f.member_id", unit="f.unit"
)
_FORWARDED = """
    e.debit IS NOT NULL AND starts_with(e.event_id, 'forwarded:') AND (e.debit = 'issued' OR e.credit = 'reversed')
    AND EXISTS (
        SELECT FROM guerdon.source_event s WHERE s.shard = e.shard AND s.seq = e.seq AND s.kind = 'forwarded'
    )
"""


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Append the events about referrals in `projection_range` to `build`, and add up the rewards of referrers.

    A referral has events of two members in two shards; the view puts them together.
    """
    cursor.execute(
        f"""
        INSERT INTO guerdon.referral_change (build, shard, pos, seq, type, member_id, item, reason, occurred_at, day)
        SELECT %(build)s, e.shard, e.pos, e.seq, e.type::text, e.member_id, e.item, e.reason, e.occurred_at,
               (e.occurred_at AT TIME ZONE v.timezone)::date
        FROM projection_range r
        JOIN guerdon.reward_event e
          ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
        JOIN guerdon.programme_version v ON v.version = e.rule_version
        WHERE r.build = %(build)s AND e.type IN {_TYPES}
        """,
        {"build": build, "generation": generation},
    )

    add, changes = ("", "0") if is_first else (_ADD, f"coalesce({_CHANGES}, 0)")
    cursor.execute(
        f"""
        INSERT INTO guerdon.referrer_earning AS p (build, shard, member_id, unit, amount, changes)
        SELECT %(build)s, f.*, {changes} FROM (
            {_EARNED}
            FROM projection_range r
            JOIN guerdon.reward_event e
              ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
            WHERE r.build = %(build)s AND {_FORWARDED}
            GROUP BY e.shard, e.member_id, e.unit ORDER BY e.shard, e.member_id, e.unit
        ) f
        {add}
        """,
        {"build": build, "generation": generation},
    )


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no view reads them."""
    cursor.execute("DELETE FROM guerdon.referral_change WHERE build = %s", (build,))
    cursor.execute("DELETE FROM guerdon.referrer_earning WHERE build = %s", (build,))


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first member whose referrals are not as the log up to the cursor says, or None."""
    cursor.execute(
        f"""
        WITH projected AS (
            SELECT member_id, concat_ws(' ', type, item, reason, occurred_at) AS line
            FROM guerdon.referral_change WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)
            UNION ALL
            SELECT member_id, concat_ws(' ', unit, amount) FROM guerdon.referrer_earning
            WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true) AND amount <> 0
        ), logged AS (
            SELECT e.member_id, concat_ws(' ', e.type, e.item, e.reason, e.occurred_at) AS line
            FROM guerdon.reward_event e
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
             AND coalesce(c.shard = ANY(%(shards)s), true)
            WHERE e.generation = %(generation)s AND e.type IN {_TYPES} AND {is_folded("e")}
            UNION ALL
            SELECT member_id, concat_ws(' ', unit, amount) FROM (
                {_EARNED}
                FROM guerdon.reward_event e
                JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = e.shard AND e.pos <= c.pos
                 AND coalesce(c.shard = ANY(%(shards)s), true)
                WHERE e.generation = %(generation)s AND {_FORWARDED} AND {is_folded("e")}
                GROUP BY e.shard, e.member_id, e.unit
            ) f WHERE amount <> 0
        )
        SELECT coalesce(p.member_id, f.member_id), p.line, f.line
        FROM (SELECT member_id, line, row_number() OVER (PARTITION BY member_id, line) AS n FROM projected) p
        FULL JOIN (SELECT member_id, line, row_number() OVER (PARTITION BY member_id, line) AS n FROM logged) f
          USING (member_id, line, n)
        WHERE p.line IS NULL OR f.line IS NULL ORDER BY 1, 2, 3 LIMIT 1
        """,
        {"build": build, "generation": generation, "shards": shards},
    )
    row = cursor.fetchone()
    if row is None:
        return None

    member_id, projected, folded = row
    return sentence(f"member {member_id}, referral", projected, folded, "referral")
