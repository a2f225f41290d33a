"""Remember, in one file per home, which services were started there and where they listen."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Literal

import msgspec

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Origin = Literal["environment", "docker", "local"]
KAFKA = "kafka"
POSTGRESQL = "postgresql"
REGISTRY = "registry"


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record where one service came from, its address and its process.

    The ports outlive the process, so that a service returns to where its clients look for it.
    """

    name: str
    origin: Origin
    address: str
    running: bool
    pid: int | None = None
    created_at_s: float | None = None
    ports: dict[str, int] = {}


def read_state(home: Path) -> dict[str, ServiceRecord]:
    """Return the records of a home by service name; none where nothing was started, or where the file is damaged.

    A damaged file costs nothing but the ports: servers that run are found by their command line.
    """
    try:
        return msgspec.json.decode((home / "state.json").read_bytes(), type=dict[str, ServiceRecord])
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return {}
    except OSError as error:
        raise _unusable(home, error) from error


def remember(home: Path, record: ServiceRecord) -> None:
    """Write one service's record into the home's state file, whole or not at all."""
    with locked(home, "state"):
        _write(home, read_state(home) | {record.name: record})


def forget(home: Path, *names: str) -> None:
    """Remove services from the state file, with their ports."""
    with locked(home, "state"):
        _write(home, {name: record for name, record in read_state(home).items() if name not in names})


def mark_stopped(home: Path, name: str) -> None:
    """Note that a service no longer runs; its ports stay in the file."""
    record = read_state(home).get(name)
    if record is not None:
        remember(home, msgspec.structs.replace(record, running=False, pid=None, created_at_s=None))


@contextlib.contextmanager
def locked(home: Path, what: str) -> Iterator[None]:
    """Hold the home's lock of that name, so that two commands wait for each other; the kernel frees it at our end."""
    make_home(home)
    try:
        descriptor = os.open(home / f".{what}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(home, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_home(home: Path) -> None:
    """Make the folder of the services' data, if it is missing.

    Raises:
        InputError: it cannot be made.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(home, error) from error


def _unusable(home: Path, error: OSError) -> InputError:
    return InputError(
        f"the folder {home} cannot be used ({error.strerror}): set GUERDON_HOME (or --home) to a folder to write in"
    )


def _write(home: Path, records: dict[str, ServiceRecord]) -> None:
    # The address of PostgreSQL carries its password, hence 0600 from the first byte on.
    draft = home / "state.json.new"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(records)))
    draft.replace(home / "state.json")
