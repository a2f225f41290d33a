"""Offer `guerdon init` and `guerdon run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from operations.settings import Settings


LEAVE_WITHIN_S = 4.5


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("init")(init)
    app.command("run")(run)


def init(
    partitions: Annotated[
        int, typer.Option(min=1, max=64, help="Partitions of each topic; 1, 2, 4 … 64 keep a member's shard in one.")
    ] = 4,
    as_json: JsonFlag = False,
) -> None:
    """Create the topics, migrate the database, register the schemas. Safe to repeat.

    Example: `guerdon init --partitions 8`
    """
    from operations.initialise import initialise  # noqa: PLC0415  start-up: only what the command needs
    from operations.settings import load_settings  # noqa: PLC0415  as above

    done = initialise(load_settings(), partitions)
    if as_json:
        print_json(done)
        return
    for what, result in done.items():
        typer.echo(f"{what}: {result}")


def run(
    until_caught_up: Annotated[
        bool,
        typer.Option("--until-caught-up", help="Stop when all that is in the topics now is taken and projected."),
    ] = False,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Events in one transaction at most.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the worker: consume, evaluate, record and project, until told to stop (Ctrl-C or SIGTERM).

    Start as many as you like, on any machines: they share the partitions, and each event still counts once.

    Example: `guerdon run --until-caught-up`
    """
    from operations.settings import load_settings  # noqa: PLC0415  start-up: only what the command needs

    summary = _work(load_settings(max_batch=max_batch), until_caught_up=until_caught_up)
    if as_json:
        print_json(summary)
    else:
        typer.echo("done: " + ", ".join(f"{count:,} {what}" for what, count in summary.items()))


def _work(settings: Settings, *, until_caught_up: bool) -> dict[str, int]:
    import signal  # noqa: PLC0415  start-up: only what the command needs
    import threading  # noqa: PLC0415  as above
    from dataclasses import asdict  # noqa: PLC0415  as above

    from consumers.logging import log_to_stderr  # noqa: PLC0415  as above
    from consumers.worker import Worker  # noqa: PLC0415  as above
    from schemas.registry import writer_schemas  # noqa: PLC0415  as above

    log_to_stderr()
    worker: Worker | None = None

    def leave(*_: object) -> None:
        if worker is None:
            raise KeyboardInterrupt  # nothing was begun yet
        worker.stop()
        deadline = threading.Timer(LEAVE_WITHIN_S, _leave_at_once)
        deadline.daemon = True
        deadline.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    worker = Worker(settings, writer_schemas(settings.registry_url), until_caught_up=until_caught_up)
    return asdict(worker.run())


def _leave_at_once() -> None:
    """End a worker that a silent service keeps from leaving; what it did not commit is read again."""
    import os  # noqa: PLC0415  start-up: only what the command needs

    typer.echo("guerdon: left without waiting longer for a service that does not answer; nothing is lost", err=True)
    os._exit(3)
