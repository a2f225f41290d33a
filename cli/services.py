"""Start, stop and show the local services: `guerdon up`, `down`, `status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, counted, print_json, print_table, say
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

if TYPE_CHECKING:
    from operations.health import Overview
    from operations.services.lifecycle import ServiceState

HomeFlag = Annotated[Path | None, typer.Option("--home", help="Folder of the services' data (else GUERDON_HOME).")]
ORIGINS = {"environment": "settings", "docker": "Docker", "local": "local process", None: "not started"}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


def up(
    local: Annotated[bool, typer.Option("--local", help="Leave Docker aside.")] = False,
    home: HomeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Find or start Kafka and PostgreSQL, and say which were taken.

    In this order: the addresses in the settings, Docker with docker-compose.yml, local processes.

    Example: `guerdon up && guerdon status`
    """
    from operations.services.lifecycle import bring_up  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    outcome = bring_up(load_settings(home=home), local=local)
    for note in outcome.notes:
        say(note, err=True)
    if as_json:
        print_json([_row(service) for service in outcome.services])
    else:
        _print_services(outcome.services)


def down(
    volumes: Annotated[bool, typer.Option("--volumes", help="Delete the data too.")] = False,
    home: HomeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """End the services that `guerdon up` started here; data stays unless --volumes is given.

    Example: `guerdon down --volumes`
    """
    from operations.services.lifecycle import TITLES, take_down  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

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
        bool, typer.Option("--check", help="Say only what does not move, with exit code 1 where anything does not.")
    ] = False,
    max_lag: Annotated[
        int | None,
        typer.Option(
            "--max-lag", min=0, metavar="N", help="With --check: name what is more than N events behind, too."
        ),
    ] = None,
    home: HomeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Show each service, how far topics and projections are behind, the workers, and what is set aside.

    Exit code 3 where a service does not answer. With --check, 1 where no worker lives or one is stuck, a partition is
    stopped, events wait and no batch is committed, a member is held, or a writer, projector or publisher pauses.

    Example: `guerdon status`, and in a monitor `guerdon status --check --max-lag 10000`
    """
    from dataclasses import asdict  # noqa: PLC0415  `guerdon --help` must not wait for it

    from operations import snapshots  # noqa: PLC0415  as above
    from operations.health import overview, troubles  # noqa: PLC0415  as above
    from operations.services.lifecycle import TITLES, lag, look, remarks  # noqa: PLC0415  as above
    from operations.services.state import KAFKA, POSTGRESQL  # noqa: PLC0415  as above
    from operations.settings import load_settings  # noqa: PLC0415  as above

    if max_lag is not None and not check:
        raise InputError("--max-lag says what --check lets pass: name --check, too")
    settings = load_settings(home=home)
    services = look(settings)
    silent = [TITLES[service.name] for service in services if not service.answers]
    needed = {TITLES[name] for name in (KAFKA, POSTGRESQL)}  # lag is known without the registry
    rows = [] if needed.intersection(silent) else lag(settings)
    found = overview(settings) if rows else None  # a database with our tables has projections
    named = troubles(settings, found, rows, max_lag) if check and found else []
    told = [] if found is None else remarks(settings)
    snapshot = None if found is None else snapshots.oldest(settings)
    if as_json:
        more = {} if found is None else {**asdict(found), "oldest_snapshot": snapshot, "remarks": told}
        checked = {"troubles": named} if check and found else {}
        print_json({"services": [_row(service) for service in services], "lag": rows, **more, **checked})
    elif not check:
        _print_services(services)
        _print_lag(rows)
        if found is not None:
            _print_overview(found)
        for sentence in [*told, *filter(None, [snapshots.told(snapshot)])]:
            say(sentence)
    elif found is not None:
        _print_troubles(named, told)
    if silent:
        causes = [service.why for service in services if service.why]
        raise ServiceUnreachable("; ".join(causes) or f"{' and '.join(silent)} did not answer: run `guerdon up`")
    if check and found is None:
        raise AnswerIsNo("the database has no tables of Guerdon's yet: run `guerdon init`")
    if named:
        raise AnswerIsNo(f"{counted(len(named), 'thing')} to look after, as said above")


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
    from operations.secrets import without_password  # noqa: PLC0415  `guerdon --help` must not wait for it

    return without_password(address)


def _print_services(services: list[ServiceState]) -> None:
    from operations.services.lifecycle import TITLES  # noqa: PLC0415  `guerdon --help` must not wait for it

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
    """Print a table of what is behind, and why a topic is stopped in lines of their own, as sentences are long."""
    if rows:
        columns = [name for name in rows[0] if name != "stopped"]
        print_table(columns, [[row[name] for name in columns] for row in rows])
        for row in rows:
            if row["stopped"]:
                word = "stopped" if row["unit"] == "events" else row["what"]
                say(f"{word}: {row['stopped']}")


def _print_overview(found: Overview) -> None:
    """Print a row a worker, and lines about what is set aside, whatever its number."""
    from operations.health import ago, pauses  # noqa: PLC0415  `guerdon --help` must not wait for it

    if found.workers:
        rows = [
            [row["worker"], "lives" if row["lives"] else f"seen {ago(row['seen_s'])}", row["partitions"] or "none",
             ago(row["last_batch_s"])]
            for row in found.workers
        ]  # fmt: skip
        print_table(["worker", "state", "partitions", "last batch"], rows)
        for row in found.workers:
            for part, why in pauses(row):
                say(f"the {part} of {row['worker']} pauses: {why}")
    else:
        say("no worker lives; start one with `guerdon run`")
    say(f"last recorded: {ago(found.recorded_s)}")
    total = sum(found.quarantine.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.quarantine.items())
    say(f"quarantine: {f'{total:,} open ({reasons})' if total else 'nothing is open'}")
    say(f"held: {counted(found.held, 'member')}")
    say(f"live: generation {found.generation}, decided by meaning {found.meaning}")


def _print_troubles(troubles: list[dict[str, str]], remarks: list[str]) -> None:
    """Print a line for each thing that does not move, or that everything does; remarks on standard error."""
    for remark in remarks:
        say(f"guerdon: {remark}", err=True)
    for trouble in troubles:
        say(trouble["sentence"])
    if not troubles:
        say("everything moves")
