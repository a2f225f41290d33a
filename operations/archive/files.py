"""Lay an archive out in a folder: Parquet for the source log, CSV for what lies beside it, a manifest that names all.

::

    manifest.json                    written last, by renaming: what it does not name is no part of the archive
    source/07/000000000001.parquet   source events of shard 7 from seq 1 on; never written again
    beside/0002/referee.csv          as the second export found it; the next one takes its place
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

from engine.store.archives import End, SourceRow
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"

ROWS_A_FILE = 1_000_000
ROWS_A_GROUP = 10_000
BYTES_A_GROUP = 16 << 20
"""Of payloads; a group is what is in memory at once, when it is written and when it is read."""

_READ_BYTES = 1 << 20

_OURS = re.compile(
    rf"manifest\.json{UNFINISHED}|source|source/\d\d|source/\d\d/\d{{12}}\.parquet({UNFINISHED})?"
    rf"|beside|beside/\d{{4}}|beside/\d{{4}}/\w+\.csv({UNFINISHED})?"
)
"""What an export may leave behind that was killed; nothing else in a folder is ever removed."""


class Segment(Struct, frozen=True):
    """Hold what the manifest says of a Parquet file; hashes in hex."""

    first_seq: int
    last_seq: int
    last_hash: str
    bytes: int
    sha256: str

    @property
    def rows(self) -> int:
        """Return how many source events are in it."""
        return self.last_seq - self.first_seq + 1


class Shard(Struct, frozen=True):
    """Hold where the archive ends in one shard, as `engine.store.archives.End`, and its files in their order."""

    seq: int
    hash: str
    recorded_ms: int
    ticked_ms: int | None
    reward_pos: int
    reward_hash: str
    version: int
    segments: tuple[Segment, ...] = ()

    def end(self) -> End:
        """Return the same with hashes as bytes."""
        return End(
            self.seq, bytes.fromhex(self.hash), self.recorded_ms, self.ticked_ms, self.reward_pos,
            bytes.fromhex(self.reward_hash), self.version,
        )  # fmt: skip


class Beside(Struct, frozen=True):
    """Hold what the manifest says of a CSV file."""

    rows: int
    bytes: int
    sha256: str


class _Format(Struct, frozen=True):
    """Hold what every manifest says, whichever release wrote it."""

    format: int


class Secret(Struct, frozen=True):
    """Hold the first line of a file of keys: the database that they are of, and its secret in hex."""

    database: str
    secret: str


class Key(Struct, frozen=True):
    """Hold every other line of a file of keys; the key in hex."""

    shard: int
    member_id: str
    key: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """Hold what an archive consists of.

    `exports` counts them; `until_ms` says that the log was cut there, and that what a worker needs to go on is not in
    the archive. `digest` is the sha256 of the rest, and so of everything. `meaning` is that of the generation that was
    live; what was exported before there were numbers says none, and is of the first.
    """

    guerdon: str
    revision: str
    database: str
    exports: int
    until_ms: int | None
    shards: tuple[Shard, ...]
    beside: dict[str, Beside]
    digest: str = ""
    format: int = FORMAT
    meaning: int | UnsetType = UNSET

    def sealed(self) -> Manifest:
        """Return the same with its digest."""
        return msgspec.structs.replace(self, digest=self._computed())

    def _computed(self) -> str:
        return sha256(msgspec.json.encode(msgspec.structs.replace(self, digest=""), order="deterministic")).hexdigest()

    @property
    def is_sealed(self) -> bool:
        """Whether it is as it was written."""
        return self.digest == self._computed()

    @property
    def events(self) -> int:
        """Return how many source events the archive has."""
        return sum(shard.seq for shard in self.shards)

    def segment_path(self, shard: int, segment: Segment) -> str:
        """Return where a Parquet file lies in the folder."""
        return segment_path(shard, segment.first_seq)

    def beside_path(self, table: str) -> str:
        """Return where a CSV file lies in the folder."""
        return beside_path(self.exports, table)

    def files(self) -> dict[str, Segment | Beside]:
        """Return every file of the archive by where it lies."""
        found: dict[str, Segment | Beside] = {}
        for number, shard in enumerate(self.shards):
            found |= {segment_path(number, segment.first_seq): segment for segment in shard.segments}
        return found | {self.beside_path(table): beside for table, beside in self.beside.items()}


def segment_path(shard: int, first_seq: int) -> str:
    """Return where the Parquet file lies that begins at a source event."""
    return f"source/{shard:02}/{first_seq:012}.parquet"


def beside_path(export: int, table: str) -> str:
    """Return where the CSV file of a table lies."""
    return f"beside/{export:04}/{table}.csv"


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of the archive in a folder; None where the folder holds nothing, or only unfinished files.

    Raises:
        InputError: something else is in the folder, or the archive is of another release.
        AnswerIsNo: the manifest is not as it was written.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        foreign = [name for name in _names(folder) if not _OURS.fullmatch(name)]
        if foreign:
            raise InputError(
                f"{folder} is no archive: it has no {MANIFEST} and holds {foreign[0]}; name a new folder"
            ) from None
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        found = msgspec.json.decode(text, type=_Format).format
        if found != FORMAT:
            raise InputError(f"{path}: the archive has format {found}, and this release reads {FORMAT}")
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise AnswerIsNo(f"{path}: this is no manifest of an archive, or not all of it ({error})") from None
    is_named_well = all(name.isidentifier() for name in manifest.beside) and all(map(_is_readable, manifest.shards))
    if not manifest.is_sealed or len(manifest.shards) != SHARDS or not is_named_well:
        raise AnswerIsNo(f"{path}: the manifest was changed; its digest is not that of what it says")
    return manifest


def _is_readable(shard: Shard) -> bool:
    """Whether the hashes of a shard are hex."""
    try:
        shard.end()
    except ValueError:
        return False
    return True


def _names(folder: Path) -> list[str]:
    """Return what lies in a folder and below it, by names from the folder on."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.is_dir() else []


