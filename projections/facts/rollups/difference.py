"""Compare the cells of a build with those of its log, folded once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.differences import sentence
from projections.facts.rollups.cells import KEY, KEY_NOW, Cell, Cells
from projections.facts.rollups.days import NO_DAY, date_of

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from projections.facts.rollups.cells import Key


def difference(cursor: Cursor, build: int, expected: Cells) -> str | None:
    """Return a sentence about the first cell of `build` that is not what is expected; None where all are."""
    now = Cells()
    for key, amount in expected.items():
        now[*key[:-1], NO_DAY] += amount
    return _of_view(cursor, build, "rollup", expected) or _of_view(cursor, build, "rollup_now", now)


def _of_view(cursor: Cursor, build: int, view: str, expected: Cells) -> str | None:
    days = ["day", "later", "previous"]
    recorded = _number("recorded") if view == "rollup" else "%(no_day)s"
    query = f"""
        SELECT measure, {", ".join(map(_number, days))}, name, {recorded}, sum(amount)
        FROM guerdon.{view} WHERE build = %(build)s
        GROUP BY {KEY if view == "rollup" else KEY_NOW} HAVING sum(amount) <> 0
    """
    cursor.execute(query, {"build": build, "no_day": NO_DAY})
    stored: dict[Key, int] = {tuple(key): int(amount) for *key, amount in cursor.fetchall()}
    wrong = min((key for key in stored.keys() | expected.keys() if stored.get(key, 0) != expected[key]), default=None)
    if wrong is None:
        return None
    return sentence(f"{view}, {_shown(Cell(*wrong))}", stored.get(wrong, 0), expected[wrong], "facts")


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
