"""Turn the CSV of some cells into a Parquet file each."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO

from operations.archive.segments import arrow
from operations.export.folder import File
from operations.files import digest_of, unfinished_file, unfinished_path
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.store.views import Column
    from operations.export.datasets import Cell, Content, Dataset

BYTES_A_BLOCK = 8 << 20
"""Bytes of CSV in memory at once, and in a group of rows."""

_DECIMALS = {"quantity": 6}
"""Digits behind the point, of numeric columns that hold other than whole numbers (schemas/bounds.py)."""

_MONTH = "month of the cell"
"""The name of the first column of the CSV: no view has such a one."""


def write(folder: Path, dataset: Dataset, cells: Mapping[Cell, Content], csv_file: BinaryIO) -> dict[str, File]:
    """Write an unfinished file for each cell, and return what the manifest says of each by its path.

    Args:
        folder: the export's folder.
        dataset: names the view.
        cells: what each must hold; all of one generation and shard.
        csv_file: the rows, as `datasets.copy_cells` writes them.

    Raises:
        InputError: a number has more digits than Parquet's decimals.
        AnswerIsNo: the rows are not as many as the cell has.
    """
    pa, parquet = arrow()
    paths = {cell: cell.path(dataset.view) for cell in cells}
    schema = pa.schema([(column.name, _type(pa, column)) for column in dataset.columns])
    with ExitStack() as stack:
        # all cells at once: the rows come month by month, and a block may hold the end of one and the next
        writers = {}
        for cell, path in paths.items():
            file = stack.enter_context(unfinished_file(folder / path))
            writers[cell] = stack.enter_context(
                parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)
            )
        written = dict.fromkeys(cells, 0)
        for block in _blocks(pa, dataset, csv_file):
            for cell, writer in writers.items():
                rows = _of_month(pa, block, cell.month)
                if rows.num_rows:
                    writer.write_batch(_columns(pa, rows, schema))
                    written[cell] += rows.num_rows

    # what is on the disk now
    files = {}
    for cell, content in cells.items():
        if written[cell] != content.rows:
            raise AnswerIsNo(f"{paths[cell]}: {written[cell]:,} rows were read of {content.rows:,}; export again")
        unfinished = unfinished_path(folder / paths[cell])
        files[paths[cell]] = File(content.rows, content.fingerprint, unfinished.stat().st_size, digest_of(unfinished))
    return files


def _type(pa: Any, column: Column) -> Any:
    """Return the type that a column has in Parquet."""
    if column.type == "numeric":
        return pa.decimal128(38, _DECIMALS.get(column.name, 0))
    types = {
        "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(), "text": pa.string(), "boolean": pa.bool_(),
        "double precision": pa.float64(),
        "date": pa.date32(), "timestamptz": pa.timestamp("us", tz="UTC"), "text[]": pa.list_(pa.string()),
    }  # fmt: skip
    return types[column.type]


def _blocks(pa: Any, dataset: Dataset, csv_file: BinaryIO) -> Any:
    """Yield batches of rows: the month, then the columns of the view, lists as JSON."""
    from pyarrow import csv  # noqa: PLC0415  an extra: only Parquet needs it

    types = {column.name: _type(pa, column) for column in dataset.columns}
    types |= {column.name: pa.string() for column in dataset.columns if column.type == "text[]"}
    try:
        yield from csv.open_csv(
            csv_file,
            read_options=csv.ReadOptions(column_names=[_MONTH, *types], block_size=BYTES_A_BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={_MONTH: pa.string(), **types}, null_values=[""], strings_can_be_null=True,
                quoted_strings_can_be_null=False, true_values=["t"], false_values=["f"],
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{dataset.view} holds a value that does not fit into Parquet ({str(error).splitlines()[0]})"
        ) from None


def _of_month(pa: Any, block: Any, month: str | None) -> Any:
    from pyarrow import compute  # noqa: PLC0415  an extra: only Parquet needs it

    return block if month is None else block.filter(compute.equal(block.column(0), pa.scalar(month)))


def _columns(pa: Any, rows: Any, schema: Any) -> Any:
    """Return the rows without their month, and with lists instead of JSON."""
    arrays = [
        pa.array([None if text is None else json.loads(text) for text in array.to_pylist()], type=field.type)
        if pa.types.is_list(field.type)
        else array
        for array, field in zip(rows.columns[1:], schema, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)
