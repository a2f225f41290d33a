"""Offer `guerdon init` and `guerdon run`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cli.terminal.output import JsonFlag, instant, print_json, say
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from consumers.clock import ClockName
    from consumers.health.watch import Watch
    from consumers.worker import Worker
    from operations.settings import Settings


class ClockOption(StrEnum):
    """Name what moves members who have no events."""

    WALL = "wall"
    EVENTS = "events"


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
    from operations.settings import load_settings  # noqa: PLC0415  as above
    from operations.setup.initialise import initialise  # noqa: PLC0415  start-up: only what the command needs

    done = initialise(load_settings(), partitions)
    if as_json:
        print_json(done)
        return
    for what, result in done.items():
        say(f"{what}: {result}")


def run(
    until_caught_up: Annotated[
        bool,
        typer.Option("--until-caught-up", help="Stop when all that is in the topics now is taken and projected."),
    ] = False,
    clock: Annotated[
        ClockOption | None,
        typer.Option(
            "--clock",
            help="What moves members without events: the wall clock (default), or the time of the latest event.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="T", help="With --until-caught-up and --clock events: move the clock on to this instant."
        ),
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Events in one transaction at most.")] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Answer /livez, /readyz and /metrics there, as 127.0.0.1:9100."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the worker: consume, evaluate, record and project, until told to stop (Ctrl-C or SIGTERM).

    Start as many as you like, on any machines: they share the partitions, and each event still counts once.

    Points are released, expire and so on by the wall clock, but never ahead of events that wait in the topics. To work
    off old events as they happened, let time go with them: `--clock events`.

    Examples: `guerdon run --listen 127.0.0.1:9100`, and
    `guerdon run --until-caught-up --clock events --until 2024-12-31T00:00:00Z`
    """
    from operations.settings import load_settings  # noqa: PLC0415  start-up: only what the command needs

    until_ms = None if until is None else instant(until, "--until")
    if until_ms is not None and not (until_caught_up and clock is ClockOption.EVENTS):
        raise InputError("--until moves the clock of events on: name --until-caught-up and --clock events, too")
    how = _How(until_caught_up, None if clock is None else clock.value, until_ms, listen)
    summary = _work(load_settings(max_batch=max_batch), how)
    if as_json:
        print_json(summary)
    else:
        say("done: " + ", ".join(f"{count:,} {what}" for what, count in summary.items()))


class _How(NamedTuple):
    """Say how to run; `clock` and `listen` are None where none is named."""

    until_caught_up: bool
    clock: ClockName | None
    until_ms: int | None
    listen: str | None


def _work(settings: Settings, how: _How) -> dict[str, int]:
    import signal  # noqa: PLC0415  start-up: only what the command needs
    import threading  # noqa: PLC0415  as above
    from contextlib import ExitStack  # noqa: PLC0415  as above
    from dataclasses import asdict  # noqa: PLC0415  as above

    from consumers.clock import refuse_old_backlog  # noqa: PLC0415  as above
    from consumers.health.logging import log_to_stderr  # noqa: PLC0415  as above
    from consumers.health.watch import worker_name  # noqa: PLC0415  as above
    from consumers.source.source import topics_of  # noqa: PLC0415  as above
    from consumers.worker import Worker  # noqa: PLC0415  as above
    from operations.settings import known_secrets  # noqa: PLC0415  as above
    from schemas.registry import writer_schemas  # noqa: PLC0415  as above

    name = worker_name()
    log_to_stderr(known_secrets(), worker=name, group=settings.group_id)
    worker: Worker | None = None

    def leave(*_: object) -> None:
        if worker is None:
            raise KeyboardInterrupt  # nothing was begun yet
        worker.stop()

    def insist() -> None:
        if worker is not None:
            worker.stop()
        deadline = threading.Timer(LEAVE_WITHIN_S, _leave_at_once)
        deadline.daemon = True
        deadline.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    _hear_signals(insist)
    with ExitStack() as stack:
        watch, serve = _watch(settings, name, how.listen, stack)
        schemas = writer_schemas(settings.registry_url)
        if how.clock is None:
            refuse_old_backlog(settings, topics_of(settings), schemas)
        worker = Worker(
            settings,
            schemas,
            until_caught_up=how.until_caught_up,
            clock=how.clock or "wall",
            until_ms=how.until_ms,
            watch=watch,
        )
        serve(worker)
        return asdict(worker.run())


def _watch(
    settings: Settings, name: str, listen: str | None, stack: ExitStack
) -> tuple[Watch, Callable[[Worker], None]]:
    """Return what a worker tells of itself, and what lets it answer where somebody may ask; `stack` ends that."""
    from consumers.health.watch import Watch  # noqa: PLC0415  start-up: only what the command needs

    if listen is None:
        return Watch(settings, name), lambda _worker: None
    from consumers.health.listen import Listener, address_of, pages_of  # noqa: PLC0415  as above
    from consumers.health.metrics import Metrics  # noqa: PLC0415  as above

    listener = Listener(address_of(listen))
    stack.callback(listener.close)
    watch = Watch(settings, name, Metrics())
    return watch, lambda worker: listener.serve(pages_of(watch, worker.heartbeat))


def _hear_signals(heard: Callable[[], None]) -> None:
    """Call `heard` in a thread at each signal: while the main thread waits in a library, it heeds none itself."""
    import os  # noqa: PLC0415  start-up: only what the command needs
    import signal  # noqa: PLC0415  as above
    import threading  # noqa: PLC0415  as above

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def hear() -> None:
        while os.read(reading, 1):
            heard()

    threading.Thread(target=hear, name="signals", daemon=True).start()


def _leave_at_once() -> None:
    """End a worker that a silent service keeps from leaving; what it did not commit is read again."""
    import os  # noqa: PLC0415  start-up: only what the command needs

    say("guerdon: left without waiting longer for a service that does not answer; nothing is lost", err=True)
    os._exit(3)
