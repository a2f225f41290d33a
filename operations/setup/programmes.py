"""Activate a programme and show its versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.programme.file.load import load_file, load_programme, refused
from engine.store import programmes
from engine.store.database import NO_LIMIT, transaction
from operations.replay.backfill import File, activate_with_past, metric_name
from operations.rows import plain
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.programme.conditions import Metric
    from engine.programme.model import Programme
    from engine.store.cursor import Cursor
    from engine.store.programmes import Version


def activate(
    database_url: str,
    path: Path,
    *,
    from_now: bool = False,
    backfill: bool = False,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    observe: Callable[[str], None] = lambda _point: None,
) -> dict[str, Any]:
    """Check the file at `path` and let it judge events from now on; return the version.

    Metrics that the active version does not have need a past: with `from_now` they begin empty, with `backfill` they
    are counted from the first event on.

    Args:
        database_url: the address of Guerdon's database.
        path: the programme's file.
        from_now: let new metrics begin empty.
        backfill: count new metrics from the first event on.
        report: called with how many events are counted, and how many there are.
        observe: called with the name of each step.

    Raises:
        InputError: the file cannot be read, the check finds errors (the message has one line for each), the programme
            needs a rule that this release does not judge, or it has new metrics and neither flag is set.
        AnswerIsNo: this very programme is active already, or its currency is not the log's.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    # check the file
    loaded = load_file(path)
    if loaded.programme is None:
        raise InputError("the programme has errors and was not activated:\n" + "\n".join(map(str, loaded.problems)))
    refusal = refused(loaded, str(path))
    if refusal is not None:
        raise InputError(refusal)

    # new metrics
    body = path.read_text("utf-8")
    with transaction(database_url) as cursor:
        new = [] if from_now else _new_metrics(loaded.programme, programmes.active(cursor))
    if new and not backfill:
        raise InputError(
            f"{path}: {', '.join(map(metric_name, new))} would need what happened before the activation; activate with "
            "--backfill to count it from the first event on, or with --from-now to let them begin empty"
        )

    if new:
        version = activate_with_past(
            database_url, loaded.programme, File(body, path.name), new, report=report, observe=observe
        )
    else:
        with transaction(database_url, statement_max=NO_LIMIT) as cursor:
            version = programmes.activate(cursor, loaded.programme, body, path.name)
    return {"version": version, "programme": loaded.programme.id, "warnings": [str(each) for each in loaded.problems]}


def versions(database_url: str) -> list[dict[str, Any]]:
    """Return every version, without the files, the oldest first."""
    with transaction(database_url) as cursor:
        return versions_known(cursor)


def versions_known(cursor: Cursor) -> list[dict[str, Any]]:
    """Return the same as `versions`, read by `cursor`."""
    return [_row(version) for version in programmes.versions(cursor)]


def body_of(database_url: str, number: int | None) -> str:
    """Return the file of version `number`, or of the active one, as it was activated.

    Raises:
        InputError: there is no such version.
    """
    with transaction(database_url) as cursor:
        return _version(cursor, number).body


def judged(database_url: str, number: int | None) -> tuple[Programme, int]:
    """Return the programme of version `number`, or of the active one, and its number.

    Raises:
        InputError: there is no such version.
    """
    with transaction(database_url) as cursor:
        version = _version(cursor, number).version
        return programmes.judged_as(cursor, version), version


def _version(cursor: Cursor, number: int | None) -> Version:
    active = programmes.active(cursor)
    for version in programmes.versions(cursor):
        if version.version == number or (number is None and version == active):
            return version
    wanted = "no programme was activated yet" if number is None else f"there is no version {number}"
    raise InputError(f"{wanted}; `guerdon programme list` shows what there is")


def _new_metrics(programme: Programme, before: Version | None) -> list[Metric]:
    """Return the metrics that the active version does not have; none for a first version, which has no past."""
    if before is None:
        return []
    active = load_programme(before.body, "active", was_activated=True).programme
    present = [] if active is None else [metric.key for metric in active.metrics]
    return [metric for metric in programme.metrics if metric.key not in present]


def _row(version: Version) -> dict[str, Any]:
    return {name: plain(value) for name, value in version._asdict().items() if name != "body"}
