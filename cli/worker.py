"""Offer `guerdon init` and `guerdon run`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
    """Name the clock that moves members who have no events."""

    WALL = "wall"
    EVENTS = "events"


LEAVE_WITHIN_S = 4.5
"""How long a leaving worker may wait for services; then it ends at once."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("init")(init)
    app.command("run")(run)


def init(
    partitions: Annotated[
        int,
        typer.Option(min=1, max=64, help="Partitions of each topic; a power of 2 keeps each shard in one partition."),
    ] = 4,
    as_json: JsonFlag = False,
) -> None:
    """Create the topics, bring the database's tables up to date, register the schemas. It is safe to repeat.

    Example: `guerdon init --partitions 8`
    """
    from operations.settings import load_settings
    from operations.setup.initialise import initialise

    done = initialise(load_settings(), partitions)
    if as_json:
        print_json(done)
        return
    for what, result in done.items():
        say(f"{what}: {result}")


def run(
    until_caught_up: Annotated[
        bool,
        typer.Option("--until-caught-up", help="Stop when everything that is in the topics now is done."),
    ] = False,
    clock: Annotated[
        ClockOption | None,
        typer.Option(
            "--clock",
            help="The clock for members without events: wall (default), or events, which is the latest event's time.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="T",
            help="With --until-caught-up and --clock events: move the clock to this instant at the end.",
        ),
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Events in one transaction at most.")] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Answer /livez, /readyz and /metrics there, e.g. 127.0.0.1:9100."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a worker: read events, judge them, record the rewards and show them in the views, until Ctrl-C or SIGTERM.

    Start as many workers as you like, on any machines: they share the partitions, and each event still counts once.

    Points become available and expire by the wall clock, but never ahead of events that wait in the topics. To judge
    old events as they happened, let the clock follow them: `--clock events`.

    Examples: `guerdon run --listen 127.0.0.1:9100`, and
    `guerdon run --until-caught-up --clock events --until 2024-12-31T00:00:00Z`
    """
    from operations.settings import load_settings

    until_ms = None if until is None else instant(until, "--until")
    if until_ms is not None and not (until_caught_up and clock is ClockOption.EVENTS):
        raise InputError("--until needs --until-caught-up and --clock events; add both")
    options = _Options(until_caught_up, None if clock is None else clock.value, until_ms, listen)
    summary = _work(load_settings(max_batch=max_batch), options)
    if as_json:
        print_json(summary)
    else:
        counts = {what: count for what, count in summary.items() if isinstance(count, int)}
        say("done: " + ", ".join(f"{count:,} {_noun(what, count)}" for what, count in counts.items()))
        if summary["live_s"] is not None:
            say(_pace(summary["accepted"], summary["live_s"], summary["facts_s"]))


def _pace(accepted: float, live_s: float, facts_s: float | None) -> str:
    """Say how long a run took until it had caught up, and how long the facts took after it."""
    live = f"caught up in {live_s:.1f} s: {accepted / live_s:,.0f} events/s"
    return live if facts_s is None else f"{live}; facts followed in {facts_s:.1f} s"


def _noun(what: str, count: int) -> str:
    """Return what is counted, in the singular for 1."""
    return {"rewards": "reward", "batches": "batch", "ticks": "tick"}.get(what, what) if count == 1 else what


class _Options(NamedTuple):
    """Hold the options of a run; None where an option is not given."""

    until_caught_up: bool
    clock: ClockName | None
    until_ms: int | None
    listen: str | None


def _work(settings: Settings, options: _Options) -> dict[str, Any]:
    """Run the worker in this process, and return its counts; a signal lets it finish its batch first."""
    import signal
    import threading
    from contextlib import ExitStack
    from dataclasses import asdict

    from consumers.clock import refuse_old_backlog
    from consumers.health.logging import log_to_stderr
    from consumers.health.watch import worker_name
    from consumers.source.source import topics_of
    from consumers.worker import Worker
    from operations.settings import known_secrets
    from schemas.registry import writer_schemas

    name = worker_name()
    log_to_stderr(known_secrets(), worker=name, group=settings.group_id)
    worker: Worker | None = None

    def leave(*_: object) -> None:
        if worker is None:
            raise KeyboardInterrupt  # nothing was begun yet
        worker.stop()

    def leave_in_time() -> None:
        if worker is not None:
            worker.stop()
        deadline = threading.Timer(LEAVE_WITHIN_S, _leave_at_once)
        deadline.daemon = True
        deadline.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    _call_at_signals(leave_in_time)

    with ExitStack() as stack:
        watch, serve = _watch(settings, name, options.listen, stack)
        schemas = writer_schemas(settings.registry_url)
        if options.clock is None:
            refuse_old_backlog(settings, topics_of(settings), schemas)
        worker = Worker(
            settings,
            schemas,
            until_caught_up=options.until_caught_up,
            clock=options.clock or "wall",
            until_ms=options.until_ms,
            watch=watch,
        )
        serve(worker)
        return asdict(worker.run())


def _watch(
    settings: Settings, name: str, listen: str | None, stack: ExitStack
) -> tuple[Watch, Callable[[Worker], None]]:
    """Return the worker's watch, and a function that begins to answer HTTP requests, if any are to be answered.

    Leaving `stack` ends the answering.
    """
    from consumers.health.watch import Watch

    if listen is None:
        return Watch(settings, name), lambda _worker: None
    from consumers.health.listen import Listener, address_of, pages_of
    from consumers.health.metrics import Metrics

    listener = Listener(address_of(listen))
    stack.callback(listener.close)
    watch = Watch(settings, name, Metrics())
    return watch, lambda worker: listener.serve(pages_of(watch, worker.heartbeat))


def _call_at_signals(call: Callable[[], None]) -> None:
    """Call `call` in a thread at each signal: while the main thread waits in a library, Python runs no handler."""
    import os
    import signal
    import threading

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while os.read(reading, 1):
            call()

    threading.Thread(target=listen, name="signals", daemon=True).start()


def _leave_at_once() -> None:
    """End a worker that a silent service keeps from leaving; the next worker reads again what was not committed."""
    import os

    say("guerdon: left without waiting longer for a service that does not answer; nothing is lost", err=True)
    os._exit(3)
