"""Fold the source log once more from its beginning, and compare each row with what the tables have.

Nothing that earlier folds have stored goes into it: a whole shard is folded at once, in memory.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import pairwise
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING

from psycopg2 import sql

from engine.store.logs.bare_log import BareLog, Range
from engine.store.logs.binary_copy import HEADER, TRAILER
from engine.store.session.failures import error_line, is_data
from projections.differences import sentence
from projections.facts import rows
from projections.facts.earlier import Earlier
from projections.facts.fold import Fold
from projections.facts.rollups import difference as rollups
from projections.facts.rollups.cells import Cells
from projections.facts.rollups.rolling import WholeShard
from projections.zones import fixed_zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from engine.store.cursor import Cursor
    from projections.facts.rows import Table

PAGE_ROWS = 5_000
"""The most events that are decoded at once."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INTEGERS = frozenset(
    ("shard", "seq", "line", "amount", "refunded", "number", "revision", "gross", "purchase_seq", "quantity", "score",
     "order_amount", "first_seq", "orders", "waiting")
)  # fmt: skip
_NUMERICS = frozenset(((rows.LINE.name, "quantity"), (rows.MEMBER.name, "net"), (rows.MEMBER.name, "gross")))
_NUMERIC = Struct(">hhHH").unpack_from

Fields = list[bytes | None]
"""The fields of a row, in the order of its table; None for NULL."""


def difference(cursor: Cursor, build: int, generation: int, shards: Sequence[int] | None) -> str | None:  # noqa: ARG001  facts have none
    """Return a sentence about the first row of `build` that is not what its events say; None where all are.

    A cell of rollups is of all shards. So whoever compares some shards compares the cells with those that come last.
    """
    cursor.execute("SELECT shard, pos FROM guerdon.projection_cursor WHERE build = %s ORDER BY shard", (build,))
    upto_seqs: dict[int, int] = dict(cursor.fetchall())
    zone = fixed_zone(cursor, build)
    wanted = upto_seqs.keys() if shards is None else upto_seqs.keys() & set(shards)
    has_all = zone is not None and max(upto_seqs) in wanted
    cells = Cells()
    for shard, upto_seq in upto_seqs.items():
        if shard not in wanted and not has_all:
            continue
        folded = _Shard(build, shard, zone)
        problem = _refold(cursor, folded, upto_seq)
        if problem is None and shard in wanted:
            problem = _of_shard(cursor, folded)
        if problem is not None:
            return problem
        cells.add(folded.rolled.cells if folded.rolled is not None and has_all else {})
    return rollups.difference(cursor, build, cells) if has_all else None


class _Shard:
    """Hold a shard that is folded once more; `rolled` is None where the build has no rollups."""

    def __init__(self, build: int, shard: int, zone: str | None) -> None:
        self.build = build
        self.shard = shard
        self.fold = Fold(build, Earlier())
        self.rolled = None if zone is None else WholeShard(zone)


def _refold(cursor: Cursor, folded: _Shard, upto_seq: int) -> str | None:
    """Fold a shard up to a seq; return a sentence about the first event that cannot be folded."""
    # what is set aside has no rows, and nothing stands on it
    cursor.execute(
        "SELECT first_pos FROM guerdon.projection_gap WHERE build = %s AND shard = %s ORDER BY first_pos",
        (folded.build, folded.shard),
    )
    cuts = [0, *(int(seq) for (seq,) in cursor.fetchall()), upto_seq + 1]
    log = BareLog(cursor)
    for gap, following in pairwise(cuts):
        for after_seq in range(gap, following - 1, PAGE_ROWS):
            page = Range(folded.shard, after_seq, min(following - 1, after_seq + PAGE_ROWS))
            try:
                events = list(log.read([page]))
                folded.fold.take(events)
                if folded.rolled is not None:
                    folded.rolled.take(events, folded.fold)
            except Exception as error:
                if not is_data(error):
                    raise
                return _unreadable(log, page, error)
    return None


def _of_shard(cursor: Cursor, folded: _Shard) -> str | None:
    """Compare table by table; where all is well, both are the same bytes, and no row is taken apart."""
    build, fold = folded.build, folded.fold
    written = dict(fold.rows())
    if folded.rolled is not None:
        folded.rolled.tell(fold.members)
    by_id = sorted(fold.members, key=attrgetter("member_id"))
    written[rows.MEMBER] = [rows.member_row(build, member) for member in by_id]
    for table, packed in written.items():
        expected, stored = b"".join(packed), _stored(cursor, table, build, folded.shard)
        if expected != stored:
            problem = _of_table(table, _rows(expected), _rows(stored))
            if problem is not None:
                return problem
    return None


