"""Project the members' balances: the sum over their accounts, per unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.rewards import ACCOUNTS

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name


def fold(cursor: Cursor, build: int, generation: int) -> None:
    """Add the movements in `projection_range` to the balances of `build`, each member's in one update.

    Rows are written in the order of the primary key, so two processes that fold different shards never wait crosswise.
    """
    cursor.execute(
        """
        INSERT INTO guerdon.member_balance AS b
            (build, shard, member_id, unit, issued, pending, active, reserved, spent, expired, reversed, debt)
        SELECT %(build)s, e.shard, e.member_id, e.unit, sum(e.issued), sum(e.pending), sum(e.active), sum(e.reserved),
               sum(e.spent), sum(e.expired), sum(e.reversed), sum(e.debt)
        FROM projection_range r
        JOIN guerdon.movement e
          ON e.generation = %(generation)s AND e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
        GROUP BY e.shard, e.member_id, e.unit
        ORDER BY e.shard, e.member_id, e.unit
        ON CONFLICT (build, shard, member_id, unit) DO UPDATE SET
            issued = b.issued + excluded.issued, pending = b.pending + excluded.pending,
            active = b.active + excluded.active, reserved = b.reserved + excluded.reserved,
            spent = b.spent + excluded.spent, expired = b.expired + excluded.expired,
            reversed = b.reversed + excluded.reversed, debt = b.debt + excluded.debt
        """,
        {"build": build, "generation": generation},
    )


def clear(cursor: Cursor, build: int) -> None:
    """Delete the rows of `build`, which no view reads."""
    cursor.execute("DELETE FROM guerdon.member_balance WHERE build = %s", (build,))


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
        return None
    member_id, unit, projected, folded = row
    return (
        f"member {member_id}, {unit}: the projection says {_accounts(projected)} and the log says {_accounts(folded)}; "
        "run `guerdon projection rebuild member_balance`"
    )


def _accounts(sums: list[int]) -> str:
    if not sums:
        return "nothing"
    return ", ".join(f"{account} {amount}" for account, amount in zip(ACCOUNTS, sums, strict=True) if amount)
