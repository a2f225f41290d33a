"""Reports computed with DuckDB from an export equal the reports, to the unit.

The queries lie in `export_queries`, and docs/analysts.md shows them to analysts. The first line of each names its
report and the place of its rows in it: `-- customers: repurchase.WITHIN.MONTH` has a row for each value of its first
two columns. Its other columns are keys of the report.
"""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pytest

from operations.export.run import export
from operations.report.alerts.thresholds import Thresholds
from operations.report.catalogue import report
from operations.report.frame import Asked
from tests.insight.comparison import differences
from tests.insight.recorded_year import data_of
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.insight.recorded_year import Year

pytestmark = pytest.mark.postgres

FOLDER = Path(__file__).parent / "export_queries"
OPEN = FOLDER / "open.sql"
REPORTS = {
    "engagement", "redemption", "rewards", "customers", "clv_predicted", "referrals", "campaigns", "experiments",
    "liability", "alerts",
}  # fmt: skip
"""The reports of which parts are computed."""

THRESHOLDS = Thresholds(refunds=1, referrals=1, refusals=1, refusals_factor=1.0, budget_days=-1, incentives=10**9)
"""So low that there are alerts; those of budgets and costs are beyond an export, which has no terms."""

ASKED = {"alerts": Asked(days=200, thresholds=THRESHOLDS)}
"""What is asked for, of reports that would have too little to say."""

BEFORE_ERASURES = "visitors"
"""The query that counts less than its report once members are erased, as in the year: their visits have no name."""


def is_column(key: str) -> bool:
    """Whether a part of a place is a column, such as MONTH; M1 is the name of a method."""
    return key.isupper() and key.isalpha()


class Query(NamedTuple):
    """Hold a query with the report that it computes a part of, and the place of its rows in it."""

    name: str
    report: str
    place: tuple[str, ...]
    """Names of keys; those in capitals are columns whose values are the keys."""

    sql: str

    def answer(self, connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
        """Return the rows as that part of the report."""
        cursor = connection.execute(self.sql)
        columns = [column[0] for column in cursor.description or ()]
        data: dict[str, Any] = {}
        for row in cursor.fetchall():
            values = dict(zip(columns, row, strict=True))
            keys = [str(values.pop(key.lower())) if is_column(key) else key for key in self.place]
            at = data
            for key in keys[:-1]:
                at = at.setdefault(key, {})
            if not keys:
                at |= values
            else:
                at[keys[-1]] = next(iter(values.values())) if len(values) == 1 else values
        return data

    def expected(self, database_url: str) -> Any:
        """Return the report's data; a list of alerts by the names that the query gives them."""
        data = data_of(database_url, self.report, ASKED.get(self.report, Asked()))
        if self.report != "alerts":
            return data
        rows: dict[str, dict[str, Any]] = {}
        for row in data["alerts"]:
            about = next(name for name in ("member_id", "campaign", "reason") if name in row)
            rows.setdefault(row["alert"], {})[row[about]] = row
        return {"alerts": rows}


def queries() -> list[Query]:
    """Return every query of the folder but the one that opens an export."""
    found = []
    for path in sorted(FOLDER.glob("*.sql")):
        if path == OPEN:
            continue
        sql = path.read_text("utf-8")
        head = re.match(r"-- (\w+):(?: ([\w.]+))?\n", sql)
        assert head is not None, path.name
        found.append(Query(path.stem, head[1], tuple((head[2] or "").split(".")) if head[2] else (), sql))
    return found


QUERIES = queries()


def open_export(database_url: str, folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Export a database into a folder, and open it as the page for analysts says, up to the cut of reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _descriptor: None)  # thousands of small files, and no test cuts the power
        export(database_url, folder)
    document = report(database_url, "rewards", Asked())
    connection.execute(f"SET TimeZone = '{document['zone']}'")
    connection.execute(f"SET VARIABLE folder = '{folder}'")
    connection.execute(f"SET VARIABLE cut = TIMESTAMPTZ '{document['cut']}'")
    for name, value in {**THRESHOLDS._asdict(), "days": ASKED["alerts"].days}.items():
        connection.execute(f"SET VARIABLE {name} = {value}")
    connection.execute(OPEN.read_text("utf-8"))


def has_nothing(value: Any) -> bool:
    """Whether a row of a report counts nothing: 0, null, and lists of them; limits and experiments are none of it."""
    if isinstance(value, dict):
        return all(has_nothing(each) for name, each in value.items() if name not in ("budget", "incremental"))
    return all(has_nothing(each) for each in value) if isinstance(value, list) else not value


def missing(rows: Any, of: Any, place: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys that a report has at a place, and the answer lacks, where the report counts something there."""
    if not any(map(is_column, place)):
        return
    for name, row in of.items() if is_column(place[0]) else [(place[0], of[place[0]])]:
        if name in rows:
            yield from missing(rows[name], row, place[1:])
        elif not has_nothing(row):
            yield name


def compare(query: Query, database_url: str, connection: duckdb.DuckDBPyConnection) -> None:
    """Hold a query's answer to the report: every key of the answer, and no row of the report is missing in it."""
    answer, data = query.answer(connection), query.expected(database_url)
    assert answer
    assert list(differences(answer, data)) == []
    assert list(missing(answer, data, query.place)) == []


@pytest.fixture(scope="module")
def year_export(a_year: Year, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Return the export of the year as DuckDB has opened it."""
    with closing(duckdb.connect(config={"threads": 1})) as connection:
        open_export(a_year.url, tmp_path_factory.mktemp("export"), connection)
        yield connection


def test_reports_of_the_shop_and_a_row_that_is_missing_is_seen(shop_url: str, tmp_path: Path) -> None:
    with closing(duckdb.connect(config={"threads": 1})) as connection:
        open_export(shop_url, tmp_path / "export", connection)
        for query in QUERIES:
            compare(query, shop_url, connection)

        connection.execute("DELETE FROM purchase WHERE day = (SELECT max(day) FROM purchase)")
        connection.execute("DELETE FROM lot WHERE vintage = (SELECT max(vintage) FROM lot)")
        for query in QUERIES:
            if query.name in {"engagement", "customers", "vintages", "ageing"}:
                with pytest.raises(AssertionError):
                    compare(query, shop_url, connection)


@pytest.mark.xdist_group("insight year")
@pytest.mark.parametrize(
    "query", [pytest.param(each, id=each.name) for each in QUERIES if each.name != BEFORE_ERASURES]
)
def test_reports_of_the_year(query: Query, a_year: Year, year_export: duckdb.DuckDBPyConnection) -> None:
    compare(query, a_year.url, year_export)


def test_the_page_names_every_query_with_its_place_in_its_report() -> None:
    page = (DOCS / "analysts.md").read_text("utf-8")
    link = r"\[(\w+)\]\(\.\./tests/insight/export_queries/(\w+)\.sql\)"
    rows = re.findall(rf"^\| {link} \| `(\w+)` \| (\S.*?) \|", page, re.MULTILINE)
    expected = [(q.name, q.name, q.report, f"`{'.'.join(q.place)}`" if q.place else "top level") for q in QUERIES]
    assert rows == expected
    assert {query.report for query in QUERIES} == REPORTS
