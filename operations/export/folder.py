"""Lay an export out in a folder, and tell whether its files are as they were written.

::

    manifest.json                                                        written before files take their names
    reward_event/generation=1/shard=7/month=2026-03/data.parquet         one cell
    member_balance/generation=1/data.parquet                             a view without shards and months

New files lie beside those that they replace, as `data.parquet.unfinished`, until the manifest names them. Then they
take their names; an export that is killed in the middle of that is finished by the next one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from operations import manifests
from operations.export.datasets import DATASETS
from operations.files import UNFINISHED, digest_of, take_name, unfinished_path
from operations.manifests import MANIFEST, Sealed
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1

_OURS = re.compile(
    rf"manifest\.json{UNFINISHED}|({'|'.join(each.view for each in DATASETS)})"
    rf"(/generation=\d+)?(/shard=\d+)?(/month=\d{{4,}}-\d\d)?(/data\.parquet({UNFINISHED})?)?"
)
"""The names that exports give; nothing else in a folder is ever removed."""


class File(Struct, frozen=True):
    """Describe a Parquet file: its rows, what tells two states of them apart, its size and digest."""

    rows: int
    fingerprint: str
    bytes: int
    sha256: str


class Part(Struct, frozen=True, rename={"layout": "columns"}):
    """Describe the files of one view, each file by its path."""

    layout: list[list[str]]
    """`Dataset.layout`, the name and type of each column; the manifest calls it `columns`."""

    files: dict[str, File]


class Manifest(Sealed, Struct, frozen=True, forbid_unknown_fields=True):
    """List the files of an export."""

    guerdon: str
    """The release that wrote it."""

    database: str
    generation: int
    """The generation that was live."""

    as_of: str
    """The instant whose snapshot of the database the files hold."""

    since_ms: int | None
    """Rows of an earlier time were left out; None: none were."""

    parts: dict[str, Part]
    digest: str = ""
    """The sha256 of the other fields, and so of all files."""

    format: int = FORMAT

    @property
    def files(self) -> dict[str, File]:
        """Return every file by its path."""
        return {path: file for part in self.parts.values() for path, file in part.files.items()}


_KIND = manifests.Kind("export", Manifest, FORMAT, _OURS, "; remove the folder and export again")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of the export in a folder; None where the folder is empty, or has only unfinished files.

    Raises:
        InputError: other files are in the folder, or the export is of another release.
        AnswerIsNo: the manifest is not as it was written.
    """
    manifest = manifests.read(folder, _KIND)
    if manifest is None:
        return None

    # it must be unchanged, and name nothing outside the folder
    if not manifest.is_sealed or not all(map(_OURS.fullmatch, manifest.files)):
        raise AnswerIsNo(
            f"{folder / MANIFEST}: the manifest was changed, as its digest is not that of what it says; remove "
            "the folder and export again"
        )
    return manifest


def finish(folder: Path, manifest: Manifest | None) -> None:
    """Let the unfinished files that the manifest names take their names, and remove all that it does not name."""
    files = {} if manifest is None else manifest.files
    for path, file in files.items():
        unfinished = unfinished_path(folder / path)
        if unfinished.exists() and _is(unfinished, file):
            take_name(folder / path)

    manifests.remove_unnamed(folder, _OURS, files)


def is_whole(folder: Path, path: str, file: File) -> bool:
    """Whether a file is there, to the byte as it was written."""
    return (folder / path).is_file() and _is(folder / path, file)


def _is(path: Path, file: File) -> bool:
    """Whether a file has the digest; only where it has the size, as a digest reads it whole."""
    return path.stat().st_size == file.bytes and digest_of(path) == file.sha256


def strangers(folder: Path, manifest: Manifest) -> list[str]:
    """Return the Parquet files in the folder that are no part of the export; who reads all files reads them, too."""
    return [name for name in manifests.names(folder) if name.endswith(".parquet") and name not in manifest.files]
