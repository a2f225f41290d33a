"""Project the members' balances: the sums of their accounts by unit, and when the active amount lapses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.eras import newest
from projections.gaps import is_folded
from schemas.rewards import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor


_NAMES = ", ".join(ACCOUNTS)
_SUMS = ", ".join(
    f"sum(CASE WHEN credit = '{account}' THEN amount WHEN debit = '{account}' THEN -amount ELSE 0 END) AS {account}"
    for account in ACCOUNTS
)
_ADDED = ", ".join(f"{account} = b.{account} + excluded.{account}" for account in ACCOUNTS)


_RANGE = """
    FROM projection_range r
    JOIN guerdon.reward_event e
      ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
    WHERE r.build = %(build)s AND e.debit IS NOT NULL
"""
_KEY = {"build": "%(build)s", "shard": "moved.shard", "member_id": "moved.member_id", "unit": "moved.unit"}
# a new row with the newest row's count of changes has that row's era, and so its key: the insert becomes an update of
# the newest row, which counts its changes up (decision 0023)
_CHANGES = newest("changes", "guerdon.member_balance", **_KEY)
_ERA = newest("era", "guerdon.member_expiry", **_KEY, expires_at="moved.expires_at")
_ACTIVE = "sum(CASE WHEN credit = 'active' THEN amount ELSE -amount END)"


def fold(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
    """Add the movements in `projection_range` to the balances of `build`, each member's in one update.

    Rows are written in the order of the primary key, so two processes that fold different shards never wait crosswise.
    Movements are first summed by their way, which is a pair of accounts. A member has few ways, so a row costs one sum
    instead of one for each account.
    """
    where = {"build": build, "generation": generation}
    if is_first:
        cursor.execute(_FILL, where)
        return
    cursor.execute(_ADD, where)
    if cursor.fetchone() == (True,):
        cursor.execute(_ADD_EXPIRY, where)


_FILL = f"""
WITH way AS MATERIALIZED (
    SELECT e.shard, e.member_id, e.unit, e.debit, e.credit, e.expires_at, sum(e.amount) AS amount {_RANGE}
    GROUP BY e.shard, e.member_id, e.unit, e.debit, e.credit, e.expires_at
), lapsing AS (
    INSERT INTO guerdon.member_expiry (build, shard, member_id, unit, expires_at, active)
    SELECT %(build)s, shard, member_id, unit, expires_at, {_ACTIVE} FROM way
    WHERE expires_at IS NOT NULL AND (credit = 'active' OR debit = 'active')
    GROUP BY shard, member_id, unit, expires_at HAVING {_ACTIVE} <> 0
    ORDER BY shard, member_id, unit, expires_at
)
INSERT INTO guerdon.member_balance (build, shard, member_id, unit, {_NAMES})
SELECT %(build)s, shard, member_id, unit, {_SUMS} FROM way
GROUP BY shard, member_id, unit ORDER BY shard, member_id, unit
"""
"""Fill both tables of a new build, and read the log once."""

_ADD = f"""
WITH way AS (
    SELECT e.shard, e.member_id, e.unit, e.debit, e.credit, sum(e.amount) AS amount,
           count(e.expires_at) AS lapsing {_RANGE}
    GROUP BY e.shard, e.member_id, e.unit, e.debit, e.credit
), moved AS MATERIALIZED (
    SELECT shard, member_id, unit, {_SUMS}, sum(lapsing) AS lapsing
    FROM way GROUP BY shard, member_id, unit ORDER BY shard, member_id, unit
), written AS (
    INSERT INTO guerdon.member_balance AS b (build, shard, member_id, unit, changes, {_NAMES})
    SELECT %(build)s, shard, member_id, unit, coalesce({_CHANGES}, 0), {_NAMES} FROM moved
    ON CONFLICT (build, shard, member_id, unit, era) DO UPDATE SET changes = b.changes + 1, {_ADDED}
)
SELECT coalesce(sum(lapsing), 0) > 0 FROM moved
"""
"""Add to balances, and return whether any movement has an expiry; if none has, `_ADD_EXPIRY` is not run."""

_ADD_EXPIRY = f"""
MERGE INTO guerdon.member_expiry x
USING (
    SELECT moved.*, {_ERA} AS era FROM (
        SELECT shard, member_id, unit, expires_at, {_ACTIVE} AS active FROM (
            SELECT e.shard, e.member_id, e.unit, e.expires_at, e.credit, e.amount {_RANGE}
            AND e.expires_at IS NOT NULL AND (e.credit = 'active' OR e.debit = 'active')
        ) lapsing
        GROUP BY shard, member_id, unit, expires_at HAVING {_ACTIVE} <> 0
        ORDER BY shard, member_id, unit, expires_at
    ) moved
) m
ON x.build = %(build)s AND x.shard = m.shard AND x.member_id = m.member_id AND x.unit = m.unit
   AND x.expires_at = m.expires_at AND x.era = m.era
