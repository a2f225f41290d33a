"""Print for a person or for a machine: tables, or one JSON document."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from schemas.display import visible, visible_in_json

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def instant(text: str, option: str) -> int:
    """Return the ms of an ISO-8601 instant with an offset, which `option` was given.

    Raises:
        InputError: it is none.
    """
    from schemas.errors import InputError  # noqa: PLC0415  `guerdon --help` must not wait for it
    from schemas.rejection import Rejected  # noqa: PLC0415  as above
    from schemas.scalars import instant_from_iso  # noqa: PLC0415  as above

    try:
        return instant_from_iso(text, option)
    except Rejected as rejected:
        raise InputError(rejected.message) from None


def counted(count: int, noun: str) -> str:
    """Return the number with its noun, which takes an s where it is not one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say(sentence: str = "", *, err: bool = False) -> None:
    """Print one line for a person, on standard error with `err`; what is foreign in it cannot command the terminal."""
    typer.echo(visible(sentence), err=err)


def print_as_it_is(text: str) -> None:
    """Print text of an operator's own, to be kept byte for byte or of several lines."""
    typer.echo(text, nl=False)


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    typer.echo(visible_in_json(json.dumps(value, indent=2, ensure_ascii=False)))


def print_rows(rows: list[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print rows as a table, or the sentence `empty` where there are none; with `as_json` one array."""
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        typer.echo(empty)


def print_table(
    columns: list[str], rows: list[list[Any]], *, title: str | None = None, caption: str | None = None
) -> None:
    """Print a table; numbers to the right, an absent value as a dash."""
    from rich.box import SIMPLE  # noqa: PLC0415  `guerdon --help` must not wait for it
    from rich.console import Console  # noqa: PLC0415  as above
    from rich.markup import escape  # noqa: PLC0415  as above
    from rich.table import Table  # noqa: PLC0415  as above

    above, below = (None if text is None else escape(visible(text)) for text in (title, caption))
    table = Table(box=SIMPLE, title=above, caption=below, title_justify="left")
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to fold at
    console.print(table)


def _cell(value: Any) -> str:
    from rich.markup import escape  # noqa: PLC0415  as above

    if value is None or value == "":
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(visible(str(value)))
