"""Open PostgreSQL's own shell on the views: `guerdon psql`."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("psql", context_settings={"ignore_unknown_options": True})(psql)


def psql(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTIONS OF PSQL...]", help="Passed to psql as they are.")
    ] = None,
) -> None:
    """Open PostgreSQL's shell on the views, with an analyst's rights: to read, and not to write.

    The views' names need no prefix: member_balance, referral, reward_event.

    Examples: `guerdon psql`, `guerdon psql --command "SELECT * FROM member_balance"`,
    `guerdon psql --csv --file month.sql`
    """
    from operations.psql import shell
    from operations.settings import load_settings

    line, environment = shell(load_settings(), words or [])
    os.execvpe(line[0], line, environment)  # noqa: S606  psql takes over the terminal and its signals
