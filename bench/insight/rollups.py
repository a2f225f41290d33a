"""Measure reports of the rollups of a long log: 1,000,000 members and 10,000,000 orders, and show the slowest plan.

The orders are drawn by SQL, and so are the cells and the rows of members that follow from them, event by
event being too slow for a benchmark. Each member buys on random days of three years, so nearly every cell that can be
is there: hardly a log has more.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing
from datetime import date
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import psycopg2

from bench.databases import fresh, server
from bench.insight import reward_days
from bench.load import PROGRAMME
from engine.store.cursor import one
from engine.store.database import NO_LIMIT, as_owner, snapshot
from operations.report import catalogue
from operations.report.catalogue import REPORTS
from operations.report.frame import Asked, frame
from operations.report.periods import midnight

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from operations.report.frame import Frame

RUNS = 5
DAYS = 1_095
EARLIER = midnight(date(2024, 7, 1), "America/New_York")
REPORTS_MEASURED = ("engagement", "customers", "referrals", "redemption", "liability", "campaigns", "rewards")


def main() -> None:
    """Fill a database, and print the size of the rollups and the time of each report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--orders", type=int, default=10_000_000)
    asked = parser.parse_args()
    with server() as address:
        url = fresh(address, "rollups", PROGRAMME)
        with as_owner(url) as connection, connection.cursor() as cursor:
            fill(cursor, asked.members, asked.orders)
            connection.commit()
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
                cells, size = one(cursor, _SIZE)
        print(f"{asked.orders:,} orders of {asked.members:,} members: {cells:,} cells, {size / 1e6:,.0f} MB")
        for name in REPORTS_MEASURED:
            now_ms, notes = _median_ms(url, name, Asked())
            earlier_ms, _ = _median_ms(url, name, Asked(known_at=EARLIER))
            print(
                f"  {name:12s} {now_ms:7,.0f} ms, as known half a year before the end {earlier_ms:7,.0f} ms",
                *(f"({note})" for note in notes if "logs" in note),
            )
            _plans(url, name)


def _median_ms(url: str, name: str, asked: Asked) -> tuple[float, list[str]]:
    """Return the median time of a report, and its notes."""
    taken_s, notes = [], []
    for _ in range(RUNS):
        begun_s = time.perf_counter()
        notes = catalogue.report(url, name, asked)["notes"]
        taken_s.append(time.perf_counter() - begun_s)
    return statistics.median(taken_s) * 1000, notes


def fill(cursor: Cursor, members: int, orders: int) -> None:
    """Draw orders, and write the cells that they would have left, as known on the day of each."""
    cursor.execute("SET LOCAL work_mem = '512MB'; SELECT setseed(0.5)")
    cursor.execute(_STAGING, {"members": members, "orders": orders, "days": DAYS})
    (build,) = one(cursor, "SELECT build FROM guerdon.projection_build WHERE projection = 'facts'")
    cursor.execute(
        "INSERT INTO guerdon.rollup_zone SELECT %s, shard, 'America/New_York' FROM guerdon.shard_lock", (build,)
    )
    for query in (*_CELLS, _MEMBERS):
        cursor.execute(query, {"build": build})
    cursor.execute(_TOTALS)
    cursor.execute("UPDATE guerdon.projection_cursor SET pos = 1 WHERE build = %s", (build,))
    reward_days.fill(cursor, "2024-12-30")


_SIZE = """
SELECT (SELECT count(*) FROM guerdon.rollup_cell), pg_total_relation_size('guerdon.rollup_cell')::float
"""

_STAGING = """
CREATE TEMPORARY TABLE bought ON COMMIT DROP AS
SELECT member, date '2022-01-01' + day AS day, amount, date '2022-01-01' + lag(day) OVER w AS previous,
       row_number() OVER w AS number,
       date_trunc('month', (date '2022-01-01' + day)::timestamp)::date AS month,
       date '2022-01-01' + min(day) OVER (PARTITION BY member) AS first
FROM (
    SELECT floor(random() * %(members)s)::integer AS member, floor(random() * %(days)s)::integer AS day,
           100 + floor(random() * 10000)::integer AS amount
    FROM generate_series(1, %(orders)s)
) drawn WINDOW w AS (PARTITION BY member ORDER BY day);
CREATE TEMPORARY TABLE answer ON COMMIT DROP AS
SELECT day, date_trunc('month', day::timestamp)::date AS month, lag(day) OVER w AS previous, lead(day) OVER w AS later,
       CASE WHEN score >= 9 THEN 'promoter' WHEN score >= 7 THEN 'passive' ELSE 'detractor' END AS measure
FROM (SELECT DISTINCT ON (member, day) member, day, amount %% 11 AS score FROM bought WHERE amount %% 50 = 0) last
WINDOW w AS (PARTITION BY member ORDER BY day);
CREATE TEMPORARY TABLE first_of_month ON COMMIT DROP AS
SELECT date_trunc('month', first::timestamp)::date AS first, month, min(day) AS day,
       coalesce(lag(month) OVER (PARTITION BY member ORDER BY month), '-infinity') AS previous
FROM bought GROUP BY member, first, month;
"""

