"""Balances as of any instant, as known at any other: in the past, by past knowledge, and in the future."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import ANALYST, transaction
from operations.replay.generations import discard, promote
from operations.replay.run import Request, replay
from operations.rows import dictionaries
from operations.simulate.run import simulate
from projections.runner import finish
from schemas.events import Decision, Redemption, Refund, key_of
from schemas.json_events import event_to_object
from schemas.scalars import iso_from_instant
from tests.engine.history.test_promote import buys, judged_richly
from tests.engine.store.test_ledgers import DAY_MS, HOUR_MS, PROGRAMME, history
from tests.models.comparison import broken_equations
from tests.strategies import replays
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from engine.store.cursor import Cursor
    from schemas.events import Event

pytestmark = pytest.mark.postgres

BALANCE = """
SELECT {columns} FROM reward.balance_as_of(%s, %s::timestamptz, coalesce(%s::timestamptz, now())) ORDER BY unit
"""
COLUMNS = (
    "member_id, unit, granted, pending, active, reserved, spent, expired, settled, reversed, debt, available, "
    "next_expiry_at, next_expiry_amount"
)
Row = dict[str, Any]


def balances(cursor: Cursor, member_id: str, at_ms: int, known_at: object = None) -> list[Row]:
    """Return the answer that an analyst gets."""
    return dictionaries(cursor, BALANCE.format(columns=COLUMNS), (member_id, iso_from_instant(at_ms), known_at))


def view(cursor: Cursor, member_id: str) -> list[Row]:
    query = f"SELECT {COLUMNS} FROM reward.member_balance WHERE member_id = %s ORDER BY unit"
    return dictionaries(cursor, query, (member_id,))


def simulated(folder: Path, programme: str, events: list[Event], until_ms: int) -> dict[str, list[Row]]:
    """Judge events in memory, and let the time come to an instant."""
    (folder / "p.yaml").write_text(programme)
    (folder / "e.jsonl").write_text("\n".join(json.dumps(event_to_object(event)) for event in events))
    return simulate(folder / "p.yaml", [folder / "e.jsonl"], until_ms).document()


def of_member(document: dict[str, list[Row]], member_id: str) -> list[Row]:
    names = COLUMNS.split(", ")
    return [{name: row[name] for name in names} for row in document["balances"] if row["member_id"] == member_id]


def members_of(events: list[Event]) -> list[str]:
    return sorted({key_of(event) for event in events})


def record(database_url: str, events: list[Event], size: int = 7) -> list[tuple[int, Any]]:
    """Commit events in batches; return for each the number of events so far, and an instant before the next batch."""
    steps = []
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for first in range(0, len(events), size):
            worker.commit(Batch([admitted(event) for event in events[first : first + size]]))
            steps.append((first + size, instant_after(database_url)))
    finish(database_url, threading.Event())
    return steps


def instant_after(database_url: str) -> Any:
    """Return an instant after all recorded events, and wait until it is past."""
    with transaction(database_url) as cursor:
        (known_at,) = one(
            cursor, "SELECT date_trunc('milliseconds', clock_timestamp()) + interval '1 millisecond' AS known_at"
        )
        while one(cursor, "SELECT clock_timestamp() <= %s + interval '1 millisecond'", (known_at,)) == (True,):
            time.sleep(0)
    return known_at


@pytest.mark.parametrize("seed", [5, 6])
def test_what_will_be_is_what_the_time_brings_about_when_nothing_else_happens(
    database_url: str, tmp_path: Path, seed: int
) -> None:
    """Holds end, points lapse, reservations end: as `simulate` says when it moves the clock so far."""
    events = history(seed, 400, 5)
    activate(database_url, PROGRAMME)
    record(database_url, events)
    last_ms = events[-1].occurred_at

    # for each member, at once and later, with something to happen meanwhile
    pending = reserved = lapsed = 0
    with transaction(database_url, role=ANALYST) as cursor:
        for member_id in members_of(events):
            now = balances(cursor, member_id, last_ms)
            pending += sum(row["pending"] for row in now)
            reserved += sum(row["reserved"] for row in now)
        for later_ms in (0, HOUR_MS, DAY_MS, 30 * HOUR_MS, 2 * DAY_MS, 5 * DAY_MS, 9 * DAY_MS, 400 * DAY_MS):
            document = simulated(tmp_path, PROGRAMME, events, last_ms + later_ms)
            for member_id in members_of(events):
                rows = balances(cursor, member_id, last_ms + later_ms)
                assert rows == of_member(document, member_id)
                lapsed += sum(row["expired"] for row in rows)
    assert pending, "nothing was pending"
    assert reserved, "nothing was reserved"
    assert lapsed, "nothing has lapsed"


def taken_away(at_ms: int) -> list[Event]:
    """Return an operator's corrections that leave three members owing."""
    return [
        Decision(
            event_id=f"d{n}", member_id=f"member-{n}", occurred_at=at_ms, action="adjust", amount=-900, unit="points",
            reason="-",
        )
        for n in range(3)
    ]  # fmt: skip