def _unreadable(log: BareLog, page: Range, error: Exception) -> str:
    """Name the first event of a page that cannot be folded, as an event that is set aside would have no facts."""
    for seq in range(page.after_seq + 1, page.upto_seq + 1):
        try:
            Fold(0, Earlier()).take(log.read([Range(page.shard, seq - 1, seq)]))
        except Exception as own:  # noqa: BLE001  any error stops a fold
            return f"facts, shard {page.shard}, seq {seq}: the source event cannot be folded ({error_line(own)})"
    return f"facts, shard {page.shard}: the source events after seq {page.after_seq} fail ({error_line(error)})"


def _of_table(table: Table, folded: Iterable[Fields], stored: Iterable[Fields]) -> str | None:
    at = [table.columns.index(name) for name in table.key]
    by_key = {tuple(row[place] for place in at): row for row in folded}
    for row in stored:
        key = tuple(row[place] for place in at)
        expected = by_key.pop(key, None)
        if expected != row:
            return _sentence(table, row, expected)
    missing = min(by_key.values(), key=lambda row: [row[place] or b"" for place in at], default=None)
    return None if missing is None else _sentence(table, None, missing)


def _stored(cursor: Cursor, table: Table, build: int, shard: int) -> bytes:
    """Return a shard's rows of a table as they are packed, in the order of their keys."""
    query = sql.SQL("COPY (SELECT {} FROM {} WHERE build = {} AND shard = {} ORDER BY {}) TO STDOUT (FORMAT binary)")
    copied = BytesIO()
    cursor.copy_expert(
        query.format(
            sql.SQL(", ").join(sql.Identifier(name) for name in table.columns), sql.Identifier("guerdon", table.name),
            sql.Literal(build), sql.Literal(shard), sql.SQL(", ").join(sql.Identifier(name) for name in table.key),
        ),
        copied,
        size=1 << 20,
    )  # fmt: skip
    return copied.getvalue()[len(HEADER) : -len(TRAILER)]


def _rows(packed: bytes) -> Iterator[Fields]:
    """Take rows apart."""
    at = 0
    while at < len(packed):
        count = int.from_bytes(packed[at : at + 2])
        at += 2
        fields: Fields = []
        for _ in range(count):
            length = int.from_bytes(packed[at : at + 4], signed=True)
            at += 4
            fields.append(None if length < 0 else packed[at : at + length])
            at += max(length, 0)
        yield fields


def _sentence(table: Table, stored: Fields | None, folded: Fields | None) -> str:
    """Name a row and the first column that differs, with what the table and the log say; None: there is no row."""
    some = stored or folded or []
    key = ", ".join(f"{name} {_shown(table, name, some[table.columns.index(name)])}" for name in table.key)
    of = f"{table.name}, {key}"
    if stored is None or folded is None:
        return sentence(of, "nothing" if stored is None else "a row", "nothing" if folded is None else "a row", "facts")
    place = next(at for at, (left, right) in enumerate(zip(stored, folded, strict=True)) if left != right)
    name = table.columns[place]
    says = [f"{name} {_shown(table, name, row[place])}" for row in (stored, folded)]
    return sentence(of, says[0], says[1], "facts")


def _shown(table: Table, name: str, value: bytes | None) -> str:
    """Return a field as a person reads it."""
    if value is None:
        return "NULL"
    if (table.name, name) in _NUMERICS:
        return f"{_numeric(value):f}"
    if name in _INTEGERS:
        return str(int.from_bytes(value, signed=True))
    if name.endswith("_at"):
        return (_EPOCH + timedelta(microseconds=int.from_bytes(value, signed=True))).isoformat()
    return value.decode("utf-8", "backslashreplace")


def _numeric(value: bytes) -> Decimal:
    """Return the number that a field of the type numeric holds, in groups of four digits."""
    count, weight, sign, decimals = _NUMERIC(value)
    groups = [int.from_bytes(value[8 + 2 * at : 10 + 2 * at]) for at in range(count)]
    number = sum((Decimal(group).scaleb(4 * (weight - at)) for at, group in enumerate(groups)), Decimal(0))
    return (-number if sign else number).quantize(Decimal(1).scaleb(-decimals))
