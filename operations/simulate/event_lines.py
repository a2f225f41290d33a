"""Read files of events line by line, with the activations and ticks among them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.errors import InputError
from schemas.rejection import Rejected
from schemas.scalars import instant_from_iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Line(NamedTuple):
    """Hold one line of an events file; `number` counts from 1."""

    file: str
    number: int
    text: bytes


def read_lines(files: Iterable[Path | str]) -> Iterator[Line]:
    """Yield the lines of `files` that are not blank.

    Raises:
        InputError: a file cannot be read.
    """
    for file in files:
        try:
            if str(file) == "-":
                yield from _lines("-", sys.stdin.buffer)
            else:
                with Path(file).open("rb") as stream:
                    yield from _lines(str(file), stream)
        except OSError as error:
            raise InputError(f"{file}: the file cannot be read ({error.strerror}); check its path") from None


def _lines(name: str, stream: Iterable[bytes]) -> Iterator[Line]:
    for number, text in enumerate(stream, 1):
        if text.strip():
            yield Line(name, number, text)


def activation_in(line: Line) -> str | None:
    """Return the file that an activation line names, or None for every other line."""
    # is it an activation
    if b'"activation"' not in line.text:
        return None
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("type") != "activation":
        return None

    # read which programme
    file = value.get("programme")
    if not isinstance(file, str) or not file or len(value) > 2:
        raise InputError(
            f'{line.file}:{line.number}: an activation is {{"type": "activation", "programme": "FILE"}} and nothing '
            "more; correct the line"
        )
    return file


def tick_in(line: Line) -> int | None:
    """Return the instant to which a tick line moves every clock, or None for every other line."""
    # is it a tick
    if b'"tick"' not in line.text:
        return None
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("type") != "tick":
        return None

    # read when
    why = "it has other fields"
    if value.keys() == {"type", "occurred_at"}:
        try:
            return instant_from_iso(value["occurred_at"], "occurred_at")
        except Rejected as rejected:
            why = rejected.message
    raise InputError(
        f'{line.file}:{line.number}: a tick is {{"type": "tick", "occurred_at": "2026-01-31T00:00:00Z"}} and '
        f"nothing more ({why}); correct the line"
    )


def event_id_in(text: bytes) -> str | None:
    """Return the event_id of a line, or None where it has none that can be read."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    event_id = value.get("event_id") if isinstance(value, dict) else None
    return event_id if isinstance(event_id, str) else None
