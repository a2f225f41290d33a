"""Offer `guerdon close`: close a month for good, and list the months that are closed."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.terminal.decision import Actor, Why, login
from cli.terminal.output import JsonFlag, print_json, print_rows, say
from schemas.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("close")(close)


def close(
    month: Annotated[
        str | None, typer.Argument(metavar="[YYYY-MM]", help="The month, in the programme's zone.")
    ] = None,
    why: Why = None,
    actor: Actor = None,
    list_: Annotated[bool, typer.Option("--list", help="List the months that are closed.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Close a month of the liability report for good: what is recorded later counts in a later month.

    Months are closed in their order, and none can be opened again. The close also records how many of the points
    outstanding each method expects to be redeemed, and the report sets that against what happens.

    Examples: `guerdon close 2026-03 --why "books of March"`, and `guerdon close --list`
    """
    from operations.report.liability.close import close_month, closed_months
    from operations.settings import load_settings

    if list_:
        if month is not None or why is not None or actor is not None:
            raise InputError("--list stands alone: leave out the month, --why and --actor")
        print_rows(closed_months(load_settings().database_url), as_json=as_json, empty="no month is closed yet")
        return
    if month is None:
        raise InputError("the month is missing: `guerdon close YYYY-MM --why TEXT`, or --list")
    if why is None:
        raise InputError("--why is missing: say why, for who asks later; it is recorded")

    closed = close_month(load_settings().database_url, month, login() if actor is None else actor, why)
    if as_json:
        print_json(closed)
        return
    say(
        f"{month} is closed for good, with {closed['closing_gross']:,} points outstanding and "
        f"{closed['closing_debt']:,} owed; what comes later counts in a later month"
    )
