"""Copy what analysts read into Parquet files: `guerdon export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.terminal.output import JsonFlag, counted, instant, print_json, say
from cli.terminal.progress import stages

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The export's folder.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    folder: Folder,
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="T", help="Leave out what counts before this instant.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: read every file and compare it with the manifest.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the views as Parquet to FOLDER, by generation, shard and month; a repetition writes what has changed.

    Examples: `guerdon export /data/guerdon`, `guerdon export /data/guerdon --since 2026-01-01T00:00:00Z`,
    `guerdon export /data/guerdon --verify`
    """
    from operations.export import run
    from operations.settings import load_settings
    from schemas.errors import InputError

    if verify and since is not None:
        raise InputError("--verify reads the files that there are; leave out --since")

    with stages() as report:
        if verify:
            result = run.verify(folder, lambda done, of: report("verify", done, of))
        else:
            since_ms = None if since is None else instant(since, "--since")
            result = run.export(
                load_settings().database_url,
                folder,
                since_ms=since_ms,
                report=lambda done, of: report("export", done, of),
            )
    if as_json:
        print_json(result)
        return

    for path in result.get("mended", ()):
        say(f"{path} was not as it was written, and is written again")
    done = "every file is as it was written" if verify else f"{counted(result['written'], 'file')} written"
    say(f"{done}, {result['removed']:,} removed" if result.get("removed") else done)
    say(
        f"{result['rows']:,} rows of generation {result['generation']} in {counted(result['files'], 'file')}, "
        f"{result['bytes']:,} bytes, as of {result['as_of']}"
    )
