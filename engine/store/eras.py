"""Find the newest version of a row at once, of which a reader's old snapshot may keep any number (decision 0023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

FOREGONE = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan", "enable_material")
"""Ways to read a table that have no place where few rows are looked up by their keys.

The planner takes a table that was just analysed for as small as its live rows, knows nothing of the versions that a
snapshot keeps, and would gather all of a key's to sort them.
"""


def keep_to_keys(cursor: Cursor) -> None:
    """Let the session read tables by their indexes alone, in the order that a query asks for."""
    for way in FOREGONE:
        cursor.execute(f"SET {way} = off")


def newest(what: str, table: str, **key: str) -> str:
    """Return the SQL of a subquery: a column of the row of a table whose key has these values, NULL without a row.

    The key of such a table ends with `era`, which every 16th change of a row counts up. The index is read from the
    newest era on; whatever looks a row up without it walks past all versions there are.
    """
    where = " AND ".join(f"n.{column} = {value}" for column, value in key.items())
    return f"(SELECT n.{what} FROM {table} n WHERE {where} ORDER BY n.era DESC LIMIT 1)"


def hold(cursor: Cursor, table: str, rows: Sequence[tuple[str, int]]) -> None:
    """Hold rows of a table of budgets or stock, there or not, until the transaction ends: nobody else changes them.

    What is locked is a row that nobody ever changes: whoever waits for one that does could not find it again by its
    era. Everybody gives `rows`, names and periods, in their order.
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
