"""Whatever happens, late or not, every period closes, and a month that was closed stays as it was published."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from msgspec import structs

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.liability.close import close_month, closed_months
from operations.report.liability.report import problem
from schemas.errors import AnswerIsNo
from tests.engine.store.test_ledgers import DAY_MS, PROGRAMME, history
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from schemas.events import Event

pytestmark = pytest.mark.postgres

ZONE = ZoneInfo("America/New_York")
SLOWER = 6
"""Spreads the history over four months."""

LATE_SHARE, LATE_BY = 0.1, 150
"""Which part of the events is late, and by how many others at most."""


class Published(NamedTuple):
    """Hold a report of liability as it was at a close, and what was asked for it."""

    asked: Asked
    data: dict[str, Any]


def late(seed: int, count: int) -> list[Event]:
    """Return a history of several months in the order in which it comes: some events much later than others."""
    rng = random.Random(seed)  # noqa: S311  a history, no secret
    placed = []
    for place, event in enumerate(history(seed, count, 5)):
        slow: Any = event
        slow = structs.replace(slow, occurred_at=START_MS + (slow.occurred_at - START_MS) * SLOWER)
        delay = rng.randrange(LATE_BY) if rng.random() < LATE_SHARE else 0
        placed.append((place + delay, slow))
    return [event for _, event in sorted(placed, key=lambda each: each[0])]


def movements(database_url: str) -> list[Any]:
    """Return every movement of points: when it happened, when it was recorded, debit, credit, amount."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT occurred_at, recorded_at, debit::text, credit::text, amount FROM guerdon.reward_event
            WHERE unit = 'points' AND debit IS NOT NULL
            """
        )
        return cursor.fetchall()


def month_after(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02}"


def closings(database_url: str) -> dict[str, tuple[int, int]]:
    """Return what is outstanding and owed at the end of each month, movement by movement, as the sentence says.

    A movement belongs to its own local month; where that was closed when it was recorded, to the first one open then.
    """
    decided = [(row["month"], datetime.fromisoformat(row["closed_at"])) for row in closed_months(database_url)]
    changes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for occurred_at, recorded_at, debit, credit, amount in movements(database_url):
        month = occurred_at.astimezone(ZONE).strftime("%Y-%m")
        for closed, closed_at in decided:
            if month <= closed and recorded_at >= closed_at:
                month = month_after(closed)
        change = changes[month]
        for account, sign in ((credit, 1), (debit, -1)):
            change[0] += sign * amount if account in ("pending", "active", "reserved") else 0
            change[1] -= sign * amount if account == "debt" else 0

    ends, gross, debt = {}, 0, 0
    for month in sorted(changes):
        gross, debt = gross + changes[month][0], debt + changes[month][1]
        ends[month] = gross, debt
    return ends


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_histories_with_closes_at_any_instant(database_url: str, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311  as above
    activate(database_url, PROGRAMME)
    events = late(seed, 300)
    published: dict[str, Published] = {}
    latest_ms = 0
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for first in range(0, len(events), 10):
            batch = events[first : first + 10]
            worker.commit(Batch([admitted(event) for event in batch]))
            latest_ms = max(latest_ms, *(event.occurred_at for event in batch))
            if rng.random() < 0.3:
                move_clocks(worker, latest_ms)
                published |= close_what_is_over(database_url)
        move_clocks(worker, latest_ms + 40 * DAY_MS)
    assert len(published) > 1, "the history is too short"

    # every period closes, the ageing fits, and each month's end is the one by the sentence
    data = report(database_url, "liability", Asked(until=date(2025, 1, 1)))["data"]
    assert problem(data) is None
    rows = data["roll_forward"]
    found = {month: (row["closing_gross"], row["closing_debt"]) for month, row in rows.items()}
    expected = closings(database_url)
    assert {month: found[month] for month in expected} == expected
    assert any(row["prior_periods"] or row["prior_periods_debt"] for row in rows.values()), "nothing was late"

    # what was published stands: as a row of the report of now, and as the whole report of then
    for month, then in published.items():
        assert rows[month] == then.data["roll_forward"][month]
        assert report(database_url, "liability", then.asked)["data"] == then.data


def test_a_close_waits_for_who_is_recording_and_knows_what_they_recorded(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    bought = [admitted(purchase(number, f"m{number}", occurred_at=START_MS + DAY_MS)) for number in range(3)]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch(bought[:1]))
        move_clocks(worker, START_MS + 31 * DAY_MS + DAY_MS // 2)

    # a worker has recorded a purchase and not committed it when May is closed
    is_recorded, goes_on = threading.Event(), threading.Event()

    def stop(point: str) -> None:
        if point == "before commit":
            is_recorded.set()
            goes_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        try:
            writes = pool.submit(commit, database_url, Batch(bought[1:2]), stop)
            assert is_recorded.wait(60)
            closes = pool.submit(close_month, database_url, "2024-05", "fin", "-")
            eventually(lambda: somebody_waits(database_url), "the close waits")
        finally:
            goes_on.set()
        writes.result()
        row = closes.result()

    # the purchase counts in May, and the next one in June
    before = closings(database_url)
    assert (row["closing_gross"], row["closing_debt"]) == before["2024-05"]
    commit(database_url, Batch(bought[2:]))
    after = closings(database_url)
    assert after["2024-05"] == before["2024-05"]
    assert after["2024-06"][0] > after["2024-05"][0] > 0
    data = report(database_url, "liability", Asked(until=date(2024, 7, 1)))["data"]
    assert problem(data) is None
    assert data["roll_forward"]["2024-06"]["prior_periods"] == after["2024-06"][0] - after["2024-05"][0]


def somebody_waits(database_url: str) -> bool:
    with transaction(database_url) as cursor:
        found: tuple[bool] = one(
            cursor, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'guerdon.evaluating'::regclass"
        )
    return found[0]


def move_clocks(worker: LiveTransaction, until_ms: int) -> None:
    move = ClockMove(until_ms, everywhere=True, hourly=False, reached_ms=until_ms)
    while worker.commit(Batch(clock=move)).ticks:
        pass
    worker.commit(Batch(clock=ClockMove(until_ms, hourly=False, reached_ms=until_ms, shards=(0,))))


def close_what_is_over(database_url: str) -> dict[str, Published]:
    """Close the next month where that can be done, and return the report that was published for it."""
    decided = closed_months(database_url)
    month = month_after(decided[-1]["month"]) if decided else min(closings(database_url))
    refused = ""
    try:
        close_month(database_url, month, "fin", "-")
    except AnswerIsNo as no:
        refused = str(no)
    if refused:
        assert "clocks stand at" in refused
        return {}
    with transaction(database_url) as cursor:
        (closed_at,) = one(cursor, "SELECT max(closed_at) FROM guerdon.month_close")
    asked = Asked(until=date.fromisoformat(f"{month_after(month)}-01"), known_at=closed_at.astimezone(UTC))
    return {month: Published(asked, report(database_url, "liability", asked)["data"])}
