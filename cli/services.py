"""Start, stop and show the local services: `guerdon up`, `down`, `status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.terminal.output import JsonFlag, counted, print_json, print_table, say
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

if TYPE_CHECKING:
    from operations.health import Overview
    from operations.services.lifecycle import ServiceState
    from operations.settings import Settings

HomeFlag = Annotated[Path | None, typer.Option("--home", help="Folder of the services' data (else GUERDON_HOME).")]
ORIGINS = {"environment": "settings", "docker": "Docker", "local": "local process", None: "not started"}
HEADINGS = {"held": "in_transaction", "held_since": "open_since"}
"""Columns of the lag under other words than in --json: the screen says `held` of members."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(
    local: Annotated[bool, typer.Option("--local", help="Start local processes, even where Docker runs.")] = False,
    home: HomeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Find or start Kafka and PostgreSQL, and say where they run.

    The first of these is taken: the addresses in the settings, Docker with docker-compose.yml, local processes.

    Example: `guerdon up && guerdon status`
    """
    from operations.services.lifecycle import bring_up
    from operations.settings import load_settings

    outcome = bring_up(load_settings(home=home), local=local)
    for note in outcome.notes:
        say(note, err=True)
    if as_json:
        print_json([_row(service) for service in outcome.services])
    else:
        _print_services(outcome.services)


def down(
    volumes: Annotated[bool, typer.Option("--volumes", help="Delete the data, too.")] = False,
    home: HomeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """End the services that `guerdon up` started here; data stays unless --volumes is given.

    Example: `guerdon down --volumes`
    """
    from operations.services.lifecycle import TITLES, take_down
    from operations.settings import load_settings

    ended = take_down(load_settings(home=home).home, volumes=volumes)
    if as_json:
        print_json({"ended": ended, "data_deleted": volumes})
    else:
        what = " and ".join(TITLES[name] for name in ended)
        say(f"ended {what}" if ended else "nothing was running here")
        if volumes:
            say("data deleted")


def status(
    check: Annotated[
        bool, typer.Option("--check", help="Show only what is stuck, with exit code 1 where anything is.")
    ] = False,
    max_lag: Annotated[
        int | None,
        typer.Option(
            "--max-lag", min=0, metavar="N", help="With --check: count more than N events behind as stuck, too."
        ),
    ] = None,
    home: HomeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the services, the workers, how far topics and projections are behind, and how many events are set aside.

    The exit code is 3 where a service does not answer. With --check it is 1 where something is stuck: another release
    has decided the live history, no worker lives or one stands still, a partition is stopped, events wait and their
    worker commits nothing, a member is held, or the writer, projector, publisher or fold of facts of a worker pauses.
    Each line begins with its kind, and docs/operations.md says what to do about each.

    Examples: `guerdon status`, and in a monitor `guerdon status --check --max-lag 10000`
    """
    from operations.settings import load_settings

    if max_lag is not None and not check:
        raise InputError("--max-lag says what --check lets pass: name --check, too")

    answer = _ask(load_settings(home=home), check=check, max_lag=max_lag)
    if as_json:
        print_json(_document(answer, check=check))
    elif not check:
        _print(answer)
    elif answer.state is not None:
        _print_troubles(answer)
    _conclude(answer, check=check)


class _Answer(NamedTuple):
    """Hold the state of the services. All other fields are empty where PostgreSQL or Kafka does not answer."""

    services: list[ServiceState]
    lag: list[dict[str, Any]]
    state: Overview | None
    troubles: list[dict[str, str]]
    remarks: list[str]
    snapshot: dict[str, Any] | None


def _ask(settings: Settings, *, check: bool, max_lag: int | None) -> _Answer:
    """Ask the services whether they answer, and then for lag, workers and, with `check`, for troubles."""
    from operations import snapshots
    from operations.health import overview, troubles
    from operations.services.lifecycle import lag, look, remarks
    from operations.services.state import KAFKA, POSTGRESQL

    services = look(settings)
    needed = {KAFKA, POSTGRESQL}  # lag needs no registry
    is_silent = any(service.name in needed and not service.answers for service in services)
    rows = [] if is_silent else lag(settings)
    state = overview(settings) if rows else None  # no lag rows: the tables are not made yet
    if state is None:
        return _Answer(services, rows, state, troubles=[], remarks=[], snapshot=None)
    return _Answer(
        services,
        rows,
        state,
        troubles=troubles(settings, state, rows, max_lag) if check else [],
        remarks=remarks(settings),
        snapshot=snapshots.oldest(settings),
    )


