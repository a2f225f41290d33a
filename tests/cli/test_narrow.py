"""What a narrow terminal shows: nothing wider than it, no identifier cut, nothing that was said is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from cli.terminal.narrow import BETWEEN_COLUMNS, EMPTY, blocks, fitted

WORDS = st.text("abcdefgXYZ019_-./: ", min_size=1, max_size=40).map(str.strip).filter(bool)
TABLES = st.integers(1, 8).flatmap(
    lambda count: st.tuples(
        st.lists(WORDS, min_size=count, max_size=count),
        st.lists(st.lists(WORDS | st.just(EMPTY), min_size=count, max_size=count), min_size=1, max_size=5),
    )
)


def _bare(text: str) -> str:
    return "".join(text.split())


@given(TABLES, st.integers(10, 100))
def test_what_fits_is_no_wider_and_says_the_same(table: tuple[list[str], list[list[str]]], width: int) -> None:
    columns, rows = table
    found = fitted(columns, rows, width, cell_len)
    if found is None:
        return
    shown, names, cells = found
    assert [_bare(name) for name in names] == [_bare(columns[index]) for index in shown]
    for row, folded in zip(rows, cells, strict=True):
        assert [_bare(cell) for cell in folded] == [_bare(row[index]) for index in shown]
        assert {row[index] for index in range(len(columns)) if index not in shown} <= {EMPTY}
    widths = [
        max(cell_len(line) for text in column for line in text.split("\n"))
        for column in zip(names, *cells, strict=True)
    ]
    assert sum(widths) + BETWEEN_COLUMNS * len(widths) + 1 <= width


@given(TABLES)
def test_blocks_say_all_that_the_rows_say(table: tuple[list[str], list[list[str]]]) -> None:
    columns, rows = table
    said: list[list[str]] = [[]]
    for line in blocks(columns, rows, cell_len):
        if line:
            said[-1].append(line)
        else:
            said.append([])
    assert said.pop() == []
    wanted = [[(name, cell) for name, cell in zip(columns, row, strict=True) if cell != EMPTY] for row in rows]
    for block, pairs in zip(said, wanted, strict=True):
        for line, (name, cell) in zip(block, pairs, strict=True):
            assert line.startswith(f"  {name} ")
            assert line.endswith(f" {cell}")


def test_instants_and_words_are_folded_between_and_not_within() -> None:
    columns = ["id", "reason", "begun at", "message"]
    row = ["17", "wrong_currency", "2026-11-30T00:58:22.313Z", 'currency is "EUR" and the programme counts in "USD"']
    found = fitted(columns, [row], 60, cell_len)
    assert found is not None
    (cells,) = found[2]
    assert cells[:3] == ["17", "wrong_currency", "2026-11-30\n00:58:22Z"]
    assert " ".join(cells[3].split("\n")) == row[3]
    assert fitted(columns, [row], 30, cell_len) is None
