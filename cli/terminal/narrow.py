"""Fit a table into a narrow terminal: fold cells between words, or write each row as a block of lines.

No identifier and no instant is cut in the middle as long as there is another way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

BETWEEN_COLUMNS = 3
EMPTY = "-"
_LONGEST_ROW = 12  # lines of a folded row: beyond that a block is read more easily
_ALWAYS_A_TABLE = 2  # columns: a name and its value
_LONGEST_WORD, _PART = 40, 8  # a longer word may be cut, into parts of 8 letters
_INSTANT = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z$")
_WORDS = re.compile(r"\d{4}-\d\d-\d\d\s|\S*?[-/.:_@,](?=\w)|\S+\s*|\s+")


def fitted(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, measure: Callable[[str], int]
) -> tuple[list[int], list[str], list[list[str]]] | None:
    """Return which columns to show, their names and the rows' cells, folded to fit into `width`; None if they cannot.

    Columns that are empty in every row are left out, and instants are shown to the second.
    """
    # the cells, and the widths of each column: as wide as its text, and as narrow as its longest word
    shown = [index for index in range(len(columns)) if any(row[index] != EMPTY for row in rows)]
    texts = [[columns[index] for index in shown], *([_to_the_second(row[index]) for index in shown] for row in rows)]
    widths = [max(measure(text) for text in column) for column in zip(*texts, strict=True)]
    least = [
        max(measure(word.rstrip()) for text in column for word in _words(text)) for column in zip(*texts, strict=True)
    ]
    room = width - BETWEEN_COLUMNS * len(shown) - 1
    if not shown or sum(least) > room:
        return None

    # narrow the widest column again and again, until all fit
    natural = list(widths)
    while sum(widths) > room:
        index = max(range(len(widths)), key=lambda each: widths[each] if widths[each] > least[each] else 0)
        column = (_folded(row[index], widths[index] - 1, measure) for row in texts)
        widths[index] = max(measure(line) for text in column for line in text.split("\n"))

    # give back the room that is left
    for index in sorted(range(len(widths)), key=lambda each: natural[each] - widths[each]):
        widths[index] = min(natural[index], widths[index] + room - sum(widths))

    folded = [[_folded(text, wide, measure) for text, wide in zip(row, widths, strict=True)] for row in texts]
    if len(shown) > _ALWAYS_A_TABLE and any(text.count("\n") >= _LONGEST_ROW for row in folded for text in row):
        return None
    return shown, folded[0], folded[1:]


def blocks(columns: Sequence[str], rows: Iterable[Sequence[str]], measure: Callable[[str], int]) -> Iterator[str]:
    """Yield for each row a block of lines, each with a column's name and cell, and an empty line at its end."""
    widest = max(measure(column) for column in columns)
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell != EMPTY:
                yield f"  {column}{' ' * (widest - measure(column))}  {cell}"
        yield ""


def _to_the_second(text: str) -> str:
    return _INSTANT.sub(r"\1 \2Z", text)


def _words(text: str) -> list[str]:
    """Return the pieces of a text between which a line may end; a time of day stays whole, and so does an amount.

    A word that is too long for a line is cut all the same.
    """
    pieces = []
    for word in re.findall(r"\S+\s*|\s+", text):
        is_whole = re.fullmatch(r"[-+\d.,:TZ]+\s*", word)
        pieces.extend([word] if is_whole else _WORDS.findall(word))
    pieces = [part for piece in pieces for part in _cut(piece)]
    return pieces or [text]


def _cut(piece: str) -> list[str]:
    if len(piece) <= _LONGEST_WORD:
        return [piece]
    return [piece[at : at + _PART] for at in range(0, len(piece), _PART)]


def _folded(text: str, width: int, measure: Callable[[str], int]) -> str:
    lines = [""]
    for word in _words(text):
        if lines[-1] and measure(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)
