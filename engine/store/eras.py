"""Find the newest version of a row at once, however many old versions a reader's snapshot keeps (decision 0023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

FOREGONE = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan", "enable_material")
"""Ways to read a table that do not suit a look-up of few rows by their keys.

The planner takes a table that was just analysed for as small as its live rows. It knows nothing of the old versions
that a snapshot keeps, and would gather all versions of a key to sort them.
"""


def keep_to_keys(cursor: Cursor) -> None:
    """Make the session read tables by their indexes alone, in the order that a query asks for."""
    for way in FOREGONE:
        cursor.execute(f"SET {way} = off")


def newest(what: str, table: str, **key: str) -> str:
    """Return the SQL of a subquery: one column of the row with this key, NULL where there is no row.

    The key of such a table ends with `era`, which every 16th change of a row counts up. The subquery reads the index
    from the newest era on; a look-up without the era would walk past all versions of the row.
    """
    where = " AND ".join(f"n.{column} = {value}" for column, value in key.items())
    return f"(SELECT n.{what} FROM {table} n WHERE {where} ORDER BY n.era DESC LIMIT 1)"


def hold(cursor: Cursor, table: str, rows: Sequence[tuple[str, int]]) -> None:
    """Lock rows of a table of budgets or stock, existing or not, until the transaction ends.

    The lock lies on a row of `use_lock`, which nobody ever changes: a waiter for a row that changes could not find it
    again by its era. Every caller passes `rows`, pairs of name and period, in ascending order.
    """
    if not rows:
        return

    wanted = {"of": table, "names": [name for name, _ in rows], "periods": [period for _, period in rows]}
    cursor.execute(
        """
        INSERT INTO guerdon.use_lock (of, name, period)
        SELECT %(of)s, w.name, w.period FROM unnest(%(names)s::text[], %(periods)s::bigint[]) AS w (name, period)
        ON CONFLICT DO NOTHING
        """,
        wanted,
    )

    cursor.execute(
        """
        SELECT FROM guerdon.use_lock
        WHERE of = %(of)s AND (name, period) IN (SELECT * FROM unnest(%(names)s::text[], %(periods)s::bigint[]))
        ORDER BY name, period FOR UPDATE
        """,
        wanted,
    )