def need_manifest(folder: Path) -> Manifest:
    """Return the manifest of the archive in a folder.

    Raises:
        InputError: there is no archive.
        AnswerIsNo: the manifest is not as it was written.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder} holds no archive; `guerdon archive export {folder}` makes one")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in place: before it the archive is the old one, after it the new one."""
    with new_file(folder / MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n")


def remove_unnamed(folder: Path, manifest: Manifest | None) -> None:
    """Remove what an export left behind that was killed, and what the manifest names no more."""
    named = set() if manifest is None else set(manifest.files())
    for name in reversed(_names(folder)):  # what is in a folder before the folder
        path = folder / name
        if _OURS.fullmatch(name) and name not in named:
            if not path.is_dir():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes its name only when all of it is on the disk."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name a folder you may write to, with room in it"
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Let a name that was given outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checked(folder: Path, name: str, expected: Segment | Beside) -> Path:
    """Return a file's path if it is, to the byte, the file that the manifest names.

    Raises:
        AnswerIsNo: it is missing, cut off or changed.
    """
    path = folder / name
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise AnswerIsNo(f"{path} is no file of bytes; bring it back from a copy of the archive")
        size = about.st_size
        found = digest_of(path) if size == expected.bytes else ""
    except FileNotFoundError:
        raise AnswerIsNo(f"{path} is missing; bring it back from a copy of the archive") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if size != expected.bytes:
        raise AnswerIsNo(
            f"{path} has {size:,} bytes and was written with {expected.bytes:,}; bring it back from a copy"
        )
    if found != expected.sha256:
        raise AnswerIsNo(f"{path} was changed, as its sha256 is not the manifest's; bring it back from a copy")
    return path


def digest_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    found = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            found.update(chunk)
    return found.hexdigest()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra: only Parquet needs it
        from pyarrow import parquet  # noqa: PLC0415  as above
    except ImportError:
        raise InputError("an archive needs pyarrow: pip install 'guerdon[parquet]'") from None
    return pa, parquet


def _schema(pa: Any) -> Any:
    """Return the columns of a Parquet file: those of the log under its own names, and `digest`."""
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
    """Write rows of one shard to a Parquet file, a group at a time, each held against the chain of hashes."""

    def __init__(self, file: BinaryIO, previous_hash: bytes) -> None:
        pa, parquet = _arrow()
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
            AnswerIsNo: it is not what was once written to the log.
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
        """Write the rest and the file's end; after an error nobody will read what there is."""
        if self._rows and kind is None:
            self._flush()
        self._writer.close()


def read_segment(path: Path) -> Iterator[list[SourceRow]]:
    """Yield the rows of a Parquet file, a group at a time.

    Raises:
        AnswerIsNo: it cannot be read as one.
    """
    pa, parquet = _arrow()
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if not file.schema_arrow.equals(_schema(pa)):
                raise AnswerIsNo(f"{path} has other columns than the files of an archive")
            for number in range(file.num_row_groups):
                if file.metadata.row_group(number).num_rows > ROWS_A_GROUP:
                    raise AnswerIsNo(f"{path} has more than {ROWS_A_GROUP:,} rows in a group, which no export writes")
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
    except AnswerIsNo as found:
        return f"all up to seq {good} is whole, then {found}"
    return "its rows are whole"


def chained(path: Path, segment: Segment, previous_hash: bytes) -> Iterator[list[tuple[SourceRow, bytes]]]:
    """Yield the rows of a Parquet file with their packed bytes, each held against the chain of hashes.

    Raises:
        AnswerIsNo: a row is missing or is not what was exported.
    """
    expected = segment.first_seq
    for rows in read_segment(path):
        found = []
        for row in rows:
            packed, previous_hash = row.packed(previous_hash)
            if row.seq != expected:
                raise AnswerIsNo(f"{path}: seq {expected} is missing; bring the file back from a copy")
            if row.hash != previous_hash:
                raise AnswerIsNo(f"{path}, seq {row.seq}: the row is not what was exported")
            expected += 1
            found.append((row, packed))
        yield found
    if (expected - 1, previous_hash.hex()) != (segment.last_seq, segment.last_hash):
        raise AnswerIsNo(f"{path} ends at seq {expected - 1}, and the manifest says {segment.last_seq}")
