"""Give machines keys for the API: `guerdon key create`, `list`, `revoke`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.terminal.output import JsonFlag, print_as_it_is, print_json, print_rows, say

commands = typer.Typer(help="Keys with which machines call `guerdon serve`.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="key")


@commands.command("create")
def create(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="Who gets it: small letters, digits and . _ -.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="What it may do; give the option as often as you like."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=3_650, help="Days until it ends; without them it lasts until revoked.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and print it, the only time. A client may have two, so that it can change without a pause.

    Example: `guerdon key create till --scope members:read --scope programme:read`
    """
    from operations.access.keys import create as make
    from operations.access.scopes import Scope
    from operations.settings import load_settings
    from schemas.errors import InputError

    if not scopes:
        raise InputError(
            f"say what the key may do by --scope SCOPE, as often as you like; there are {', '.join(Scope)} "
            "(docs/api.md says what each opens)"
        )
    made = make(load_settings().database_url, client, scopes, days=days)
    if as_json:
        print_json(made._asdict())
        return
    print_as_it_is(f"{made.key}\n")
    say(f"key {made.key_id} of {client}: keep it now, nobody can be shown it again", err=True)


@commands.command("list")
def list_keys(as_json: JsonFlag = False) -> None:
    """List all keys, the newest first, without their secrets.

    Example: `guerdon key list --json`
    """
    from operations.access.keys import keys
    from operations.settings import load_settings

    rows = keys(load_settings().database_url)
    if not as_json:
        rows = [{**row, "scopes": " ".join(row["scopes"])} for row in rows]
    empty = "there is no key yet; `guerdon key create CLIENT --scope SCOPE` makes one"
    print_rows(rows, as_json=as_json, empty=empty)


@commands.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `guerdon key list` names it.")]) -> None:
    """Make a key worthless for good; servers that have seen it a moment ago believe it for 5 s more.

    Example: `guerdon key revoke 0a1b2c3d4e5f`
    """
    from operations.access.keys import revoke as end
    from operations.settings import load_settings

    client = end(load_settings().database_url, key_id)
    say(f"key {key_id} of {client} is worthless from now on")
