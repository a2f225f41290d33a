"""Print a report for a person: a heading, then a table for each part, turned so that it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.terminal.output import print_table, say

if TYPE_CHECKING:
    from operations.report.forms.tables import Table

_CELL = 11
"""About how many columns of a terminal a number takes, with the space beside it."""


def print_report(document: dict[str, Any]) -> None:
    """Print the document; what does not fit on the terminal is left out with a word."""
    from rich.console import Console

    from operations.report.forms.tables import stands_on, tables

    console = Console()
    width = console.width if console.is_terminal else 200
    complete = "" if document["complete"] else "; its last period is not complete"
    say(f"{document['report']}: {stands_on(document)}{complete}")
    say(f"money in minor units of {document['currency']}, points in {document['unit']}")
    for note in document["notes"]:
        say(f"note: {note}")

    parts = tables(document["data"])
    if not parts:
        say("nothing to report")
    for table in parts:
        _print(table, width)


def _print(table: Table, width: int) -> None:
    """Print a table with the columns for which there is room: of a triangle the first ages, of a time the last."""
    title = table.title.replace(".", " · ").replace("_", " ") or None
    shown = table.turned() if table.is_wide else table
    if not (table.is_wide or table.has_ages):
        print_table(shown.columns, _rounded(shown.rows), title=title)
        return

    room = max(1, (width - max(len(str(row[0])) for row in shown.rows) - 4) // _CELL)
    left_out = max(0, len(shown.columns) - 1 - room)
    kept = slice(1, 1 + room) if table.has_ages else slice(1 + left_out, None)
    which = "later ages" if table.has_ages else "earlier columns"
    caption = f"{left_out} {which} are left out here: --csv, --json and --html have them" if left_out else None
    columns = [shown.columns[0], *shown.columns[kept]]
    print_table(columns, _rounded([[row[0], *row[kept]] for row in shown.rows]), title=title, caption=caption)


def _rounded(rows: list[list[Any]]) -> list[list[Any]]:
    """Return rates and means with as many digits as a person reads; the other forms have all."""
    from operations.report.forms.tables import rounded

    return [[rounded(value) if isinstance(value, float) else value for value in row] for row in rows]
