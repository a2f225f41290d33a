"""Turn a report's document into tables, which a terminal, a spreadsheet and a page show alike.

A document nests: periods hold measures, vintages hold lists by age. Here each part becomes a table: names that hold
numbers are its rows, a list of records is a table as it stands, and a list of numbers is a row by age.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "name"
"""The first column of a table whose rows have names, such as periods."""

SPLIT = "by"
"""The second column of a table whose rows are split by something, such as tier."""

MEASURE = "measure"
"""The first column of a table that was turned."""

WIDE = 8
"""The most columns that a table keeps as they are."""

ROUNDED_FROM = 1_000
"""From this size on a number is shown without a fraction."""

_PERIOD = re.compile(r"\d{4}(?:-(?:\d\d(?:-\d\d)?|W\d\d|Q\d))?|all")


@dataclass
class Table:
    """Hold one table of a report: `title` is its path in the document, and "" names the report itself."""

    title: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)

    @property
    def keys(self) -> int:
        """Return how many of the first columns name a row; 0 where rows have no names."""
        return len([column for column in self.columns[:2] if column in {NAME, SPLIT}])

    @property
    def has_ages(self) -> bool:
        """Whether the columns beside the names are ages, as in a triangle."""
        return self.keys == 1 and all(column.isdecimal() for column in self.columns[1:])

    @property
    def is_wide(self) -> bool:
        """Whether it is better read with a row for each measure: it has many, and they are not ages."""
        return self.keys > 0 and len(self.columns) > WIDE and not self.has_ages

    def turned(self) -> Table:
        """Return the table with a row for each measure, and a column for each of its rows."""
        names = [" ".join(str(key) for key in row[: self.keys]) for row in self.rows]
        rows = [
            [measure, *(row[number] for row in self.rows)]
            for number, measure in enumerate(self.columns)
            if number >= self.keys
        ]
        return Table(self.title, [MEASURE, *names], rows)


def tables(data: Mapping[str, Any]) -> list[Table]:
    """Return the tables of a report's `data`, in its order; a part without rows has none."""
    return [table for table in _tables("", data) if table.rows]


def _tables(path: str, part: Any) -> Iterator[Table]:
    """Yield the tables of a part of the document: its own numbers first, then what it holds."""
    if isinstance(part, dict):
        yield from _of_record(path, part)
    elif part and all(isinstance(each, dict) for each in part):
        yield _of_list(path, part)
        yield from _lists_in_rows(path, [(str(number), each) for number, each in enumerate(part)])
    elif part:
        yield Table(path, ["number", "value"], [[number, _cell(each)] for number, each in enumerate(part)])


def _of_record(path: str, record: Mapping[str, Any]) -> Iterator[Table]:
    # numbers that stand for themselves
    plain = {name: value for name, value in record.items() if not isinstance(value, dict | list)}
    if plain:
        yield Table(path, [NAME, "value"], [[name, value] for name, value in plain.items()])

    # names that each hold a record are the rows of one table; a record split by something holds such names again
    nested = {name: value for name, value in record.items() if isinstance(value, dict)}
    if nested and not plain and all(_is_row(value) for value in nested.values()):
        yield _of_rows(path, nested)
        yield from _lists_in_rows(path, list(nested.items()))
    elif nested and not plain and all(_PERIOD.fullmatch(name) for name in nested):
        yield _of_split_rows(path, nested)
    else:
        for name, value in nested.items():
            yield from _tables(_joined(path, name), value)
    for name, value in record.items():
        if isinstance(value, list):
            yield from _tables(_joined(path, name), value)


def _is_row(record: Mapping[str, Any]) -> bool:
    """Whether a record holds numbers, so that it is a row, and not a table."""
    return any(not isinstance(value, dict | list) for value in record.values()) or (
        any(isinstance(value, list) for value in record.values())
        and not any(isinstance(value, dict) for value in record.values())
    )


def _of_rows(path: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    flat = {name: _flat(row) for name, row in rows.items()}
    columns = list(dict.fromkeys(column for row in flat.values() for column in row))
    return Table(
        path, [NAME, *columns], [[name, *(row.get(column) for column in columns)] for name, row in flat.items()]
    )


def _of_split_rows(path: str, periods: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Table:
    flat = [(period, by, _flat(row)) for period, rows in periods.items() for by, row in rows.items()]
    columns = list(dict.fromkeys(column for _, _, row in flat for column in row))
    rows = [[period, by, *(row.get(column) for column in columns)] for period, by, row in flat]
    return Table(path, [NAME, SPLIT, *columns], rows)


def _of_list(path: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    return Table(path, columns, [[row.get(column) for column in columns] for row in flat])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's numbers; those of a record inside it carry its name. Lists have tables of their own."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= {_joined(name, inner): each for inner, each in _flat(value).items()}
        elif not isinstance(value, list):
            flat[name] = value
    return flat


def _lists_in_rows(path: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Table]:
    """Yield a table for each list that the rows hold, with a row a name and a column an age."""
    for name in dict.fromkeys(name for _, row in rows for name, value in row.items() if isinstance(value, list)):
        lists = [(key, row[name]) for key, row in rows if isinstance(row.get(name), list)]
        title = _joined(path, name)
        if all(isinstance(each, dict) for _, values in lists for each in values):
            yield from _triangles(title, lists)
        else:
            longest = max((len(values) for _, values in lists), default=0)
            columns = [NAME, *(str(age) for age in range(longest))]
            padded = [[key, *map(_cell, values), *[None] * (longest - len(values))] for key, values in lists]
            yield Table(title, columns, padded)


def _triangles(title: str, lists: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[Table]:
    """Yield for each measure of the cells a table with a row a name and a column an age (`k`)."""
    measures = dict.fromkeys(name for _, cells in lists for cell in cells for name in cell if name != "k")
    ages = sorted({cell["k"] for _, cells in lists for cell in cells if "k" in cell})
    for measure in measures:
        rows = []
        for key, cells in lists:
            by_age = {cell.get("k"): cell.get(measure) for cell in cells}
            rows.append([key, *(by_age.get(age) for age in ages)])
        yield Table(_joined(title, measure), [NAME, *map(str, ages)], rows)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _cell(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def rounded(value: float) -> str:
    """Return a rate, a mean or a sum as a person reads it: four digits, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= ROUNDED_FROM else f"{value:,.4g}"


def stands_on(document: Mapping[str, Any]) -> str:
    """Return in words what a report stands on: its generation, its end, what was known, and whose days it counts."""
    return (
        f"generation {document['generation']}, up to {document['cut']}, as known at {document['known_at']}; days of "
        f"{document['zone']}"
    )
