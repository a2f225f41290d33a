"""Rollups and logs give the same reports, to the unit, as known at any local midnight."""

from __future__ import annotations

import itertools
import threading
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.store.cursor import one
from engine.store.database import as_owner, transaction
from operations.report import frame
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every, midnight
from operations.setup import projections
from projections.facts.rollups import cells
from projections.rebuild import rebuild
from projections.runner import finish
from tests.operations.report.history import BASE, HEAD, History
from tests.strategies.source_histories import append, histories, stretched, written
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

pytestmark = pytest.mark.postgres

ZONE = "Europe/Berlin"
NAMES = ("customers", "engagement", "referrals")
HOUR_MS = 3_600_000
LOGS = "the logs are asked for"
_examples = itertools.count()


def both(database_url: str, name: str, asked: Asked) -> Iterator[dict[str, Any]]:
    """Yield a report from rollups, and then from the logs."""
    document = report(database_url, name, asked)
    assert [note for note in document["notes"] if "logs" in note and "whole months" not in note] == []
    yield document
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(frame, "why_logs", lambda *_: LOGS)
        document = report(database_url, name, asked)
    assert LOGS in document["notes"]
    yield document


def hold(database_url: str, asked: Asked) -> None:
    """Hold what rollups say to what the logs say."""
    for name in NAMES:
        rolled, read = both(database_url, name, asked)
        assert rolled["data"] == read["data"], (name, asked)
        assert rolled["cut"] == read["cut"]


def midnights(database_url: str) -> list[datetime]:
    """Return the midnights between the first and the last event's recording, and one after them."""
    with transaction(database_url) as cursor:
        first, last = one(
            cursor,
            "SELECT min(recorded_at AT TIME ZONE %(zone)s)::date, max(recorded_at AT TIME ZONE %(zone)s)::date "
            "FROM guerdon.source_event",
            {"zone": ZONE},
        )
    return [midnight(first + timedelta(days=days), ZONE) for days in range(1, (last - first).days + 2)]


def test_every_report_at_every_midnight_is_that_of_the_logs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "SEQS_BETWEEN_MERGES", 8)
    activate(database_url, HEAD + BASE)

    @settings(max_examples=12, deadline=None)
    @given(st.data())
    def grow(data: st.DataObject) -> None:
        prefix = f"x{next(_examples)}-"
        events = written(data.draw(histories), prefix, data.draw(st.lists(st.integers(0, 2), max_size=1)))
        events = stretched(events, data.draw(st.sampled_from((1, 12))))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=2)))
        for begin, end in itertools.pairwise((0, *cuts, len(events))):
            append(database_url, events[begin:end], data.draw(st.integers(1, 9 * HOUR_MS)))
            finish(database_url, threading.Event())
        # by its number, as the midnights are those of the days on which the test runs
        known = midnights(database_url)
        known_at = known[data.draw(st.integers(0, 1_000)) % len(known)]
        hold(database_url, Asked(known_at=known_at, every=data.draw(st.sampled_from(list(Every)))))

    grow()
    for known_at in midnights(database_url)[::3]:
        hold(database_url, Asked(known_at=known_at, every=Every.WEEK))
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) > 0 FROM guerdon.rollup_cell") == (True,)
    assert projections.difference(database_url, "facts") is None


@pytest.fixture
def log(database_url: str) -> History:
    """Return a log with orders that come late, in a month of others and before the first, and all else that counts."""
    log = History(database_url)
    log.joins("ann", "2026-01-31T22:59:00Z", channel="web")
    log.buys("ann", "2026-03-05", "o2", 5_000, gross=6_000)
    log.buys("ann", "2026-03-20", "o3", 700)
    log.does("ann", "2026-03-10", "survey")
    log.buys("ann", "2026-02-01", "o1", 1_100)
    log.returns("ann", "2026-04-01", "o3")
    log.returns("ann", "2026-04-02", "o2", 4_000)
    log.joins("bob", "2026-04-10")
    log.joins("bob", "2026-03-10", channel="store")
    log.shares("bob", "2026-04-11")
    log.visits("bob", "2026-04-11T22:00:00Z")
    log.buys("bob", "2026-02-28T23:00:00Z", "o4", 900)
    log.redeems("ann", "2026-05-01", "spend", "d1", 3)
    log.does("cid", "2026-05-02")
    log.erases("cid", "2026-05-03")
    log.take(log.order("dee", "2026-05-02T22:00:00Z", "o5", 0))
    return log


def test_a_report_of_a_part_of_the_time_is_that_of_the_logs(log: History) -> None:
    hold(log.database_url, Asked())
    for since, until in itertools.product((None, date(2026, 3, 1), date(2026, 2, 1)), (None, date(2026, 5, 1))):
        for every in Every:
            hold(log.database_url, Asked(since=since, until=until, every=every))


def test_retention_up_to_a_day_within_a_month_is_read_from_the_logs(log: History) -> None:
    def notes(**asked: Any) -> list[str]:
        hold(log.database_url, Asked(**asked))
        return [note for note in report(log.database_url, "customers", Asked(**asked))["notes"] if "months" in note]

    assert len(notes(until=date(2026, 3, 10))) == 1
    assert notes() == notes(since=date(2026, 2, 1), until=date(2026, 4, 1)) == []


def test_a_note_says_why_the_logs_are_read(log: History) -> None:
    def note(**asked: Any) -> str:
        (found,) = (note for note in report(log.database_url, "engagement", Asked(**asked))["notes"] if "logs" in note)
        return str(found)

    def execute(query: str) -> None:
        with as_owner(log.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            connection.commit()

    assert "split by tier" in note(by="tier")
    assert "begins within a month" in note(since=date(2026, 2, 28))
    assert "within a day" in note(known_at=midnight(date(2099, 1, 1), ZONE) + timedelta(hours=1))
    assert report(log.database_url, "engagement", Asked(known_at=midnight(date(2099, 1, 1), ZONE)))["notes"] == []

    # another zone, no zone, and a rebuild that mends both
    execute("UPDATE guerdon.rollup_zone SET zone = 'UTC'")
    assert "days of UTC, not of Europe/Berlin" in note()
    execute("DELETE FROM guerdon.rollup_zone")
    assert "`guerdon projection rebuild facts`" in note()
    rebuild(log.database_url, "facts")
    rebuild(log.database_url, "reward_day")
    hold(log.database_url, Asked())