WHEN MATCHED AND x.active + m.active = 0 THEN DELETE
WHEN MATCHED THEN UPDATE SET changes = x.changes + 1, active = x.active + m.active
WHEN NOT MATCHED THEN INSERT (build, shard, member_id, unit, expires_at, active)
     VALUES (%(build)s, m.shard, m.member_id, m.unit, m.expires_at, m.active)
"""
"""Add to the amounts by expiry; a row at 0 is deleted, or a reader would walk over everything that ever lapsed."""


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`; no view reads them."""
    cursor.execute("DELETE FROM guerdon.member_balance WHERE build = %s", (build,))
    cursor.execute("DELETE FROM guerdon.member_expiry WHERE build = %s", (build,))


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first balance that is not the sum of the log up to the cursor; None: all are."""
    cursor.execute(
        f"""
        SELECT member_id, unit, coalesce(b.sums, '{{}}'), coalesce(f.sums, '{{}}')
        FROM (
            SELECT shard, member_id, unit,
                   ARRAY[issued, pending, active, reserved, spent, expired, reversed, debt] AS sums
            FROM guerdon.member_balance WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)
        ) b
        FULL JOIN (
            SELECT m.shard, m.member_id, m.unit,
                   ARRAY[sum(m.issued), sum(m.pending), sum(m.active), sum(m.reserved),
                         sum(m.spent), sum(m.expired), sum(m.reversed), sum(m.debt)] AS sums
            FROM guerdon.movement m
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = m.shard AND m.pos <= c.pos
             AND coalesce(c.shard = ANY(%(shards)s), true)
            WHERE m.generation = %(generation)s AND {is_folded("m")}
            GROUP BY m.shard, m.member_id, m.unit
        ) f USING (shard, member_id, unit)
        WHERE b.sums IS DISTINCT FROM f.sums
        ORDER BY 1, 2 LIMIT 1
        """,
        {"build": build, "generation": generation, "shards": shards},
    )
    row = cursor.fetchone()
    if row is None:
        return _expiry_difference(cursor, build, generation, shards)

    member_id, unit, projected, folded = row
    return (
        f"member {member_id}, {unit}: the projection says {_accounts(projected)} and the log says {_accounts(folded)}; "
        "run `guerdon projection rebuild member_balance`"
    )


def _expiry_difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:
    """Return a sentence about the first amount by expiry that is not that of the log; None: all are."""
    cursor.execute(
        f"""
        SELECT member_id, unit, to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               coalesce(x.active, 0), coalesce(f.active, 0)
        FROM (SELECT * FROM guerdon.member_expiry WHERE build = %(build)s AND coalesce(shard = ANY(%(shards)s), true)) x
        FULL JOIN (
            SELECT m.shard, m.member_id, m.unit, m.expires_at, sum(m.active) AS active
            FROM guerdon.movement m
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = m.shard AND m.pos <= c.pos
             AND coalesce(c.shard = ANY(%(shards)s), true)
            WHERE m.generation = %(generation)s AND m.expires_at IS NOT NULL AND {is_folded("m")}
            GROUP BY m.shard, m.member_id, m.unit, m.expires_at HAVING sum(m.active) <> 0
        ) f USING (shard, member_id, unit, expires_at)
        WHERE x.active IS DISTINCT FROM f.active
        ORDER BY member_id, unit, expires_at LIMIT 1
        """,
        {"build": build, "generation": generation, "shards": shards},
    )
    row = cursor.fetchone()
    if row is None:
        return None

    member_id, unit, expires_at, projected, folded = row
    return (
        f"member {member_id}, {unit}: the projection says that {projected} lapse at {expires_at} and the log says "
        f"{folded}; run `guerdon projection rebuild member_balance`"
    )


def _accounts(sums: list[int]) -> str:
    """Return the accounts that are not 0 in words."""
    if not sums:
        return "nothing"
    return ", ".join(f"{account} {amount}" for account, amount in zip(ACCOUNTS, sums, strict=True) if amount)
