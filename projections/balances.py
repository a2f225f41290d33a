"""Project the members' balances: the sum over their accounts, per unit, and how much of it lapses when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.rewards import ACCOUNTS

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name


def fold(cursor: Cursor, build: int, generation: int) -> None:
    """Add the movements in `projection_range` to the balances of `build`, each member's in one update.

    Rows are written in the order of the primary key, so two processes that fold different shards never wait crosswise.
    What lapses is folded only where a movement of the range is one of points that do: the others pay nothing for it.
    """
    where = {"build": build, "generation": generation}
    cursor.execute(
        """
        WITH moved AS MATERIALIZED (
            SELECT e.shard, e.member_id, e.unit, sum(e.issued) AS issued, sum(e.pending) AS pending,
                   sum(e.active) AS active, sum(e.reserved) AS reserved, sum(e.spent) AS spent,
                   sum(e.expired) AS expired, sum(e.reversed) AS reversed, sum(e.debt) AS debt,
                   count(e.expires_at) AS lapsing
            FROM projection_range r
            JOIN guerdon.movement e
              ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
            WHERE r.build = %(build)s
            GROUP BY e.shard, e.member_id, e.unit
            ORDER BY e.shard, e.member_id, e.unit
        ), written AS (
            INSERT INTO guerdon.member_balance AS b
                (build, shard, member_id, unit, issued, pending, active, reserved, spent, expired, reversed, debt)
            SELECT %(build)s, shard, member_id, unit, issued, pending, active, reserved, spent, expired, reversed, debt
            FROM moved
            ON CONFLICT (build, shard, member_id, unit) DO UPDATE SET
                issued = b.issued + excluded.issued, pending = b.pending + excluded.pending,
                active = b.active + excluded.active, reserved = b.reserved + excluded.reserved,
                spent = b.spent + excluded.spent, expired = b.expired + excluded.expired,
                reversed = b.reversed + excluded.reversed, debt = b.debt + excluded.debt
        )
        SELECT coalesce(sum(lapsing), 0) > 0 FROM moved
        """,
        where,
    )
    if cursor.fetchone() == (True,):
        _fold_expiry(cursor, where)


def _fold_expiry(cursor: Cursor, where: dict[str, int]) -> None:
    """Add to how much lapses when; what falls to 0 is deleted, or a reader would walk over all that ever lapsed."""
    cursor.execute(
        """
        MERGE INTO guerdon.member_expiry x
        USING (
            SELECT e.shard, e.member_id, e.unit, e.expires_at, sum(e.active) AS active
            FROM projection_range r
            JOIN guerdon.movement e
              ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
            WHERE r.build = %(build)s AND e.expires_at IS NOT NULL
            GROUP BY e.shard, e.member_id, e.unit, e.expires_at HAVING sum(e.active) <> 0
            ORDER BY e.shard, e.member_id, e.unit, e.expires_at
        ) m
        ON x.build = %(build)s AND x.shard = m.shard AND x.member_id = m.member_id AND x.unit = m.unit
           AND x.expires_at = m.expires_at
        WHEN MATCHED AND x.active + m.active = 0 THEN DELETE
        WHEN MATCHED THEN UPDATE SET active = x.active + m.active
        WHEN NOT MATCHED THEN INSERT (build, shard, member_id, unit, expires_at, active)
             VALUES (%(build)s, m.shard, m.member_id, m.unit, m.expires_at, m.active)
        """,
        where,
    )


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`, which no view reads."""
    cursor.execute("DELETE FROM guerdon.member_balance WHERE build = %s", (build,))
    cursor.execute("DELETE FROM guerdon.member_expiry WHERE build = %s", (build,))


def difference(cursor: Cursor, build: int, generation: int) -> str | None:
    """Return the first balance that is not the sum of the log up to the cursor, in a sentence; None where all are."""
    cursor.execute(
        """
        SELECT member_id, unit, coalesce(b.sums, '{}'), coalesce(f.sums, '{}')
        FROM (
            SELECT shard, member_id, unit,
                   ARRAY[issued, pending, active, reserved, spent, expired, reversed, debt] AS sums
            FROM guerdon.member_balance WHERE build = %(build)s
        ) b
        FULL JOIN (
            SELECT m.shard, m.member_id, m.unit,
                   ARRAY[sum(m.issued), sum(m.pending), sum(m.active), sum(m.reserved),
                         sum(m.spent), sum(m.expired), sum(m.reversed), sum(m.debt)] AS sums
            FROM guerdon.movement m
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = m.shard AND m.pos <= c.pos
            WHERE m.generation = %(generation)s
            GROUP BY m.shard, m.member_id, m.unit
        ) f USING (shard, member_id, unit)
        WHERE b.sums IS DISTINCT FROM f.sums
        ORDER BY 1, 2 LIMIT 1
        """,
        {"build": build, "generation": generation},
    )
    row = cursor.fetchone()
    if row is None:
        return _expiry_difference(cursor, build, generation)
    member_id, unit, projected, folded = row
    return (
        f"member {member_id}, {unit}: the projection says {_accounts(projected)} and the log says {_accounts(folded)}; "
        "run `guerdon projection rebuild member_balance`"
    )


def _expiry_difference(cursor: Cursor, build: int, generation: int) -> str | None:
    cursor.execute(
        """
        SELECT member_id, unit, to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               coalesce(x.active, 0), coalesce(f.active, 0)
        FROM (SELECT * FROM guerdon.member_expiry WHERE build = %(build)s) x
        FULL JOIN (
            SELECT m.shard, m.member_id, m.unit, m.expires_at, sum(m.active) AS active
            FROM guerdon.movement m
            JOIN guerdon.projection_cursor c ON c.build = %(build)s AND c.shard = m.shard AND m.pos <= c.pos
            WHERE m.generation = %(generation)s AND m.expires_at IS NOT NULL
            GROUP BY m.shard, m.member_id, m.unit, m.expires_at HAVING sum(m.active) <> 0
        ) f USING (shard, member_id, unit, expires_at)
        WHERE x.active IS DISTINCT FROM f.active
        ORDER BY member_id, unit, expires_at LIMIT 1
        """,
        {"build": build, "generation": generation},
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
    if not sums:
        return "nothing"
    return ", ".join(f"{account} {amount}" for account, amount in zip(ACCOUNTS, sums, strict=True) if amount)
