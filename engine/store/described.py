"""Hold the description of a view of schema `reward`, of its columns, and of a function."""

from __future__ import annotations

from typing import NamedTuple

INSTANT = "timestamptz"

OF_ROW = "in the row's `unit`; money in minor units"
"""The unit of an amount in a view whose rows name theirs in a column `unit`."""


class Column(NamedTuple):
    """Describe one column: its type as PostgreSQL names it, what it means, and in which unit where it counts."""

    name: str
    type: str
    meaning: str
    unit: str = ""

    @property
    def comment(self) -> str:
        """Return the sentence that stands at the column in the database."""
        return f"{self.meaning}; unit: {self.unit}" if self.unit else self.meaning


class View(NamedTuple):
    """Describe one view."""

    name: str
    meaning: str
    columns: tuple[Column, ...]


class Function(NamedTuple):
    """Describe one function: the names and types of its arguments, and the view whose rows it returns."""

    name: str
    arguments: tuple[tuple[str, str], ...]
    rows_of: str
    meaning: str
