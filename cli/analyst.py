"""Give people and tools logins that read the views: `guerdon analyst create`, `list`, `renew`, `drop`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.output import JsonFlag, counted, print_as_it_is, print_json, print_rows, say

if TYPE_CHECKING:
    from operations.analysts import Login

Name = Annotated[str, typer.Argument(metavar="NAME", help="The login's name: small letters, digits and _.")]

commands = typer.Typer(help="Logins for people and tools that read the views, and nothing else.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="analyst")


@commands.command("create")
def create(name: Name, as_json: JsonFlag = False) -> None:
    """Make a login that reads the views of schema reward, and print its URL, the only time.

    Example: `guerdon analyst create ann`
    """
    from operations.analysts import create as make
    from operations.settings import load_settings

    _print(make(load_settings(), name), as_json=as_json)


@commands.command("renew")
def renew(name: Name, as_json: JsonFlag = False) -> None:
    """Give a login a new password, and print its URL, the only time; the old password is worth nothing any more.

    Example: `guerdon analyst renew ann`
    """
    from operations.analysts import renew as give_new_password
    from operations.settings import load_settings

    _print(give_new_password(load_settings(), name), as_json=as_json)


@commands.command("list")
def listed(as_json: JsonFlag = False) -> None:
    """List the logins that read the views: their sessions now, how many each may have, and who made it.

    Example: `guerdon analyst list`
    """
    from operations.analysts import analysts
    from operations.settings import load_settings

    print_rows(analysts(load_settings()), as_json=as_json, empty="nobody; `guerdon analyst create NAME` makes a login")


@commands.command("drop")
def drop(name: Name) -> None:
    """Take a login away, and end its sessions.

    Example: `guerdon analyst drop ann`
    """
    from operations.analysts import drop as take_away
    from operations.settings import load_settings

    ended = take_away(load_settings(), name)
    say(f"{name} can read nothing any more" + (f"; {counted(ended, 'session')} ended" if ended else ""))


def _print(login: Login, *, as_json: bool) -> None:
    if as_json:
        print_json(login._asdict())
        return
    say(f"{login.name} reads the views of schema reward by this URL, which holds the password and is not shown again:")
    print_as_it_is(f"{login.url}\n")
