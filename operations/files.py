"""Write files that take their names only when they are wholly on the disk, and know files by their digests."""

from __future__ import annotations

import os
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNFINISHED = ".unfinished"
"""The end of a file's name until it takes its own."""

_READ_BYTES = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Write a file that a person asked for, in UTF-8.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> InputError:
    """Return the error for a file that a person asked for, and that cannot be written."""
    return InputError(f"{path}: the file cannot be written ({error.strerror}); name one in a folder you may write to")


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


def digest_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
