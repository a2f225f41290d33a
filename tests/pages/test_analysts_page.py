"""The questions of docs/analysts.md are asked of the shop by an analyst's own login, and each has an answer."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from operations.rows import dictionaries
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

PAGE = (DOCS / "analysts.md").read_text("utf-8")
ZONE, *QUESTIONS = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
NUMBERS = re.findall(r"^\*\*(\d+)\. ", PAGE, re.MULTILINE)


@pytest.fixture
def cursor(shop_url: str) -> Iterator[Cursor]:
    """Return a cursor with an analyst's rights and search_path, in the zone that the page sets."""
    options = "-c role=guerdon_analyst -c search_path=reward -c default_transaction_read_only=on"
    with closing(psycopg2.connect(shop_url, options=options)) as connection, connection, connection.cursor() as opened:
        opened.execute(ZONE)
        yield opened


@pytest.fixture
def answers(cursor: Cursor) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of each question by its number."""
    return {number: dictionaries(cursor, question) for number, question in enumerate(QUESTIONS, 1)}


def test_there_are_sixteen_questions_each_with_its_query() -> None:
    assert [str(number) for number in range(1, len(QUESTIONS) + 1)] == NUMBERS
    assert len(QUESTIONS) == 16


def test_every_question_has_rows_and_no_column_is_empty_in_all_of_them(
    answers: dict[int, list[dict[str, Any]]],
) -> None:
    for number, rows in answers.items():
        assert rows, number
        for column in rows[0]:
            assert any(row[column] is not None for row in rows), (number, column)


def test_what_was_given_is_what_became_of_it(cursor: Cursor, answers: dict[int, list[dict[str, Any]]]) -> None:
    cursor.execute("SELECT sum(granted), sum(pending + active + reserved) FROM member_balance WHERE unit = 'points'")
    granted, gross = cursor.fetchone() or ()
    assert sum(row["given"] for row in answers[1]) == granted
    assert sum(row["issued"] for row in answers[2]) == granted
    assert sum(row["still_there"] for row in answers[2]) == gross
    (points,) = [row for row in answers[4] if row["unit"] == "points"]
    assert points["gross"] == gross
    assert sum(row["amount"] for row in answers[5] if row["unit"] == "points") == gross
    assert answers[6][-1]["closing"] == gross
