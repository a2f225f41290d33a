"""The questions of docs/analysts.md are asked of the shop by an analyst's own login, and each has an answer."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg2
import pytest

from engine.store.views import VIEWS
from operations.export.datasets import DATASETS
from operations.export.run import export
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.rows import dictionaries
from tests.operations.report.history import History
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

PAGE = (DOCS / "analysts.md").read_text("utf-8")
ZONE, *QUESTIONS = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SPEND = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""
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


def test_the_movements_of_each_month_are_the_change_of_what_is_outstanding(
    answers: dict[int, list[dict[str, Any]]],
) -> None:
    assert [(row["month"], row["change"]) for row in answers[1]] == [
        (row["month"], row["change"]) for row in answers[6]
    ]
    assert all(any(row[name] for row in answers[1]) for name in ("given", "taken_back", "redeemed", "expired"))


def test_points_that_pay_a_debt_have_a_column_of_their_own(database_url: str) -> None:
    history = History(database_url, SPEND)
    history.buys("ben", "2026-01-20T09:00:00Z", "o1", 20_000)
    history.redeems("ben", "2026-02-20T09:00:00Z", "spend", "r1", 150)
    history.returns("ben", "2026-03-20T09:00:00Z", "o1")
    history.buys("ben", "2026-04-05T09:00:00Z", "o2", 4_000)
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = reward")
        cursor.execute(ZONE)
        rows = [tuple(map(str, row.values())) for row in dictionaries(cursor, QUESTIONS[0])]
    assert rows == [  # given, taken_back, settled, redeemed, expired, change
        ("2026-01", "200", "0", "0", "0", "0", "200"),
        ("2026-02", "0", "0", "0", "150", "0", "-150"),
        ("2026-03", "0", "50", "0", "0", "0", "-50"),
        ("2026-04", "40", "0", "40", "0", "0", "0"),
    ]


def test_what_a_report_says_too_is_as_in_the_report(shop_url: str, answers: dict[int, list[dict[str, Any]]]) -> None:
    def data(name: str) -> dict[str, Any]:
        return dict(report(shop_url, name, Asked())["data"])

    # referrals: the same days, ripe by the same rule
    periods = data("referrals")["periods"]
    assert {row["month"]: (row["referred"], row["qualified_within_30d"]) for row in answers[8]} == {
        month: (row["attributed_ripe"], row["qualified_within_30d"])
        for month, row in periods.items()
        if month != "all" and row["attributed_ripe"]
    }

    # members: the report counts in redemptions, and its orders of campaigns those that were passed on to referrers
    engagement, campaigns = data("engagement"), data("campaigns")
    for row in answers[12]:
        found = engagement[row["month"]]
        assert (row["participants"], row["redeemers"]) == (found["participants"], found["redeemers"])
        assert row["active"] <= found["active"]
    for row in answers[16]:
        found = campaigns[row["campaign"]]
        if row["campaign"] == "friends":
            assert row["orders"] <= found["orders_influenced"]
        else:
            assert (row["orders"], row["net"]) == (found["orders_influenced"], found["revenue_influenced"])


def test_each_view_is_exported_or_the_page_says_why_not() -> None:
    (named,) = re.findall(r"^Not exported: (.*?)\n\n", PAGE, re.DOTALL | re.MULTILINE)
    left_out = set(re.findall(r"`(\w+)`", named))
    assert {dataset.view for dataset in DATASETS} == {view.name for view in VIEWS} - left_out


def test_the_page_asks_the_files_for_local_months(shop_url: str, tmp_path: Path) -> None:
    (block,) = [
        each for each in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if "read_parquet" in each
    ]
    export(shop_url, tmp_path / "e")
    query = "".join(re.findall(r'^ +"(.*)"$', block, re.MULTILINE)).replace("/data/guerdon", str(tmp_path / "e"))
    with duckdb.connect(config={"threads": 1}) as files:
        found = files.execute(query).fetchall()
    with closing(psycopg2.connect(shop_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(ZONE)
        cursor.execute(
            "SELECT to_char(occurred_at, 'YYYY-MM'), sum(amount) FROM reward.reward_event "
            "WHERE type = 'points.granted' GROUP BY 1 ORDER BY 1"
        )
        assert found == cursor.fetchall()


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
