"""Write a report as CSV: one line for each number, with the table, the row and the measure that it stands at."""

from __future__ import annotations

import csv
from io import StringIO
from typing import TYPE_CHECKING, Any

from operations.report.forms.tables import tables

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("table", "row", "by", "measure", "value")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def sheet(document: Mapping[str, Any]) -> str:
    """Return the document as CSV; its first lines say what the report stands on, such as zone and cut.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, value in document.items():
        if name == "notes":
            writer.writerows(("report", "", "", "note", _safe(note)) for note in value)
        elif name != "data":
            writer.writerow(("report", "", "", name, _safe(value)))

    for table in tables(document["data"]):
        for number, row in enumerate(table.rows):
            keys = [_safe(key) for key in row[: table.keys]] or [str(number)]
            keys += [""] * (2 - len(keys))
            for measure, value in zip(table.columns[table.keys :], row[table.keys :], strict=True):
                writer.writerow((table.title, *keys, measure, _safe(value)))
    return text.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
