"""Publish events: `guerdon publish`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json, say
from schemas.display import visible
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from operations.intake.publish import BadLine, Published, Reading

EXIT_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("publish")(publish)


def publish(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files of JSON lines; - is standard input.")],
    rate: Annotated[float | None, typer.Option("--rate", min=0.001, help="Events per second at most.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish JSON lines to Kafka as Avro, each event to the topic of its type.

    Each bad line is named on standard error as `file:line: reason: message`; the good lines are published all the same,
    and the exit code is 2. It is safe to publish a file twice: the same event counts once. Nothing is published where
    the settings name other topics, or another cluster, than the database reads.

    Example: `guerdon publish events.jsonl --rate 500`
    """
    from operations.intake.producer import encoder_for
    from operations.intake.publish import Reading, publish_events
    from operations.kafka.places import refuse_elsewhere
    from operations.settings import load_settings

    settings = load_settings()
    refuse_elsewhere(settings)

    bad: list[BadLine] = []
    with _progress() as (print_line, advance):

        def on_bad(line: BadLine) -> None:
            if as_json:
                bad.append(line)
            print_line(str(line))

        reading = Reading(files, on_bad)
        outcome = publish_events(
            settings.kafka_config(),
            encoder_for(settings.registry_url),
            reading.events(),
            topic_prefix=settings.topic_prefix,
            rate_per_s=rate,
            on_progress=lambda sent: advance(sent, reading),
        )

    if as_json:
        print_json(_document(outcome, bad))
    else:
        say(f"published {_events(outcome.published)}")
    _conclude(outcome, reading.bad)


def _conclude(outcome: Published, bad: int) -> None:
    """Leave with the exit code for the outcome."""
    if outcome.failed:
        raise ServiceUnreachable(
            f"Kafka did not take {_events(outcome.failed)} (first: {outcome.first_failure}) and took "
            f"{outcome.published:,}; mend that and publish again: what arrived already counts once"
        )
    if outcome.interrupted:
        say("guerdon: interrupted; publish again to send the rest: what arrived already counts once", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if bad:
        lines = "1 line was" if bad == 1 else f"{bad:,} lines were"
        raise InputError(
            f"{lines} not published, {_events(outcome.published)} {'was' if outcome.published == 1 else 'were'}; "
            f"correct and publish again: what arrived already counts once"
        )


def _document(outcome: Published, bad: list[BadLine]) -> dict[str, Any]:
    return {
        "published": outcome.published,
        "failed": outcome.failed,
        "first_failure": outcome.first_failure,
        "bad": [
            {"file": line.file, "line": line.line, "reason": str(line.reason), "message": line.message} for line in bad
        ],
    }


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"


def _progress() -> AbstractContextManager[tuple[Callable[[str], None], Callable[[int, Reading], None]]]:
    """Return a function that prints a line on standard error, and one that moves the bar, which only a terminal has."""
    from contextlib import contextmanager

    return contextmanager(_bar if sys.stderr.isatty() else _no_bar)()


def _no_bar() -> Iterator[tuple[Callable[[str], None], Callable[[int, Reading], None]]]:
    yield (lambda line: say(line, err=True)), (lambda _sent, _reading: None)


def _bar() -> Iterator[tuple[Callable[[str], None], Callable[[int, Reading], None]]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("publish"), BarColumn(), TextColumn("{task.fields[sent]:,} events"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("publish", total=None, sent=0)

        def say_above(line: str) -> None:
            progress.console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

        def advance(sent: int, reading: Reading) -> None:
            progress.update(task, total=reading.bytes_total, completed=reading.bytes_read, sent=sent)

        yield say_above, advance
