"""Write the source log to Parquet files and read it back, each row compared with the chain of hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Self

from engine.store.archives import SourceRow
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operations.archive.files import Segment

ROWS_A_FILE = 1_000_000
ROWS_A_GROUP = 10_000
BYTES_A_GROUP = 16 << 20
"""Bytes of payloads in a group at most; writing and reading hold one group in memory."""


def arrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra: only Parquet needs it
        from pyarrow import parquet  # noqa: PLC0415  as above
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'guerdon[parquet]'") from None
    return pa, parquet


def _schema(pa: Any) -> Any:
    """Return the columns of a Parquet file: those of the log, under their own names, and `digest`."""
    instant, kind = pa.timestamp("ms", tz="UTC"), pa.dictionary(pa.int8(), pa.string())
    types = (
        pa.int64(), pa.int64(), instant, instant, pa.int64(), pa.int32(), pa.int32(), pa.int16(),
        kind, pa.string(), pa.string(), pa.string(), pa.binary(), pa.binary(), pa.binary(32), pa.binary(16),
    )  # fmt: skip
    names = (
        "seq", "prev_seq", "occurred_at", "recorded_at", "offset_", "partition", "schema_id", "shard",
        "kind", "member_id", "source", "event_id", "payload", "sealed", "hash", "digest",
    )  # fmt: skip
    optional = {"sealed", "digest"}
    return pa.schema([pa.field(*each, nullable=each[0] in optional) for each in zip(names, types, strict=True)])


class SegmentWriter:
    """Write rows of one shard to a Parquet file, a group at a time, and compare each with the chain of hashes."""

    def __init__(self, file: BinaryIO, previous_hash: bytes) -> None:
        pa, parquet = arrow()
        self._pa = pa
        self._types = _schema(pa)
        self._writer = parquet.ParquetWriter(file, self._types, compression="zstd", write_page_checksum=True)
        self._rows: list[SourceRow] = []
        self._bytes = 0
        self.rows = 0
        self.last_seq = 0
        self.last_hash = previous_hash

    def write(self, row: SourceRow) -> None:
        """Add a row.

        Raises:
            AnswerIsNo: it was changed since it was written to the log.
        """
        _, self.last_hash = row.packed(self.last_hash)
        if self.last_hash != row.hash:
            raise AnswerIsNo(
                f"source log, shard {row.shard}, seq {row.seq}: the row is not what was written, and was not archived; "
                "see `guerdon verify`"
            )
        self._rows.append(row)
        self._bytes += len(row.payload)
        self.rows += 1
        self.last_seq = row.seq
        if len(self._rows) == ROWS_A_GROUP or self._bytes > BYTES_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [self._pa.array(column, type=kind) for column, kind in zip(columns, self._types.types, strict=True)]
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._types))
        self._rows.clear()
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the rest and the file's end; after an error nobody will read the file."""
        if self._rows and kind is None:
            self._flush()
        self._writer.close()


def read_segment(path: Path) -> Iterator[list[SourceRow]]:
    """Yield the rows of a Parquet file, a group at a time.

    Raises:
        AnswerIsNo: it is no Parquet file of an archive.
    """
    pa, parquet = arrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            # the columns, and groups that fit into memory
            if not file.schema_arrow.equals(_schema(pa)):
                raise AnswerIsNo(f"{path} has other columns than the files of an archive")
            for number in range(file.num_row_groups):
                if file.metadata.row_group(number).num_rows > ROWS_A_GROUP:
                    raise AnswerIsNo(f"{path} has more than {ROWS_A_GROUP:,} rows in a group, which no export writes")

                # instants as ms
                columns = file.read_row_group(number).columns
                times = {2, 3}
                plain = [
                    (column.cast(pa.int64()) if index in times else column).to_pylist()
                    for index, column in enumerate(columns)
                ]
                yield [SourceRow(*values) for values in zip(*plain, strict=True)]
    except (pa.ArrowException, OSError) as error:
        raise AnswerIsNo(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def first_bad_row(path: Path, segment: Segment, previous_hash: bytes) -> str:
    """Say up to which row a file that was changed is whole."""
    good = segment.first_seq - 1
    try:
        for rows in chained(path, segment, previous_hash):
            good = rows[-1][0].seq
    except AnswerIsNo as difference:
        return f"all up to seq {good} is whole, then {difference}"
    return "its rows are whole"


def chained(path: Path, segment: Segment, previous_hash: bytes) -> Iterator[list[tuple[SourceRow, bytes]]]:
    """Yield the rows of a Parquet file with their packed bytes, each compared with the chain of hashes.

    Raises:
        AnswerIsNo: a row is missing or is not what was exported.
    """
    expected = segment.first_seq
    for rows in read_segment(path):
        group = []
        for row in rows:
            packed, previous_hash = row.packed(previous_hash)
            if row.seq != expected:
                raise AnswerIsNo(f"{path}: seq {expected} is missing; bring the file back from a copy")
            if row.hash != previous_hash:
                raise AnswerIsNo(f"{path}, seq {row.seq}: the row is not what was exported")
            expected += 1
            group.append((row, packed))
        yield group
    if (expected - 1, previous_hash.hex()) != (segment.last_seq, segment.last_hash):
        raise AnswerIsNo(f"{path} ends at seq {expected - 1}, and the manifest says {segment.last_seq}")