_INSERT = """
INSERT INTO guerdon.rollup_cell (build, measure, day, later, previous, recorded, name, amount)
SELECT %(build)s, {measure}, {key}, '', {amount} FROM {rows} GROUP BY 2, 3, 4, 5, 6
"""


def _cells(measure: str, key: str, amount: str, rows: str) -> str:
    """Return the query of a measure; `key` is day, later, previous and the day of recording."""
    return _INSERT.format(measure=f"'{measure}'", key=key, amount=amount, rows=rows)


_OF_DAY = "day, date '-infinity', date '-infinity', day"
_GAP = """
day, date '-infinity', CASE WHEN previous IS NULL THEN '-infinity' WHEN previous >= least(day - 7, month) THEN previous
                            ELSE date_trunc('month', previous::timestamp)::date END, day
"""
_NEXT = """
CASE WHEN later IS NULL THEN '-infinity' WHEN date_trunc('month', later::timestamp) <= day + 7 THEN later
     ELSE date_trunc('month', later::timestamp)::date END
"""
_OTHER_DAY = "bought WHERE previous IS NULL OR day > previous"
_SECOND = "(SELECT first, min(day) AS day FROM bought WHERE number = 2 GROUP BY member, first) second"

_CELLS = (
    *(_cells(measure, _OF_DAY, "count(*)", "bought") for measure in ("event", "order", "net_positive")),
    *(
        _cells(measure, _OF_DAY, "sum(amount)", "bought")
        for measure in ("amount", "net", "gross", "gross_net_positive")
    ),
    *(_cells(measure, _GAP, "count(*)", _OTHER_DAY) for measure in ("active", "buyer")),
    _cells("asked", _GAP, "count(*)", "answer"),
    _INSERT.format(
        measure="measure", key=f"day, {_NEXT}, date '-infinity', coalesce(later, day)", amount="count(*)",
        rows="answer",
    ),
    *(_cells(measure, _OF_DAY, "count(*)", "bought WHERE number = 1") for measure in ("member", "joined")),
    _cells("second", "first, date '-infinity', date '-infinity', first", "count(*)", "bought WHERE number = 1"),
    _cells("second", "first, day, date '-infinity', day", "count(*)", f"{_SECOND} WHERE day <= first + 90"),
    _INSERT.format(
        measure="'second'", key="first, date '-infinity', date '-infinity', day", amount="-count(*)",
        rows=f"{_SECOND} WHERE day <= first + 90 AND day > first",
    ),
    *(_cells(measure, "first, month, previous, day", "count(*)", "first_of_month") for measure in ("bought", "stayed")),
    _cells(
        "revenue", "date_trunc('month', first::timestamp)::date, month, date '-infinity', day", "sum(amount)", "bought"
    ),
    *(_cells(measure, _OF_DAY, "count(*)", "bought WHERE member %% 20 = 0") for measure in ("share", "touch")),
)  # fmt: skip
"""The cells of all measures that reports read, of orders that never came late or went back."""

_TOTALS = """
INSERT INTO guerdon.rollup_total (build, measure, day, later, previous, name, amount)
SELECT build, measure, day, later, previous, name, sum(amount) FROM guerdon.rollup_cell
GROUP BY build, measure, day, later, previous, name
"""

_MEMBERS = """
INSERT INTO guerdon.fact_member (build, shard, member_id, first_seq, first_event_at, first_recorded_at, orders, waiting,
                                 net, gross, changes, joined_at, first_order_at, last_order_at)
SELECT %(build)s, member %% 64, 'member-' || member, 1, min(day), min(day), count(*), 0, sum(amount), sum(amount),
       count(*), min(day), min(day), max(day)
FROM bought GROUP BY member
"""


def _plans(url: str, name: str) -> None:
    """Print the plan of the slowest query of a report."""
    with snapshot(url, statement_max=NO_LIMIT) as cursor:
        of = frame(cursor, Asked())
        queries: list[tuple[float, str]] = []
        with patch.object(type(of), "rows", lambda of, query, **more: _timed(of, queries, query, more)):
            REPORTS[name].compute(of)
        queries.sort(reverse=True)
        taken_s, query = queries[0]
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}")
        plan = "\n".join(f"      {line}" for (line,) in cursor.fetchall())
    others = ", ".join(f"{others_s * 1000:,.0f}" for others_s, _ in queries[1:])
    print(f"    the slowest query took {taken_s * 1000:,.0f} ms, the others {others} ms:\n{plan}")


def _timed(of: Frame, queries: list[tuple[float, str]], query: str, more: dict[str, Any]) -> list[tuple[Any, ...]]:
    begun_s = time.perf_counter()
    of.cursor.execute(query, {**of.parameters, **more})
    rows = of.cursor.fetchall()
    queries.append((time.perf_counter() - begun_s, of.cursor.mogrify(query, {**of.parameters, **more}).decode()))
    return rows


if __name__ == "__main__":
    main()
