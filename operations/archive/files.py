"""Lay an archive out in a folder: Parquet for the source log, CSV for the tables beside it, a manifest that names all.

::

    manifest.json                    written last, by renaming: a file that it does not name is no part of the archive
    source/07/000000000001.parquet   source events of shard 7 from seq 1 on; never written again
    beside/0002/referee.csv          a table as of the second export; the next export's file takes its place
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec import UNSET, Struct, UnsetType

from engine.store.archives import End
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"

_READ_BYTES = 1 << 20

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


class _Format(Struct, frozen=True):
    """Hold the field that every manifest has, whichever release wrote it."""

    format: int


class Secret(Struct, frozen=True):
    """Hold the first line of a file of keys: the name of their database, and its secret in hex."""

    database: str
    secret: str


class Key(Struct, frozen=True):
    """Hold every other line of a file of keys; the key in hex."""

    shard: int
    member_id: str
    key: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
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

    def sealed(self) -> Manifest:
        """Return the manifest with its digest."""
        return msgspec.structs.replace(self, digest=self._computed())

    def _computed(self) -> str:
        return sha256(msgspec.json.encode(msgspec.structs.replace(self, digest=""), order="deterministic")).hexdigest()

    @property
    def is_sealed(self) -> bool:
        """Whether the manifest is unchanged since it was written."""
        return self.digest == self._computed()

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
    # no manifest: an empty folder, unless other files are in it
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

    # decode it
    try:
        number = msgspec.json.decode(text, type=_Format).format
        if number != FORMAT:
            raise InputError(f"{path}: the archive has format {number}, and this release reads {FORMAT}")
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise AnswerIsNo(f"{path}: this is no manifest of an archive, or not all of it ({error})") from None

    # it must be unchanged
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
    """Return the paths of all files and folders below a folder, from the folder on."""
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
    """Write a manifest, which makes the folder's files the new archive; until then they are the old one."""
    with new_file(folder / MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n")


def remove_unnamed(folder: Path, manifest: Manifest | None) -> None:
    """Remove files that a killed export left behind, and those that the manifest no longer names."""
    named = set() if manifest is None else set(manifest.files())
    for name in reversed(_names(folder)):  # files before their folder
        path = folder / name
        if _OURS.fullmatch(name) and name not in named:
            if not path.is_dir():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes its name only when it is wholly on the disk."""
    with unfinished_file(path) as file:
        yield file
    take_name(path)


@contextmanager
def unfinished_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that will be `path`; at the end it is wholly on the disk, under another name until `take_name`."""
    unfinished = unfinished_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _unwritable(path, error) from None
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def take_name(path: Path) -> None:
    """Let an unfinished file take its name, in place of the file that had it."""
    try:
        unfinished_path(path).replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None


def unfinished_path(path: Path) -> Path:
    """Return the name of a file until it takes its own."""
    return path.with_name(path.name + UNFINISHED)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); name a folder you may write to, with room in it")


def _sync(folder: Path) -> None:
    """Let a file's new name outlast a power cut."""
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


def digest_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
