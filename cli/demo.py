"""Show the whole path on real data: `guerdon demo`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from operations.settings import Settings

_MEMBER_COLUMNS = ("occurred_at", "type", "amount", "rule_id", "order_id", "reason")
_TOP_COLUMNS = ("rank", "member_id", "granted", "available")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("demo")(demo)


def demo(
    small: Annotated[bool, typer.Option("--small", help="Take 5 % of the households.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the demo's data to look at; the next demo removes it.")] = (
        False
    ),
    as_json: JsonFlag = False,
) -> None:
    """Take a year of real grocery baskets from Kafka to balances, and prove that the figures agree.

    It starts a Kafka and a PostgreSQL of its own, and ends them whatever happens. The exit code is 0 only if every
    member's balance equals an independent computation over the same data.

    Example: `guerdon demo --small`
    """
    from operations.demo.tour import run_demo
    from operations.settings import load_settings

    shown = run_demo(load_settings().home, _work, _OnStandardError(), small=small, keep=keep)
    if as_json:
        print_json(shown)
    else:
        _print(shown)


def _print(shown: dict[str, Any]) -> None:
    say()
    say("top members")
    print_table(list(_TOP_COLUMNS), [[row[name] for name in _TOP_COLUMNS] for row in shown["top_members"]])

    person = shown["member"]
    say(f"the last reward events of {person['member_id']}, {person['why']}")
    print_table(list(_MEMBER_COLUMNS), [[row[name] for name in _MEMBER_COLUMNS] for row in person["reward_events"]])

    say("verify")
    print_table(
        ["check", "looked_at", "result"],
        [[row["check"], row["looked_at"], row["problem"] or "ok"] for row in shown["verify"]],
    )

    check, worked = shown["check"], shown["worked"]
    say(
        f"{check['points']:,} points of {check['members']:,} members agree with the independent computation; "
        f"{worked['accepted']:,} events went from Kafka to the views at {worked['events_per_s']:,} events/s"
    )


def _work(settings: Settings, advance: Callable[[int], None]) -> Mapping[str, Any]:
    """Run a worker in this process until it has caught up; a signal lets it finish its batch first."""
    import logging
    import signal
    from dataclasses import asdict

    import structlog

    from consumers.health.logging import log_to_stderr
    from consumers.worker import Worker
    from operations.settings import known_secrets
    from schemas.registry import writer_schemas

    log_to_stderr(known_secrets())
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signals: list[int] = []

    def observe(point: str) -> None:
        if point == "after commit":
            advance(worker.summary.accepted)

    def stop(number: int, _frame: object) -> None:
        signals.append(number)
        worker.stop()

    worker = Worker(
        settings, writer_schemas(settings.registry_url), until_caught_up=True, clock="events", observe=observe
    )

    # a signal stops the worker instead of this process, which has services to end
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        summary = worker.run()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if signals:
        raise KeyboardInterrupt
    return asdict(summary)


class _OnStandardError:
    """Write a line for each stage on standard error, and on a terminal a bar while a stage takes long."""

    def stage(self, name: str, sentence: str) -> None:
        """Write the result of a stage."""
        say(f"{name:<9} {sentence}", err=True)

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that moves the bar to a number of events."""
        if not sys.stderr.isatty():
            yield lambda _done: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = TextColumn(f"{name:<9}"), BarColumn(), MofNCompleteColumn(), TextColumn("events")
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.update(task, completed=done)
