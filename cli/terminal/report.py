"""Print a report for a person: a heading, then a table for each part, turned so that it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.terminal.output import print_table, say

if TYPE_CHECKING:
    from operations.report.forms.tables import Table

_WIDE = 8
"""The most columns that a table keeps as they are; a wider one is turned, with a row a measure."""

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
    title = table.title.replace(".", " · ").replace("_", " ") or None
    if table.keys == 0 or len(table.columns) <= _WIDE or all(column.isdecimal() for column in table.columns[1:]):
        print_table(table.columns, [[_rounded(value) for value in row] for row in table.rows], title=title)
        return

    # turned: a row a measure, a column a period, the last ones as far as there is room
    measures = table.columns[table.keys :]
    room = max(1, (width - max(map(len, measures)) - 4) // _CELL)
    shown = table.rows[-room:]
    names = [" ".join(str(key) for key in row[: table.keys]) for row in shown]
    rows = [
        [measure, *(_rounded(row[table.keys + number]) for row in shown)] for number, measure in enumerate(measures)
    ]
    left_out = len(table.rows) - len(shown)
    caption = f"{left_out} earlier columns are left out here: --csv, --json and --html have them" if left_out else None
    print_table(["measure", *names], rows, title=title, caption=caption)


def _rounded(value: Any) -> Any:
    """Return a rate or mean with as many digits as a person reads; the other forms have all."""
    return f"{value:,.4g}" if isinstance(value, float) else value
