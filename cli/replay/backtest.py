"""Try a programme file on history, in memory: `guerdon backtest`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path  # noqa: TC003  Typer reads the annotation
from typing import Annotated, Any

import typer

from cli.replay.difference import print_figures, print_meanings, print_members, write_members
from cli.terminal.output import JsonFlag, counted, instant, print_json, say
from cli.terminal.progress import progress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("backtest")(backtest)


def backtest(
    programme: Annotated[Path, typer.Argument(metavar="PROGRAMME", help="The programme file to try.")],
    *,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", help="Let it judge only events from this instant on; else all events."),
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Processes that work at the same time.")] = 1,
    members: Annotated[bool, typer.Option("--members", help="List who gains, loses or changes tier.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the list of members to this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write the list to this Parquet file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare the rewards that a programme file would have given with those given; nothing is written or locked.

    Example: `guerdon backtest next.yaml --since 2026-01-01T00:00:00Z --cores 2`
    """
    from operations.replay.backtest import Question, backtested
    from operations.settings import load_settings

    since_ms = None if since is None else instant(since, "--since")
    question = Question(programme, since_ms, cores)
    with ExitStack() as stack:
        with progress("backtest", "events") as report:
            tested = stack.enter_context(backtested(load_settings().database_url, question, report))
        document = tested.document()
        write_members(tested, csv, parquet)
        if as_json:
            print_json(document | ({"members_affected": list(tested.members())} if members else {}))
            return
        _print(document)
        if members:
            print_members(tested)


def _print(document: dict[str, Any]) -> None:
    members, since = document["members"], document["since"]
    say(
        f"{document['events']:,} source events judged by {document['programme']}"
        f"{'' if since is None else f' from {since} on'} in {document['seconds']:,.1f} s: of {members['active']:,} "
        f"active members {members['awarded_after']:,} would have been given something ({members['awarded_before']:,} "
        f"were), {members['affected']:,} would have more or less, or another tier"
    )
    if document["members_held"]:
        unjudged = document["members_held"]
        say(f"{counted(len(unjudged), 'member')} could not be judged: {unjudged[0]} first")
    print_meanings(document)
    print_figures(document)
