"""Read the movements of points that a report counts, and name each by what it does to a member's account.

These are texts of SQL: a report puts them into the queries of its cells, whose parameters are the frame's.
"""

from __future__ import annotations

_WAY = """
       CASE WHEN e.debit = 'issued' AND e.type = 'points.granted' THEN 'granted'
            WHEN e.debit = 'issued' AND e.reason IN ('honoured', 'opening') THEN e.reason
            WHEN e.debit = 'issued' THEN 'adjusted'
            WHEN e.credit = 'spent' THEN 'captured'
            WHEN e.debit = 'spent' THEN 'restored'
            WHEN e.credit = 'expired' AND e.reason = 'erased' THEN 'erased'
            WHEN e.credit = 'expired' THEN 'expired'
            WHEN e.credit = 'debt' THEN 'settled'
            WHEN e.debit = 'expired' THEN 'reversed_from_expired'
            WHEN e.debit = 'debt' THEN 'reversed_to_debt'
            WHEN e.credit = 'reversed' THEN 'reversed_from_lots'
       END AS way,
       e.credit = 'reversed' AND (e.reason = 'adjusted' OR e.reason LIKE 'generation\\_%%') IS TRUE AS is_by_hand,
       CASE WHEN e.credit IN ('pending', 'active', 'reserved') THEN e.amount ELSE 0 END
       - CASE WHEN e.debit IN ('pending', 'active', 'reserved') THEN e.amount ELSE 0 END AS outstanding,
       CASE WHEN e.debit = 'debt' THEN e.amount WHEN e.credit = 'debt' THEN -e.amount ELSE 0 END AS debt
"""

_KNOWN = """
WHERE e.generation = %(generation)s AND e.unit = %(unit)s AND e.debit IS NOT NULL
  AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
"""

MOVEMENTS = f"""
SELECT e.shard, e.pos, coalesce(e.lot, e.reward_key) AS lot, e.member_id, e.occurred_at, e.recorded_at, e.expires_at,
       e.amount, e.debit, e.credit, {_WAY}
FROM guerdon.reward_event e {_KNOWN}
"""
"""Every movement of points before the cut that is known.

`way` is the row of the roll-forward; NULL for movements between pending, active and reserved, which change no sum.
`outstanding` and `debt` are what the movement adds to either, read from the accounts alone.
"""


def movements_of_days(rewards: str) -> str:
    """Return the SQL of the movements of a table of rewards, where a row may stand for many of a day."""
    return f"SELECT e.occurred_at, e.recorded_at, e.amount, {_WAY} FROM {rewards} e {_KNOWN}"
