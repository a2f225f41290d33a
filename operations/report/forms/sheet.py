"""Write a report as CSV: one line for each number, with the table, the row and the measure that it stands at."""

from __future__ import annotations

import csv
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.forms.tables import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Line(NamedTuple):
    """Hold one number of a report, or a text, with where it stands."""

    table: str
    row: str
    by: str
    measure: str
    value: Any


def lines(document: Mapping[str, Any]) -> Iterator[Line]:
    """Yield every value of a document; the first ones say what the report stands on, such as zone and cut."""
    for name, value in document.items():
        if name == "notes":
            yield from (Line("report", "", "", "note", note) for note in value)
        elif name != "data":
            yield Line("report", "", "", name, value)

    for table in tables(document["data"]):
        for number, row in enumerate(table.rows):
            keys = [str(key) for key in row[: table.keys]] or [str(number)]
            keys += [""] * (2 - len(keys))
            for measure, value in zip(table.columns[table.keys :], row[table.keys :], strict=True):
                yield Line(table.title, keys[0], keys[1], measure, value)


def sheet(document: Mapping[str, Any]) -> str:
    """Return the document as CSV, a line for each value.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Line._fields)
    for line in lines(document):
        writer.writerow((line.table, _safe(line.row), _safe(line.by), line.measure, _safe(line.value)))
    return text.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
