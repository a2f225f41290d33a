"""Keep a folder of files by a manifest that names them, and whose own digest tells whether it is as it was written."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Struct

from operations.files import new_file
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    import re
    from collections.abc import Container
    from pathlib import Path

MANIFEST = "manifest.json"


class Sealed:
    """Give a manifest a digest of itself: its field `digest` is the sha256 of the others, and so of all files."""

    __slots__ = ()
    digest: str

    def sealed(self) -> Self:
        """Return the manifest with its digest."""
        return msgspec.structs.replace(self, digest=self._computed())  # type: ignore[type-var]  # a Struct inherits it

    def _computed(self) -> str:
        unsealed = msgspec.structs.replace(self, digest="")  # type: ignore[type-var]  # as above
        return sha256(msgspec.json.encode(unsealed, order="deterministic")).hexdigest()

    @property
    def is_sealed(self) -> bool:
        """Whether the manifest is unchanged since it was written."""
        return self.digest == self._computed()


ManifestType = TypeVar("ManifestType", bound=Sealed)


class Kind(NamedTuple, Generic[ManifestType]):
    """Describe a kind of folder."""

    noun: str
    """Its name in messages, such as archive."""

    type: type[ManifestType]
    format: int
    """The format that this release reads."""

    ours: re.Pattern[str]
    """The names that an interrupted writer may leave behind; nothing else in a folder is ever removed."""

    way_out: str = ""
    """The end of the message about a manifest that cannot be read."""


class _Format(Struct, frozen=True):
    """Hold the field that every manifest has, whichever release wrote it."""

    format: int


def read(folder: Path, kind: Kind[ManifestType]) -> ManifestType | None:
    """Return the manifest in a folder; None where the folder is empty, or has only unfinished files.

    The caller asks whether it is sealed, and whether what it says can be.

    Raises:
        InputError: other files are in the folder, or the manifest is of another release.
        AnswerIsNo: it is no manifest of this kind.
    """
    # no manifest: an empty folder, unless other files are in it
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        foreign = [name for name in names(folder) if not kind.ours.fullmatch(name)]
        if foreign:
            raise InputError(
                f"{folder} is no {kind.noun}: it has no {MANIFEST} and holds {foreign[0]}; name a new folder"
            ) from None
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None

    # decode it
    try:
        number = msgspec.json.decode(text, type=_Format).format
        if number != kind.format:
            raise InputError(f"{path}: the {kind.noun} has format {number}, and this release reads {kind.format}")
        return msgspec.json.decode(text, type=kind.type)
    except msgspec.MsgspecError as error:
        raise AnswerIsNo(
            f"{path}: this is no manifest of an {kind.noun}, or not all of it ({error}){kind.way_out}"
        ) from None


def write(folder: Path, manifest: Any) -> None:
    """Write a manifest, which decides from then on which files belong to the folder; it takes the old one's place."""
    with new_file(folder / MANIFEST) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n")


def remove_unnamed(folder: Path, ours: re.Pattern[str], named: Container[str]) -> None:
    """Remove files that a killed writer left behind, and those that the manifest no longer names."""
    for name in reversed(names(folder)):  # files before their folder
        path = folder / name
        if ours.fullmatch(name) and name not in named:
            if not path.is_dir():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()


def names(folder: Path) -> list[str]:
    """Return the paths of all files and folders below a folder, from the folder on."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.is_dir() else []
