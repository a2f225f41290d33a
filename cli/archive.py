"""Copy history out of PostgreSQL and bring it back: `guerdon archive export`, `verify`, `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.terminal.output import JsonFlag, instant, print_json, say
from cli.terminal.progress import stages

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The archive's folder.")]

commands = typer.Typer(help="Copy the source log to Parquet, prove the copy, bring it back.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="archive")


@commands.command("export")
def export(
    folder: Folder,
    *,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="Only events that were recorded before this instant.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="Write the members' keys to this file, outside DIR.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the source log, and all else that a replay needs, to DIR; a repetition adds what is new.

    Example: `guerdon archive export /backup/guerdon --keys /safe/guerdon.keys`
    """
    from operations.archive.export import export as write
    from operations.settings import load_settings

    until_ms = None if until is None else instant(until, "--until")
    with stages() as report:
        result = write(
            load_settings().database_url,
            folder,
            until_ms=until_ms,
            keys=keys,
            report=lambda done, of: report("export", done, of),
        )
    _print(result, f"{result['new_events']:,} source events added", as_json=as_json)


@commands.command("verify")
def verify(folder: Folder, as_json: JsonFlag = False) -> None:
    """Read every file of the archive in DIR and recompute its digests and hashes; exit code 1 where one is wrong.

    Example: `guerdon archive verify /backup/guerdon`
    """
    from operations.archive.export import verify as read

    with stages() as report:
        result = read(folder, lambda done, of: report("verify", done, of))
    _print(result, "every file and every hash is right", as_json=as_json)


@commands.command("import")
def import_(
    folder: Folder,
    *,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="The file of members' keys that an export wrote.")
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Processes that work at the same time.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Fill an empty database from the archive in DIR, and judge its history again, to the same bytes.

    Example: `guerdon archive import /backup/guerdon --keys /safe/guerdon.keys`
    """
    from operations.archive.restore import restore
    from operations.settings import load_settings

    with stages() as report:
        result = restore(load_settings().database_url, folder, keys=keys, cores=cores, report=report)
    if as_json:
        print_json(result)
        return

    say(f"archive {result['digest']}")
    say(
        f"{result['events']:,} source events restored; generation {result['generation']} is live with the same "
        f"{result['reward_events']:,} reward events, to the byte"
    )
    if not result["goes_on"]:
        say("for replays and questions only: a worker needs a whole archive, imported with --keys")


def _print(result: dict[str, Any], done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    say(f"archive {result['digest']}")
    until = "" if result["whole"] else ", cut by --until"
    say(f"{done}; {result['events']:,} in {result['files']:,} files, {result['bytes']:,} bytes{until}")
