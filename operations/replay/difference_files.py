"""Write the list of members of a difference to CSV or Parquet, row by row as PostgreSQL delivers it."""

from __future__ import annotations

import csv
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from operations.files import not_written
from schemas.display import cell
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS = (
    "member_id", "unit", "before", "after", "change", "tier_before", "tier_after", "spent_not_given", "rules",
)  # fmt: skip
_NUMBERS = frozenset(("before", "after", "change", "spent_not_given"))
_ROWS_AT_ONCE = 10_000


def write_csv(path: Path, members: Iterable[dict[str, Any]]) -> None:
    """Write a line of names, and one line for each member and unit; `rules` as JSON.

    An id that a spreadsheet would take for a formula gets an apostrophe before it.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({name: cell(value) for name, value in _flat(member).items()} for member in members)
    except OSError as error:
        raise not_written(path, error) from None


def write_parquet(path: Path, members: Iterable[dict[str, Any]]) -> None:
    """Write the same columns as Parquet, a row group at a time.

    Raises:
        InputError: the file cannot be written, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra: only Parquet needs it
        from pyarrow import parquet  # noqa: PLC0415  as above
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'guerdon[parquet]', or write --csv") from None
    # sums of awards need not fit 64 bits
    schema = pa.schema([(name, pa.decimal128(38, 0) if name in _NUMBERS else pa.string()) for name in COLUMNS])
    rows = map(_flat, members)
    try:
        with parquet.ParquetWriter(path, schema) as writer:
            while chunk := list(islice(rows, _ROWS_AT_ONCE)):
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
    except OSError as error:
        raise not_written(path, error) from None


def _flat(member: dict[str, Any]) -> dict[str, Any]:
    return member | {"rules": json.dumps(member["rules"], ensure_ascii=False)}
