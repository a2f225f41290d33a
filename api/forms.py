"""Answer in the form that a caller accepts: JSON, and tables as CSV or Parquet, too."""

from __future__ import annotations

import csv
import json
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import Response

from api.problems import Problem
from operations.archive.segments import arrow
from schemas.display import cell
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from starlette.requests import Request

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"

TABLES: dict[int | str, dict[str, Any]] = {
    200: {"content": {CSV: {"schema": {"type": "string"}}, PARQUET: {"schema": {"type": "string"}}}}
}
"""The forms of a table beside JSON, for the OpenAPI file."""

_TYPES = {
    "text": "string", "smallint": "int16", "integer": "int32", "bigint": "int64", "double precision": "float64",
    "timestamptz": "string",
}  # fmt: skip
"""Types of columns in Parquet; an instant is a text here as in the other forms."""


class Table(NamedTuple):
    """Hold a table of plain values."""

    columns: Mapping[str, str]
    """The type of each column as PostgreSQL names it, one of `_TYPES`, by the column's name."""

    rows: Iterable[Sequence[Any]]


def form_of(request: Request, forms: Sequence[str] = (JSON, CSV, PARQUET)) -> str:
    """Return which of some forms a caller likes best by the header `Accept`; the first of them by default.

    Raises:
        Problem: the caller accepts none of them.
    """
    # the best liked first, and of those liked alike the one that is named first
    wishes = [_wish(part) for part in request.headers.get("accept", "*/*").split(",") if part.strip()]
    for _, media in sorted(wishes, key=lambda wish: -wish[0]):
        for form in forms:
            if media in (form, "*/*", f"{form.partition('/')[0]}/*"):
                return form
    raise Problem("not_acceptable", f"there are {', '.join(forms)}")


def _wish(part: str) -> tuple[float, str]:
    """Return how much a form is liked, 0 to 1, and its name."""
    media, *parameters = (each.strip().lower() for each in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
            return (quality, media) if quality > 0 else (0.0, "")
    return 1.0, media


def answered(form: str, writers: Mapping[str, Callable[[], str | bytes]]) -> Response:
    """Return what the writer of a form writes.

    Raises:
        Problem: Parquet was asked for, and this server cannot write it.
    """
    return Response(writers[form](), media_type=form, headers={"vary": "accept"})


def json_of(document: Any) -> str:
    """Return a document of plain values as JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def csv_of(table: Table) -> str:
    """Return a table as CSV, in which no cell is a formula for a spreadsheet."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(["" if value is None else cell(value) for value in row])
    return text.getvalue()


def parquet_of(table: Table) -> bytes:
    """Return a table as a Parquet file.

    Raises:
        Problem: this server cannot write it.
    """
    try:
        pa, parquet = arrow()
    except InputError:
        raise Problem("not_acceptable", f"this server cannot write Parquet: ask for {JSON} or {CSV}") from None
    schema = pa.schema([(name, getattr(pa, _TYPES[kind])()) for name, kind in table.columns.items()])
    columns = zip(*table.rows, strict=True)
    values = dict(zip(table.columns, map(list, columns), strict=False)) or {name: [] for name in table.columns}
    file = BytesIO()
    parquet.write_table(pa.Table.from_pydict(values, schema=schema), file, compression="zstd")
    return file.getvalue()
