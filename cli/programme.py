"""Look after programme files: `guerdon programme check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.problems import Problem

ProgrammeFile = Annotated[Path, typer.Argument(metavar="FILE", help="The programme file.")]

programme = typer.Typer(name="programme", help="Check a programme file.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(programme)


@programme.callback()
def _group() -> None:
    """Check a programme file."""


@programme.command("check")
def check(
    file: ProgrammeFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Name every error and warning in a programme file at once, as `file:line:column: message`.

    Exit code 0 where the programme can be used (warnings leave it usable), 2 where it cannot.

    Example: `guerdon programme check examples/grocery/programme.yaml`
    """
    from engine.programme.load import load_file  # noqa: PLC0415  `guerdon --help` must not wait for it

    loaded = load_file(file)
    if as_json:
        typer.echo(json.dumps([asdict(problem) for problem in loaded.problems], indent=2))
    else:
        print_problems(loaded.problems)
    if loaded.programme is None:
        count = len(loaded.errors)
        raise InputError(
            f"{file} has {'1 error' if count == 1 else f'{count} errors'}; correct the file and check again"
        )
    if not as_json:
        rules = len(loaded.programme.rules)
        typer.echo(f"{file}: programme {loaded.programme.id}, {'1 rule' if rules == 1 else f'{rules} rules'}, no error")


def print_problems(problems: Iterable[Problem]) -> None:
    """Print each problem on a line of its own, on standard error."""
    for problem in problems:
        typer.echo(str(problem), err=True)
