"""Start, stop and show the local services: `guerdon up`, `down`, `status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import JsonFlag, print_json, print_table
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
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
        typer.echo(note, err=True)
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
        typer.echo(f"ended {what}" if ended else "nothing was running here")
        if volumes:
            typer.echo("data deleted")


def status(home: HomeFlag = None, as_json: JsonFlag = False) -> None:
    """Show each service, how it was found, its address and process, and the lag per topic and projection.

    Exit code 3 where a service does not answer.

    Example: `guerdon status --json`
    """
    from operations.services.lifecycle import TITLES, lag, look  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    settings = load_settings(home=home)
    services = look(settings)
    silent = [TITLES[service.name] for service in services if not service.answers]
    rows = [] if silent else lag(settings)
    if as_json:
        print_json({"services": [_row(service) for service in services], "lag": rows})
    else:
        _print_services(services)
        _print_lag(rows)
    if silent:
        told = [service.why for service in services if service.why]
        raise ServiceUnreachable("; ".join(told) or f"{' and '.join(silent)} did not answer: run `guerdon up`")


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
    from operations.settings import without_password  # noqa: PLC0415  `guerdon --help` must not wait for it

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
    if rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
