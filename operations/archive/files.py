"""Lay an archive out in a folder: Parquet for the source log, CSV for the tables beside it, a manifest that names all.

::

    manifest.json                    written last, by renaming: a file that it does not name is no part of the archive
    source/07/000000000001.parquet   source events of shard 7 from seq 1 on; never written again
    beside/0002/referee.csv          a table as of the second export; the next export's file takes its place
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

from engine.store.archives import End
from operations import manifests
from operations.files import UNFINISHED, digest_of
from operations.manifests import MANIFEST, Sealed
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1

_OURS = re.compile(
    rf"manifest\.json{UNFINISHED}|source|source/\d\d|source/\d\d/\d{{12}}\.parquet({UNFINISHED})?"
    rf"|beside|beside/\d{{4}}|beside/\d{{4}}/\w+\.csv({UNFINISHED})?"
)
"""The names that a killed export may leave behind; nothing else in a folder is ever removed."""


class Segment(Struct, frozen=True):
    """Describe a Parquet file in the manifest; hashes in hex."""

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
    """Describe one shard in the manifest: its end, as `engine.store.archives.End`, and its files in their order."""

    seq: int
    hash: str
    recorded_ms: int
    ticked_ms: int | None
    reward_pos: int
    reward_hash: str
    version: int
    segments: tuple[Segment, ...] = ()

    def end(self) -> End:
        """Return the shard's end, with hashes as bytes."""
        return End(
            self.seq, bytes.fromhex(self.hash), self.recorded_ms, self.ticked_ms, self.reward_pos,
            bytes.fromhex(self.reward_hash), self.version,
        )  # fmt: skip


class Beside(Struct, frozen=True):
    """Describe a CSV file in the manifest."""

    rows: int
    bytes: int
    sha256: str


class Secret(Struct, frozen=True):
    """Hold the first line of a file of keys: the name of their database, and its secret in hex."""

    database: str
    secret: str


class Key(Struct, frozen=True):
    """Hold every other line of a file of keys; the key in hex."""

    shard: int
    member_id: str
    key: str


class Manifest(Sealed, Struct, frozen=True, forbid_unknown_fields=True):
    """List the parts of an archive."""

    guerdon: str
    """The release that wrote it."""

    revision: str
    """The database's migration."""

    database: str
    exports: int
    """How many exports have written to the archive."""

    until_ms: int | None
    """Where the log was cut; then the archive lacks the tables that only a worker needs. None: it is whole."""

    shards: tuple[Shard, ...]
    beside: dict[str, Beside]
    digest: str = ""
    """The sha256 of the other fields, and so of all files."""

    format: int = FORMAT
    meaning: int | UnsetType = UNSET
    """The meaning of the generation that was live; early archives have none, and are of the first meaning."""

    @property
    def events(self) -> int:
        """Return how many source events the archive has."""
        return sum(shard.seq for shard in self.shards)

    def segment_path(self, shard: int, segment: Segment) -> str:
        """Return the path of a Parquet file, from the folder on."""
        return segment_path(shard, segment.first_seq)

    def beside_path(self, table: str) -> str:
        """Return the path of a table's CSV file, from the folder on."""
        return beside_path(self.exports, table)

    def files(self) -> dict[str, Segment | Beside]:
        """Return every file of the archive by its path."""
        files: dict[str, Segment | Beside] = {}
        for number, shard in enumerate(self.shards):
            files |= {segment_path(number, segment.first_seq): segment for segment in shard.segments}
        return files | {self.beside_path(table): beside for table, beside in self.beside.items()}


_KIND = manifests.Kind("archive", Manifest, FORMAT, _OURS)


def segment_path(shard: int, first_seq: int) -> str:
    """Return the path of the Parquet file that begins at `first_seq`."""
    return f"source/{shard:02}/{first_seq:012}.parquet"


def beside_path(export: int, table: str) -> str:
    """Return the path of a table's CSV file."""
    return f"beside/{export:04}/{table}.csv"


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of the archive in a folder; None where the folder is empty, or has only unfinished files.

    Raises:
        InputError: other files are in the folder, or the archive is of another release.
        AnswerIsNo: the manifest is not as it was written.
    """
    manifest = manifests.read(folder, _KIND)
    if manifest is None:
        return None

    # it must be unchanged
    is_named_well = all(name.isidentifier() for name in manifest.beside) and all(map(_is_readable, manifest.shards))
    if not manifest.is_sealed or len(manifest.shards) != SHARDS or not is_named_well:
        raise AnswerIsNo(f"{folder / MANIFEST}: the manifest was changed; its digest is not that of what it says")
    return manifest


def _is_readable(shard: Shard) -> bool:
    """Whether the hashes of a shard are hex."""
    try:
        shard.end()
    except ValueError:
        return False
    return True


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


def remove_unnamed(folder: Path, manifest: Manifest | None) -> None:
    """Remove files that a killed export left behind, and those that the manifest no longer names."""
    manifests.remove_unnamed(folder, _OURS, {} if manifest is None else manifest.files())


def checked(folder: Path, name: str, expected: Segment | Beside) -> Path:
    """Return a file's path if it is, to the byte, the file that the manifest names.

    Raises:
        AnswerIsNo: it is missing, cut off or changed.
    """
    # a digest only where the size is right: it reads the whole file
    path = folder / name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AnswerIsNo(f"{path} is no file of bytes; bring it back from a copy of the archive")
        size = status.st_size
        digest = digest_of(path) if size == expected.bytes else ""
    except FileNotFoundError:
        raise AnswerIsNo(f"{path} is missing; bring it back from a copy of the archive") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    if size != expected.bytes:
        raise AnswerIsNo(
            f"{path} has {size:,} bytes and was written with {expected.bytes:,}; bring it back from a copy"
        )
    if digest != expected.sha256:
        raise AnswerIsNo(f"{path} was changed, as its sha256 is not the manifest's; bring it back from a copy")
    return path
