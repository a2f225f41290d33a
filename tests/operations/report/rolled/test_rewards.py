"""A report from rollups is that from the logs, to the unit: of random logs, at every midnight, for any time."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import live_generation
from operations.report import frame
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every, midnight
from operations.setup import projections
from projections.rebuild import rebuild
from projections.runner import finish
from tests.engine.store.test_ledgers import DAY_MS, PROGRAMME
from tests.operations.report import books
from tests.operations.report.test_liability_histories import late
from tests.strategies.replays import everything
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

ZONE = "America/New_York"
FIRST, LAST = date(2024, 5, 1), date(2024, 9, 20)
"""The days between which the history lies."""

ROLLED = ("engagement", "campaigns", "alerts", "liability", "redemption", "rewards")
"""The reports that read rewards by days."""


@pytest.fixture(params=[1, 2])
def url(request: pytest.FixtureRequest, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a log of several months, recorded over as many days, whose rollups grew fold by fold."""
    seed: int = request.param
    chance = random.Random(seed)  # noqa: S311  a history, no secret
    recorded_ms = [0]
    monkeypatch.setattr(live_generation, "now_ms", lambda _cursor: recorded_ms[0])
    events = late(seed, 300)
    recorded_ms[0] = events[0].occurred_at
    activate(database_url, PROGRAMME)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for first in range(0, len(events), 10):
            batch = events[first : first + 10]
            recorded_ms[0] = max(recorded_ms[0], *(event.occurred_at for event in batch)) + chance.randrange(DAY_MS)
            worker.commit(Batch([admitted(event) for event in batch]))
            if chance.random() < 0.5:
                move_clocks(worker, recorded_ms[0])
            if chance.random() < 0.5:
                finish(database_url, threading.Event())
        recorded_ms[0] += 40 * DAY_MS
        move_clocks(worker, recorded_ms[0])
    finish(database_url, threading.Event())
    return database_url


def move_clocks(worker: LiveTransaction, until_ms: int) -> None:
    move = ClockMove(until_ms, everywhere=True, hourly=False, reached_ms=until_ms)
    while worker.commit(Batch(clock=move)).ticks:
        pass
    worker.commit(Batch(clock=ClockMove(until_ms, hourly=False, reached_ms=until_ms, shards=(0,))))


def questions(seed: int) -> Iterator[Asked]:
    """Yield questions for any time, known at any midnight."""
    chance = random.Random(seed)  # noqa: S311  a question, no secret
    span = (LAST - FIRST).days
    yield Asked()
    for _ in range(6):
        begin = FIRST + timedelta(days=chance.randrange(span - 60))
        end = begin + timedelta(days=20 + chance.randrange((LAST - begin).days - 20))
        yield Asked(
            since=chance.choice((None, begin.replace(day=1))),
            until=chance.choice((None, end)),
            every=chance.choice(list(Every)),
            known_at=chance.choice((None, midnight(end + timedelta(days=chance.randrange(30)), ZONE))),
            days=chance.choice((3, 30)),
        )


