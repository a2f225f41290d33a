"""The forms of a report: tables, CSV and a page have every number of the document, once, and nothing of their own."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations.report.forms.charts import Series, bars, lines, waterfall
from operations.report.forms.page import page, write_page
from operations.report.forms.sheet import Line, sheet
from operations.report.forms.tables import Table, rounded, tables
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = st.text("acxyz", min_size=1, max_size=6)  # never "by", which names a column of its own
VALUES = st.none() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
ROWS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)
PERIODS = st.sampled_from(["2026-03", "2026-Q1", "2026", "2026-W10", "2026-03-04", "all"])
DATA = st.one_of(
    st.dictionaries(PERIODS, ROWS, max_size=4),
    st.dictionaries(PERIODS, st.dictionaries(NAMES, ROWS, min_size=1, max_size=3), max_size=3),
    st.dictionaries(NAMES, st.one_of(VALUES, ROWS, st.dictionaries(PERIODS, ROWS, max_size=3)), max_size=4),
)


def document(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "report": "engagement", "generation": 1, "known_at": "2026-04-02T00:00:00Z", "cut": "2026-04-01T00:00:00Z",
        "zone": "Europe/Berlin", "currency": "EUR", "unit": "points", "complete": True, "notes": [], "data": data,
    } | more  # fmt: skip


def leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, dict):
        for each in part.values():
            yield from leaves(each)
    elif isinstance(part, list):
        for each in part:
            yield from leaves(each)
    else:
        yield part


@given(DATA)
def test_every_number_stands_in_one_cell(data: dict[str, Any]) -> None:
    # a row of a table that lacks a column of others has an empty cell there, so empty cells are not counted
    cells = [cell for table in tables(data) for row in table.rows for cell in row[table.keys or 0 :]]
    assert sorted(repr(cell) for cell in cells if cell is not None) == sorted(
        repr(leaf) for leaf in leaves(data) if leaf is not None
    )


def test_a_report_by_period_is_one_table_and_what_it_nests_are_columns() -> None:
    data = {
        "2026-03": {"members": 3, "rate": None, "outstanding": {"gross": 2}},
        "all": {"members": 4, "rate": 0.5, "outstanding": {"gross": 2}},
    }
    assert tables(data) == [
        Table("", ["name", "members", "rate", "outstanding.gross"], [["2026-03", 3, None, 2], ["all", 4, 0.5, 2]])
    ]


def test_a_wide_table_is_turned_and_loses_nothing() -> None:
    wide = Table("", ["name", "by", *"abcdefgh"], [["2026-03", "gold", *range(8)], ["all", "gold", *range(8, 16)]])
    assert wide.is_wide
    assert wide.turned().columns == ["measure", "2026-03 gold", "all gold"]
    assert wide.turned().rows[0] == ["a", 0, 8]
    assert wide.turned().rows[-1] == ["h", 7, 15]
    assert not Table("", ["name", *map(str, range(12))], []).is_wide, "a triangle has an age a column"


def test_a_number_is_rounded_to_what_a_person_reads() -> None:
    assert [rounded(value) for value in (0.58524, 12.345678, 15_168.4, -2_000_000.7, 0.0)] == [
        "0.5852", "12.35", "15,168", "-2,000,001", "0",
    ]  # fmt: skip


def test_a_split_report_names_period_and_value_in_each_row() -> None:
    data = {"2026-03": {"gold": {"members": 1}, "silver": {"members": 3}}, "all": {"silver": {"members": 4}}}
    (table,) = tables(data)
    assert table.keys == 2
    assert table.rows == [["2026-03", "gold", 1], ["2026-03", "silver", 3], ["all", "silver", 4]]


def test_triangles_have_a_row_a_cohort_and_a_column_an_age() -> None:
    cells = [{"k": 0, "retained": 3, "rate": 1.0}, {"k": 1, "retained": 2, "rate": 0.5}]
    data = {"2026-03": {"members": 3, "cells": cells}, "2026-04": {"members": 2, "cells": cells[:1]}}
    assert [(table.title, table.columns, table.rows) for table in tables({"by_signup": data})][1:] == [
        ("by_signup.cells.retained", ["name", "0", "1"], [["2026-03", 3, 2], ["2026-04", 3, None]]),
        ("by_signup.cells.rate", ["name", "0", "1"], [["2026-03", 1.0, 0.5], ["2026-04", 1.0, None]]),
    ]


@given(DATA)
def test_csv_has_a_line_for_each_cell_and_reads_back(data: dict[str, Any]) -> None:
    head, *lines_ = list(csv.reader(StringIO(sheet(document(data)))))
    assert tuple(head) == Line._fields
    assert {len(line) for line in lines_} == {len(Line._fields)}
    found = [line for line in lines_ if line[0] != "report" or line[3] not in document({})]
    cells = [cell for table in tables(data) for row in table.rows for cell in row[table.keys or 0 :]]
    assert len(found) == len(cells)


def test_a_text_that_a_spreadsheet_would_run_is_defused() -> None:
    text = sheet(document({"alerts": [{"alert": "=cmd|'/c calc'!A1", "value": -3, "member_id": "@x"}]}))
    rows = {row[3]: row[4] for row in csv.reader(StringIO(text)) if row[0] == "alerts"}
    assert rows == {"alert": "'=cmd|'/c calc'!A1", "value": "-3", "member_id": "'@x"}


class _Checked(HTMLParser):
    """Collect the elements of a page, and hold that each that opens closes."""

    EMPTY = ("meta", "line", "rect", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [value for _, value in attrs if value]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [value for _, value in attrs if value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@given(DATA)
def test_a_page_is_whole_and_names_no_other_place(data: dict[str, Any]) -> None:
    parser = _Checked()
    parser.feed(page(document(data, notes=["<b>a note</b>"]), "what <members> do"))
    assert parser.open == []
    assert "b" not in parser.elements
    assert {"script", "link", "img", "iframe"}.isdisjoint(parser.elements)
    assert not [value for value in parser.attributes if "//" in value]
    assert parser.elements.count("table") == len(tables(data))


def test_a_page_of_a_liability_shows_how_the_points_became_what_they_are() -> None:
    row = {
        "opening_gross": 10, "granted": 5, "adjusted": 0, "honoured": 0, "opening": 0, "restored": 0, "captured": 3,
        "expired": 1, "erased": 0, "reversed_from_lots": 0, "settled_debt": 0, "closing_gross": 11, "closes": True,
    }  # fmt: skip
    text = page(document({"roll_forward": {"2026-03": row, "all": row}}, report="liability"), "what is owed")
    assert text.count("from the opening to the closing points") == 2  # its caption, and its label for who cannot see
    assert ">-3<" in text


def test_charts_take_nothing_one_place_gaps_and_what_is_below_0() -> None:
    assert lines("t", [], []) == bars("t", []) == ""
    assert lines("t", ["2026-03"], [Series("a", [None])]) == ""
    assert "<path" in lines("t", ["2026-03"], [Series("a", [3])])
    gap = lines("t", ["1", "2", "3"], [Series("a", [1, None, -2])])
    assert gap.count("M") == 2
    assert "a_b" not in bars("t", [("a_b", -1)])
    assert "NaN" not in waterfall("t", 0, [("nothing", 0)], 0)


def test_a_page_that_cannot_be_written_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_page(tmp_path / "none" / "page.html", document({}), "")
