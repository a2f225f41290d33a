"""Print for a person or for a machine: tables, or one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.display import visible, visible_in_json

if TYPE_CHECKING:
    from collections.abc import Callable

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def instant(text: str, option: str) -> int:
    """Return in ms the ISO-8601 instant with an offset that was given to `option`.

    Raises:
        InputError: `text` is no such instant.
    """
    from schemas.errors import InputError
    from schemas.rejection import Rejected
    from schemas.scalars import instant_from_iso

    try:
        return instant_from_iso(text, option)
    except Rejected as rejected:
        raise InputError(rejected.message) from None


def counted(count: int, noun: str) -> str:
    """Return the number with its noun, in the plural except for 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def say(sentence: str = "", *, err: bool = False) -> None:
    """Print one line for a person, on standard error with `err`; control characters are made visible."""
    typer.echo(visible(sentence), err=err)


def print_as_it_is(text: str) -> None:
    """Print text as it is: a file of the operator's own, byte for byte, or a help page of several lines."""
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
    from rich.box import SIMPLE
    from rich.cells import cell_len
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cli.terminal import narrow

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no edge to fold at

    names = [column.replace("_", " ") for column in columns]
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [any(isinstance(row[index], int) for row in rows) for index in range(len(columns))]

    # a terminal that is too narrow: fold the cells, or print blocks instead of a table
    if console.is_terminal and _width(names, cells, cell_len) > console.width:
        fitted = narrow.fitted(names, cells, console.width, cell_len)
        if fitted is None:
            for line in [title, *narrow.blocks(names, cells, cell_len), caption]:
                if line is not None:
                    say(line)
            return
        shown, names, cells = fitted
        numeric = [numeric[index] for index in shown]

    above, below = (None if text is None else escape(visible(text)) for text in (title, caption))
    table = Table(box=SIMPLE, title=above, caption=below, title_justify="left")
    for name, is_number in zip(names, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def _width(names: list[str], cells: list[list[str]], measure: Callable[[str], int]) -> int:
    """Return how many columns of a terminal the table takes without folding anything."""
    from cli.terminal.narrow import BETWEEN_COLUMNS

    widths = [max(measure(text) for text in column) for column in zip(names, *cells, strict=True)]
    return sum(widths) + BETWEEN_COLUMNS * len(widths) + 1


def _cell(value: Any) -> str:
    """Return a value as a cell shows it, with control characters made visible."""
    if value is None or value == "":
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return visible(str(value))