def test_at_the_members_clock_it_is_what_the_view_says(database_url: str) -> None:
    """With late events, refunds before their purchase, ticks, debts, erasures: every member, each at their clock."""
    activate(database_url, replays.WITH_EVERYTHING)
    events = replays.events(500)
    replays.work(database_url, [*events, *taken_away(events[-1].occurred_at)])
    finish(database_url, threading.Event())

    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT member_id, (guerdon.packed_items(state, '{0}')->>0)::bigint FROM guerdon.member_state ORDER BY 1
            """
        )
        clocks = cursor.fetchall()
        units = 0
        for member_id, clock_ms in clocks:
            rows = balances(cursor, member_id, clock_ms)
            assert rows == view(cursor, member_id)
            units += len(rows)
        (debts,) = one(cursor, "SELECT count(*) FROM reward.member_balance WHERE debt > 0")

    assert len(clocks) >= 14
    assert units > len(clocks)
    assert debts, "nobody owes anything"


def test_the_equations_hold_whenever_they_are_asked_for(database_url: str) -> None:
    """Late events count at their own time, and still no account is ever negative, nor is there debt beside points."""
    activate(database_url, replays.WITH_EVERYTHING)
    events = replays.events(500, seed=11)
    events[300:300] = taken_away(events[300].occurred_at)
    replays.work(database_url, events)
    chance = random.Random(1)  # noqa: S311  a test must repeat

    # any member, at any instant, as known at any other
    first_ms, last_ms = (each(event.occurred_at for event in events) for each in (min, max))
    rows = 0
    with transaction(database_url) as cursor:
        cursor.execute("SELECT DISTINCT recorded_at FROM reward.reward_event ORDER BY 1")
        instants = [known_at for (known_at,) in cursor.fetchall()]
        for _ in range(400):
            member_id = f"member-{chance.randrange(16)}"
            at_ms = chance.randrange(first_ms, last_ms + 2 * DAY_MS)
            answer = balances(cursor, member_id, at_ms, chance.choice(instants))
            assert broken_equations(answer) == []
            rows += len(answer)
    assert rows > 400


def test_the_past_is_told_as_it_was_known_then(database_url: str, tmp_path: Path) -> None:
    """As known at an instant, only events recorded by then count: the log is cut there and judged in memory."""
    events = history(9, 200, 3)
    activate(database_url, PROGRAMME)
    steps = record(database_url, events, 25)
    chance = random.Random(2)  # noqa: S311  a test must repeat
    with transaction(database_url, role=ANALYST) as cursor:
        for count, known_at in steps:
            recorded = events[:count]
            for _ in range(4):
                upto = chance.randrange(len(recorded))
                at_ms = recorded[upto].occurred_at
                document = simulated(tmp_path, PROGRAMME, recorded[: upto + 1], at_ms)
                for member_id in members_of(recorded):
                    assert balances(cursor, member_id, at_ms, known_at) == of_member(document, member_id)


def test_before_anything_was_recorded_nothing_is_known(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    commit(database_url, Batch([admitted(purchase(1))]))
    with transaction(database_url, role=ANALYST) as cursor:
        assert balances(cursor, "m1", START_MS + DAY_MS, "1999-01-01T00:00:00Z") == []
        assert balances(cursor, "m1", START_MS) == []
        assert balances(cursor, "nobody", START_MS + DAY_MS) == []
        assert [row["pending"] for row in balances(cursor, "m1", START_MS + 1)] == [10, 0]


def test_what_comes_late_counts_at_its_own_time_once_it_is_known(database_url: str) -> None:
    """A late order pays a debt as of its own time; a late spend takes nothing that was reserved meanwhile."""
    activate(database_url, PROGRAMME.replace("hold: 36h, ", ""))
    head: dict[str, Any] = {"member_id": "m1"}
    spent = Redemption(
        **head, event_id="s", occurred_at=START_MS + HOUR_MS, action="spend", redemption_id="s", amount=10
    )
    gone = Refund(**head, event_id="r", occurred_at=START_MS + 3 * HOUR_MS, order_id="o1", refund_id="r")
    commit(database_url, Batch([admitted(event) for event in (purchase(1), spent, gone)]))
    late = purchase(2, occurred_at=START_MS + 2 * HOUR_MS, amount=3_000)
    before = instant_after(database_url)
    commit(database_url, Batch([admitted(late)]))
    with transaction(database_url, role=ANALYST) as cursor:

        def amounts(hours: int, known_at: object = None) -> tuple[int, ...]:
            (row,) = [r for r in balances(cursor, "m1", START_MS + hours * HOUR_MS, known_at) if r["unit"] == "points"]
            return tuple(row[name] for name in ("granted", "active", "spent", "debt", "available"))

        assert amounts(2, before) == (10, 0, 10, 0, 0)
        assert amounts(2) == (40, 30, 10, 0, 30)
        assert amounts(3, before) == (10, 0, 10, 10, -10)
        assert amounts(3) == (40, 20, 10, 0, 20)


def test_what_owes_pays_before_it_can_lapse(database_url: str, tmp_path: Path) -> None:
    """Points on hold are released into a debt, and the rest lapses."""
    events: list[Event] = [
        Decision(
            event_id="d", member_id="m1", occurred_at=START_MS, action="adjust", amount=-25, unit="points", reason="-"
        ),
        *(purchase(n, occurred_at=START_MS + n * HOUR_MS) for n in range(1, 5)),
    ]
    activate(database_url, PROGRAMME)
    record(database_url, events)
    last_ms = events[-1].occurred_at
    with transaction(database_url, role=ANALYST) as cursor:
        for hours in (0, 33, 34, 35, 36, 8 * 24 + 34, 8 * 24 + 36):
            at_ms = last_ms + hours * HOUR_MS
            document = simulated(tmp_path, PROGRAMME, events, at_ms)
            assert balances(cursor, "m1", at_ms) == of_member(document, "m1")


def test_a_generation_answers_for_the_time_in_which_it_was_live(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    one_live = instant_after(database_url)
    promote(database_url, number)
    two_live = instant_after(database_url)
    promote(database_url, 1)
    commit(database_url, buys(range(60, 61)))
    at_ms = START_MS + 100 * HOUR_MS

    def granted(known_at: object) -> int:
        with transaction(database_url, role=ANALYST) as cursor:
            (row,) = [row for row in balances(cursor, "m0", at_ms, known_at) if row["unit"] == "points"]
        return int(row["granted"])

    assert [granted(known_at) for known_at in (one_live, two_live, None)] == [3, 3 * 70, 4]
    discard(database_url, number)
    assert granted(one_live) == 3
    with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState, match="generation 2, which was discarded") as no:
        granted(two_live)
    assert "guerdon generations" in (no.value.diag.message_hint or "")


def test_every_generation_that_is_promoted_has_the_index(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    promote(database_url, number)
    again = replay(database_url, Request())["generation"]
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT tablename FROM pg_indexes WHERE indexdef LIKE '%% (member_id)' AND tablename LIKE 'reward_event%%'"
        )
        tables = {name for (name,) in cursor.fetchall()}
    assert tables == {"reward_event_g1", f"reward_event_g{number}"}
    assert again != number


def test_analysts_only_read_by_it(database_url: str) -> None:
    with transaction(database_url, role=ANALYST) as cursor:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SELECT guerdon.index_log(1)")
        cursor.connection.rollback()
    with transaction(database_url) as cursor:
        (volatility, config) = one(cursor, "SELECT provolatile, proconfig FROM pg_proc WHERE proname = 'balance_as_of'")
    assert volatility == "s"
    assert "search_path=pg_catalog, pg_temp" in config, "or a type of the caller's could take the place of one of ours"


def test_a_late_spend_waits_for_what_it_takes(database_url: str) -> None:
    """A late spend takes points that were reserved and given back since: it has them only after that."""
    activate(database_url, PROGRAMME.replace("hold: 36h, ", ""))
    steps = [("r", "reserve", 2), ("r", "void", 4), ("s", "spend", 1)]
    made = [
        Redemption(
            event_id=f"e-{action}", member_id="m1", occurred_at=START_MS + hours * HOUR_MS, action=action,  # type: ignore[arg-type]  # one of the five
            redemption_id=name, amount=10 if action != "void" else None,
        )
        for name, action, hours in steps
    ]  # fmt: skip
    commit(database_url, Batch([admitted(event) for event in (purchase(1), *made)]))

    with transaction(database_url, role=ANALYST) as cursor:
        amounts = []
        for hours in (1, 3, 4):
            rows = balances(cursor, "m1", START_MS + hours * HOUR_MS)
            assert broken_equations(rows) == []
            amounts.append(tuple(rows[0][name] for name in ("active", "reserved", "spent")))
    assert amounts == [(10, 0, 0), (0, 10, 0), (0, 0, 10)]
