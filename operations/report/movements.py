"""Say in SQL what a movement of the reward log counts as in reports: earned, burned, expired, and what it leaves.

Each expression reads a row `e` of the log that moves an amount between two accounts, whatever its unit. The sums of
`EARNED` - `BURNED` - `EXPIRED` - `ERASED` over all rows are pending + active + reserved - debt.
"""

from __future__ import annotations

MOVES = """
    e.generation = %(generation)s AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s AND e.debit IS NOT NULL
"""
"""The condition that a row is a movement known at K, before the cut."""

EARNED = "CASE WHEN e.debit = 'issued' THEN e.amount WHEN e.credit = 'reversed' THEN -e.amount ELSE 0 END"
"""The amount that came, less every reversal: from a lot, from expired amounts, and into debt."""

BURNED = "CASE WHEN e.credit = 'spent' THEN e.amount WHEN e.debit = 'spent' THEN -e.amount ELSE 0 END"
"""The amount captured, less the amount restored."""

IS_ERASED = "(e.credit = 'expired' AND e.reason IS NOT DISTINCT FROM 'erased')"
"""Whether an amount lapsed as the member was erased: nobody let it lapse, so it is no breakage."""

EXPIRED = f"""
    CASE WHEN e.credit = 'expired' AND NOT {IS_ERASED} THEN e.amount WHEN e.debit = 'expired' THEN -e.amount ELSE 0 END
"""
"""The amount that lapsed, less reversals of it afterwards."""

ERASED = f"CASE WHEN {IS_ERASED} THEN e.amount ELSE 0 END"

IS_OPERATORS = "(e.credit = 'reversed' AND (e.reason = 'adjusted' OR starts_with(e.reason, 'generation_')))"
"""Whether an operator or a promotion took it back: no rule and no campaign did."""


def entered(account: str) -> str:
    """Return the SQL of what the account gained: below 0 where it lost."""
    return f"CASE WHEN e.credit = '{account}' THEN e.amount WHEN e.debit = '{account}' THEN -e.amount ELSE 0 END"


def left(account: str) -> str:
    """Return the SQL of what the account lost: below 0 where it gained."""
    return f"CASE WHEN e.debit = '{account}' THEN e.amount WHEN e.credit = '{account}' THEN -e.amount ELSE 0 END"
