"""Write what a fold says: rows by COPY, rows of earlier folds replaced, members changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.logs.binary_copy import copy_rows, pack_bigint
from projections.facts import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.store.cursor import Cursor
    from projections.facts.fold import Fold, Place
    from projections.facts.members import Member

_CHANGE = f"fact_member_change ({', '.join(rows.MEMBER.columns)}, era)"
_NEW = f"guerdon.fact_member ({', '.join(rows.MEMBER.columns)}, changes)"
_FIRST_CHANGE = pack_bigint(0)


def write(cursor: Cursor, build: int, fold: Fold, first_seqs: Mapping[int, int]) -> None:
    """Write the rows of a fold of `build`.

    Args:
        cursor: in the transaction that holds the build's cursors.
        build: the rows are of.
        fold: what to write.
        first_seqs: by shard, the first seq of the fold: earlier ones are of earlier folds.
    """
    # a row of an earlier fold is replaced as a whole
    orders, refunds = fold.replaced(first_seqs)
    if orders:
        _delete(cursor, "guerdon.fact_purchase", build, orders)
        _delete(cursor, "guerdon.fact_purchase_line", build, orders)
    if refunds:
        _delete(cursor, "guerdon.fact_refund", build, refunds)

    for table, written in fold.rows().items():
        if written:
            copy_rows(cursor, rows.target(cursor, table), written)
    _write_members(cursor, build, fold.members)


def _delete(cursor: Cursor, table: str, build: int, places: Sequence[Place]) -> None:
    cursor.execute(
        f"""
        DELETE FROM {table} WHERE ctid = ANY(ARRAY(
            SELECT f.ctid FROM unnest(%s::smallint[], %s::bigint[]) AS w (shard, seq) CROSS JOIN LATERAL (
                SELECT n.ctid FROM {table} n WHERE n.build = %s AND n.shard = w.shard AND n.seq = w.seq OFFSET 0
            ) f
        ))
        """,
        ([shard for shard, _ in places], [seq for _, seq in places], build),
    )


def _write_members(cursor: Cursor, build: int, members: Iterable[Member]) -> None:
    """Add the rows of new members, and change those of others where something has changed."""
    new: list[bytes] = []
    changed: list[bytes] = []
    for member in members:
        fields = rows.member_fields(build, member)
        if member.era is None:
            new.append(_FIELDS + fields + _FIRST_CHANGE)
        else:
            changed.append(_FIELDS + fields + pack_bigint(member.era))
    if new:
        copy_rows(cursor, _NEW, new)
    if changed:
        cursor.execute(_CHANGES)
        copy_rows(cursor, _CHANGE, changed)
        cursor.execute(_APPLY)


_FIELDS = (len(rows.MEMBER.columns) + 1).to_bytes(2)

_CHANGES = """
CREATE TEMPORARY TABLE IF NOT EXISTS fact_member_change (
    first_seq bigint, first_event_at timestamptz, first_recorded_at timestamptz, joined_at timestamptz,
    first_order_at timestamptz, last_order_at timestamptz, erased_at timestamptz, net numeric, gross numeric,
    era bigint, build integer, orders integer, waiting integer, shard smallint, member_id text COLLATE "C",
    joined_channel text, rolled bytea
) ON COMMIT DELETE ROWS;
DELETE FROM fact_member_change
"""

# A row that says what it said before gets no new version.
_APPLY = """
UPDATE guerdon.fact_member m SET
    first_event_at = least(m.first_event_at, c.first_event_at),
    joined_at      = coalesce(m.joined_at, c.joined_at),
    joined_channel = CASE WHEN m.joined_at IS NULL THEN c.joined_channel ELSE m.joined_channel END,
    first_order_at = least(m.first_order_at, c.first_order_at),
    last_order_at  = greatest(m.last_order_at, c.last_order_at),
    erased_at      = coalesce(m.erased_at, c.erased_at),
    orders = m.orders + c.orders, waiting = m.waiting + c.waiting, net = m.net + c.net, gross = m.gross + c.gross,
    rolled = c.rolled, changes = m.changes + 1
FROM fact_member_change c CROSS JOIN LATERAL (
    SELECT n.ctid FROM guerdon.fact_member n
    WHERE n.build = c.build AND n.shard = c.shard AND n.member_id = c.member_id AND n.era = c.era OFFSET 0
) f
WHERE m.ctid = f.ctid
  AND (c.orders <> 0 OR c.net <> 0 OR c.waiting <> 0 OR c.first_event_at < m.first_event_at OR c.erased_at IS NOT NULL
       OR (c.joined_at IS NOT NULL AND m.joined_at IS NULL) OR c.rolled IS DISTINCT FROM m.rolled)
"""