def _document(answer: _Answer, *, check: bool) -> dict[str, Any]:
    from dataclasses import asdict

    document: dict[str, Any] = {"services": [_row(service) for service in answer.services], "lag": answer.lag}
    if answer.state is not None:
        document |= {**asdict(answer.state), "oldest_snapshot": answer.snapshot, "remarks": answer.remarks}
        document |= {"troubles": answer.troubles} if check else {}
    return document


def _print(answer: _Answer) -> None:
    from operations import snapshots

    _print_services(answer.services)
    _print_lag(answer.lag)
    if answer.state is not None:
        _print_overview(answer.state)
    for sentence in [*answer.remarks, *filter(None, [snapshots.sentence(answer.snapshot)])]:
        say(sentence)


def _conclude(answer: _Answer, *, check: bool) -> None:
    """Leave with the exit code for the answer.

    Raises:
        ServiceUnreachable: a service does not answer.
        AnswerIsNo: with `check`, the database has no tables, or something is stuck.
    """
    from operations.services.lifecycle import TITLES

    silent = [service for service in answer.services if not service.answers]
    if silent:
        causes = [service.why for service in answer.services if service.why]
        names = " and ".join(TITLES[service.name] for service in silent)
        raise ServiceUnreachable("; ".join(causes) or f"{names} did not answer: run `guerdon up`")
    if check and answer.state is None:
        from operations.services.state import POSTGRESQL

        (address,) = [service.address for service in answer.services if service.name == POSTGRESQL]
        raise AnswerIsNo(
            f"the database {_without_password(address or '')} has no tables of Guerdon's: where it is the right one, "
            "run `guerdon init`, else correct GUERDON_DATABASE_URL"
        )
    if answer.troubles:
        raise AnswerIsNo(f"{counted(len(answer.troubles), 'thing')} to look after, as said above")


def _row(service: ServiceState) -> dict[str, Any]:
    return {
        "service": service.name,
        "found_by": service.origin,
        "address": service.address and _without_password(service.address),
        "pid": service.pid,
        "answers": service.answers,
        "why": service.why,
    }


def _without_password(address: str) -> str:
    from operations.secrets import without_password

    return without_password(address)


def _print_services(services: list[ServiceState]) -> None:
    from operations.services.lifecycle import TITLES

    rows = [
        [
            TITLES[service.name],
            "answers" if service.answers else "silent",
            ORIGINS[service.origin],
            _without_password(service.address or "-"),
            str(service.pid or "-"),
        ]
        for service in services
    ]
    print_table(["service", "state", "found by", "address", "pid"], rows)


def _print_lag(rows: list[dict[str, Any]]) -> None:
    """Print how far topics and projections are behind; below the table, as sentences are long, why some are stopped."""
    if rows:
        columns = [name for name in rows[0] if name != "stopped"]
        print_table([HEADINGS.get(name, name) for name in columns], [[row[name] for name in columns] for row in rows])
        for row in rows:
            if row["stopped"]:
                word = "stopped" if row["unit"] == "events" else row["what"]
                say(f"{word}: {row['stopped']}")


def _print_overview(state: Overview) -> None:
    """Print a row for each worker, and lines about the log, the quarantine and the live generation."""
    from operations.health import ago, pauses

    # workers
    if state.workers:
        rows = [
            [row["worker"], "lives" if row["lives"] else f"seen {ago(row['seen_s'])}", row["partitions"] or "none",
             ago(row["last_batch_s"])]
            for row in state.workers
        ]  # fmt: skip
        print_table(["worker", "state", "partitions", "last batch"], rows)
        for row in state.workers:
            for part, why in pauses(row):
                say(f"the {part} of {row['worker']} pauses: {why}")
    else:
        say("no worker lives; start one with `guerdon run`")

    # the log
    say(f"last recorded: {ago(state.recorded_s)}")
    total = sum(state.quarantine.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in state.quarantine.items())
    say(f"quarantine: {f'{total:,} open ({reasons})' if total else 'nothing is open'}")
    say(f"held: {counted(state.held, 'member')}")
    say(f"live: generation {state.generation}, decided by meaning {state.meaning}")


def _print_troubles(answer: _Answer) -> None:
    """Print a line for each thing that is stuck, or that nothing is; remarks go to standard error."""
    for remark in answer.remarks:
        say(f"guerdon: {remark}", err=True)
    for trouble in answer.troubles:
        say(f"{trouble['kind']}: {trouble['sentence']}")
    if not answer.troubles:
        say("everything moves")
