"""Tiers as of any instant, as known at any other: in the past, by past knowledge, and how they will fall."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from engine.store.database import ANALYST, transaction
from operations.rows import dictionaries
from schemas.scalars import iso_from_instant
from tests.engine.store.test_ledgers import DAY_MS, HOUR_MS, history
from tests.projections.test_as_of import members_of, record, simulated
from tests.strategies import replays
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from engine.store.cursor import Cursor
    from schemas.events import Event

pytestmark = pytest.mark.postgres

PROGRAMME = """\
schema: guerdon/1
programme: p
timezone: America/New_York
currency: USD
points: {validity: 8d}
refunds: {window: 45d}
metrics: {spent: {sum: purchase.amount}}
tiers:
  metric: METRIC
  window: WINDOW
  levels: [{id: low, from: 0}, {id: middle, from: FIRST}, {id: high, from: SECOND, benefits: [lounge]}]
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""
STRETCH = 45
"""The factor that stretches the times of a history: 110 events of three members then take a year."""

KINDS = {
    "lifetime": ("lifetime", "", 400, 900),
    "calendar": ("calendar_year", "", 150, 400),
    "calendar with grace, one down": ("calendar_year", "grace: 1mo\n  downgrade: one_down", 100, 250),
    "calendar, never": ("calendar_year", "downgrade: never", 150, 400),
    "anniversary": ("anniversary", "downgrade: one_down", 100, 250),
    "anniversary with grace": ("anniversary", "grace: 45d", 150, 300),
    "rolling": ("rolling 90d", "", 60, 150),
    "rolling with grace": ("rolling 60d", "grace: 20d", 60, 150),
    "rolling months": ("rolling 3mo", "", 60, 150),
}
COLUMNS = "member_id, tier, since, until, qualifying, next_tier, to_next_tier"
Row = dict[str, Any]


def programme(kind: str, metric: str = "status") -> str:
    window, more, first, second = KINDS[kind]
    text = PROGRAMME.replace("METRIC", metric).replace("WINDOW", f"{window}\n  {more}".rstrip())
    return text.replace("FIRST", str(first)).replace("SECOND", str(second))


def stretched(seed: int, count: int) -> list[Event]:
    """Return a history that takes years, with refunds and redemptions in it."""
    return [
        structs.replace(event, occurred_at=START_MS + (event.occurred_at - START_MS) * STRETCH)
        for event in history(seed, count, 3)
    ]


def tiers(cursor: Cursor, member_id: str, at_ms: int, known_at: object = None) -> list[Row]:
    """Return the answer that an analyst gets."""
    return dictionaries(
        cursor,
        f"SELECT {COLUMNS} FROM reward.tier_as_of(%s, %s::timestamptz, coalesce(%s::timestamptz, now()))",
        (member_id, iso_from_instant(at_ms), known_at),
    )


def of_member(document: dict[str, list[Row]], member_id: str) -> list[Row]:
    return [row for row in document["tiers"] if row["member_id"] == member_id]


@pytest.mark.parametrize(
    ("kind", "metric"),
    [*((kind, "status") for kind in KINDS), *((kind, "spent") for kind in ("anniversary with grace", "rolling"))],
)
def test_what_will_be_is_what_the_reviews_make_of_it(database_url: str, tmp_path: Path, kind: str, metric: str) -> None:
    """Levels fall at the end of windows and of grace, as `simulate` says when it moves the clock so far."""
    events = stretched(3, 150)
    text = programme(kind, metric)
    activate(database_url, text)
    record(database_url, events)
    last_ms = events[-1].occurred_at

    # at the end of the history and up to seven years later
    days = (0, 1, 19, 30, 59, 75, 91, 200, 366, 400, 740, 2_500)
    seen = set()
    with transaction(database_url, role=ANALYST) as cursor:
        for at_ms in (last_ms + day * DAY_MS for day in days):
            document = simulated(tmp_path, text, events, at_ms)
            for member_id in members_of(events):
                rows = tiers(cursor, member_id, at_ms)
                assert rows == of_member(document, member_id), iso_from_instant(at_ms)
                seen.add(rows[0]["tier"])
    assert len(seen) > 1 or kind in ("lifetime", "calendar, never"), "nobody rises or falls"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_is_told_as_it_was_known(database_url: str, tmp_path: Path, kind: str) -> None:
    """Where tiers count status, the log gives all columns: the test cuts it there and judges it in memory."""
    events = stretched(4, 180)
    text = programme(kind)
    activate(database_url, text)
    steps = record(database_url, events, 36)

    # after each batch, at instants within its knowledge
    chance = random.Random(5)  # noqa: S311  a test must repeat
    with transaction(database_url, role=ANALYST) as cursor:
        for count, known_at in steps:
            recorded = events[:count]
            for _ in range(4):
                upto = chance.randrange(len(recorded))
                at_ms = recorded[upto].occurred_at + chance.choice((0, HOUR_MS, 3 * DAY_MS))
                if upto + 1 < len(recorded) and recorded[upto + 1].occurred_at <= at_ms:
                    at_ms = recorded[upto].occurred_at
                document = simulated(tmp_path, text, recorded[: upto + 1], at_ms)
                for member_id in members_of(recorded):
                    rows = tiers(cursor, member_id, at_ms, known_at)
                    assert rows == of_member(document, member_id), iso_from_instant(at_ms)


def test_at_the_members_clock_it_is_what_the_view_says(database_url: str) -> None:
    activate(database_url, replays.WITH_EVERYTHING)
    replays.work(database_url, replays.events(500))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, (guerdon.packed_items(state, '{0}')->>0)::bigint FROM guerdon.member_state")
        clocks = cursor.fetchall()
        shown = 0
        for member_id, clock_ms in clocks:
            view = f"SELECT {COLUMNS} FROM reward.member_tier WHERE member_id = %s"
            rows = tiers(cursor, member_id, clock_ms)
            assert rows == dictionaries(cursor, view, (member_id,))
            shown += len(rows)
    assert 10 < shown < len(clocks), "who was erased has no tier"
