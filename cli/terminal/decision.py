"""Take the words of who decides something by a report: who they are, and why they decide so."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from schemas.errors import InputError

Why = Annotated[str | None, typer.Option("--why", help="The reason; it is recorded.")]
Actor = Annotated[
    str | None, typer.Option("--actor", help="Who decides it; by default who is logged in to this machine.")
]


def login() -> str:
    """Return the name of who is logged in.

    Raises:
        InputError: the system does not know it.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise InputError(f"--actor is missing, and the system does not know who you are ({error})") from None
