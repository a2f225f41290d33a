"""Compare the cells of a build with those of its log, folded once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.differences import sentence
from projections.facts.rollups.cells import KEY, Cell
from projections.facts.rollups.days import NO_DAY, date_of

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from projections.facts.rollups.cells import Cells, Key


def difference(cursor: Cursor, build: int, expected: Cells) -> str | None:
    """Return a sentence about the first cell of `build` that is not what is expected; None where all are."""
    cursor.execute(_STORED, {"build": build, "no_day": NO_DAY})
    stored: dict[Key, int] = {tuple(key): int(amount) for *key, amount in cursor.fetchall()}
    wrong = min((key for key in stored.keys() | expected.keys() if stored.get(key, 0) != expected[key]), default=None)
    if wrong is None:
        return None
    return sentence(f"rollup, {_shown(Cell(*wrong))}", stored.get(wrong, 0), expected[wrong], "facts")


def _shown(cell: Cell) -> str:
    """Return the key of a cell as a person reads it, without the fields that its measure does not have."""
    fields = (
        (name, date_of(value).isoformat() if isinstance(value, int) else value)
        for name, value in cell._asdict().items()
        if value not in {"", NO_DAY}
    )
    return ", ".join(f"{name} {value}" for name, value in fields)


def _number(day: str) -> str:
    """Return the SQL of a day as `days` counts them."""
    return f"CASE WHEN {day} = '-infinity' THEN %(no_day)s ELSE {day} - date '2000-01-01' END"


_STORED = f"""
SELECT measure, {_number("day")}, {_number("later")}, {_number("previous")}, name, {_number("recorded")}, sum(amount)
FROM guerdon.rollup WHERE build = %(build)s GROUP BY {KEY} HAVING sum(amount) <> 0
"""