def both(database_url: str, name: str, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return a report from rollups, and from the logs."""
    rolled = report(database_url, name, asked)
    with monkeypatch.context() as patch:
        patch.setattr(frame, "why_logs", lambda _cursor, _wanted: "the logs are read")
        logged = report(database_url, name, asked)
    assert "the logs are read" in logged["notes"]
    return rolled, logged


def without_notes(document: Any) -> Any:
    """Return a document without its notes, its instant, and the interval that only members can give."""
    told = {name: part for name, part in document.items() if name not in ("notes", "known_at")}
    if "methods" in told["data"]:
        methods = {name: part for name, part in told["data"]["methods"].items() if name != "interval"}
        told["data"] = {**told["data"], "methods": methods}
    return told


def test_reports_from_rollups_are_those_from_the_logs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ROLLED:
        for asked in questions(len(name)):
            rolled, logged = both(url, name, asked, monkeypatch)
            assert not any("the logs" in note for note in rolled["notes"]), rolled["notes"]
            assert without_notes(rolled) == without_notes(logged), (name, asked)


def test_points_that_came_back_and_members_who_left(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # every movement in which points go back, recorded on days of their own, and folded one by one
    recorded_ms = [books.ms("2024-05-01T10:00")]
    monkeypatch.setattr(live_generation, "now_ms", lambda _cursor: recorded_ms[0])
    activate(database_url, books.PROGRAMME)
    for event in (*books.TO_JUNE, *books.FROM_JULY, *books.IN_AUGUST):
        recorded_ms[0] = max(recorded_ms[0], event.occurred_at) + 1000
        at = datetime.fromtimestamp(recorded_ms[0] / 1000, UTC).replace(tzinfo=None).isoformat()
        books.commit(database_url, [event], at)
        finish(database_url, threading.Event())
    recorded_ms[0] = books.ms("2025-01-10T10:00")
    books.commit(database_url, [], "2025-01-10T10:00")
    finish(database_url, threading.Event())

    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(DISTINCT way) FROM guerdon.lot_day") == (11,)
    for name in ROLLED:
        for number in range(0, 260, 20):
            until = date(2024, 5, 4) + timedelta(days=number)
            for known_at in (None, midnight(until + timedelta(days=1), "Europe/Berlin")):
                rolled, logged = both(database_url, name, Asked(until=until, known_at=known_at), monkeypatch)
                assert without_notes(rolled) == without_notes(logged), (name, until, known_at)
    assert projections.difference(database_url, "reward_day") is None


def test_campaigns_coupons_tiers_and_members_who_are_held(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 400)
    finish(database_url, threading.Event())
    for name in ROLLED:
        rolled, logged = both(database_url, name, Asked(every=Every.DAY), monkeypatch)
        assert not any("the logs" in note for note in rolled["notes"]), rolled["notes"]
        assert without_notes(rolled) == without_notes(logged), name
    given = report(database_url, "campaigns", Asked())["data"]["spring"]
    assert given["points_earned"] > 0
    assert projections.difference(database_url, "reward_day") is None


def test_movements_are_told_from_before_and_after_a_close_of_the_same_day(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclosed = report(url, "liability", Asked())["data"]["roll_forward"]
    with transaction(url) as cursor:
        for month, at in (("2024-05-01", "2024-06-11T15:30Z"), ("2024-06-01", "2024-07-24T11:00Z")):
            cursor.execute(
                """
                INSERT INTO guerdon.month_close
                    (month, zone, closed_at, actor, reason, generation, closing_gross, closing_debt)
                VALUES (%s, %s, %s, 'fin', '-', 1, 0, 0)
                """,
                (month, ZONE, at),
            )
    for asked in questions(1):
        rolled, logged = both(url, "liability", asked, monkeypatch)
        assert without_notes(rolled) == without_notes(logged), asked
    closed = report(url, "liability", Asked())["data"]["roll_forward"]
    assert closed["2024-05"]["granted"] < unclosed["2024-05"]["granted"]


def test_a_rebuild_makes_the_same_rollups(url: str) -> None:
    assert projections.difference(url, "reward_day") is None
    before = sums(url)
    rebuild(url, "reward_day")
    assert projections.difference(url, "reward_day") is None
    assert sums(url) == before


def sums(database_url: str) -> list[Any]:
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT 'reward', day, recorded_day, kind::text, NULL::date, sum(amount), sum(rewards)
            FROM guerdon.reward_day GROUP BY 1, 2, 3, 4, 5
            UNION ALL
            SELECT 'count', day, recorded_day, measure::text, nullif(previous, '-infinity'), sum(number), 0
            FROM guerdon.reward_count GROUP BY 1, 2, 3, 4, 5 HAVING sum(number) <> 0
            UNION ALL
            SELECT concat_ws(' ', granted_day, expires, way), day, recorded_day, '', left_day, sum(points), 0
            FROM guerdon.lot_day GROUP BY 1, 2, 3, 4, 5 HAVING sum(points) <> 0
            ORDER BY 1, 2, 3, 4, 5
            """
        )
        return cursor.fetchall()


def test_an_instant_within_a_day_is_answered_from_the_logs(url: str) -> None:
    known_at = datetime(2024, 7, 1, 12, tzinfo=UTC)
    (note,) = (each for each in report(url, "engagement", Asked(known_at=known_at))["notes"] if "logs" in each)
    assert "an instant within a day is answered from the logs" in note


def test_the_history_has_late_days_of_members(url: str) -> None:
    with transaction(url) as cursor:
        assert one(cursor, "SELECT count(*) > 0 FROM guerdon.reward_count WHERE number < 0") == (True,)
        assert one(cursor, "SELECT count(DISTINCT recorded_day) > 20 FROM guerdon.reward_day") == (True,)
