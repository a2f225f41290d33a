"""Activate a programme and show its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.programme.load import load_file, refused
from engine.store import programmes
from engine.store.database import transaction
from operations.rows import plain
from schemas.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from engine.store.programmes import Version


def activate(database_url: str, path: Path) -> dict[str, Any]:
    """Check the file at `path` and let it judge what comes from now on; return the version.

    Raises:
        InputError: the file cannot be read, the check finds errors (the message has one line for each), or the
            programme needs what this release does not judge.
        AnswerIsNo: this very programme is active already, or its currency is not the log's.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    loaded = load_file(path)
    if loaded.programme is None:
        raise InputError("the programme has errors and was not activated:\n" + "\n".join(map(str, loaded.problems)))
    refusal = refused(loaded, str(path))
    if refusal is not None:
        raise InputError(refusal)
    body = path.read_text("utf-8")
    with transaction(database_url) as cursor:
        version = programmes.activate(cursor, loaded.programme, body, path.name)
    return {"version": version, "programme": loaded.programme.id, "warnings": [str(each) for each in loaded.problems]}


def versions(database_url: str) -> list[dict[str, Any]]:
    """Return every version, without the files, the oldest first."""
    with transaction(database_url) as cursor:
        return [_row(version) for version in programmes.versions(cursor)]


def body_of(database_url: str, number: int | None) -> str:
    """Return the file of version `number`, or of the active one, as it was activated.

    Raises:
        InputError: there is no such version.
    """
    with transaction(database_url) as cursor:
        for version in reversed(programmes.versions(cursor)):
            if number in {None, version.version}:
                return version.body
    wanted = "no programme was activated yet" if number is None else f"there is no version {number}"
    raise InputError(f"{wanted}; `guerdon programme list` shows what there is")


def _row(version: Version) -> dict[str, Any]:
    return {name: plain(value) for name, value in version._asdict().items() if name != "body"}
