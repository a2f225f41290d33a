"""Where ticks stand, and how many, changes no balance, tier or amount: in memory and in the live transaction."""

from __future__ import annotations

import json
import random
import threading
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.tier_reports import report_again
from engine.live.transaction import LiveTransaction
from engine.programme.file.load import load_programme
from engine.store.database import transaction
from operations.rows import dictionaries
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from operations.verify.checks import verify
from projections.runner import finish
from schemas.json_events import decode_json
from schemas.partitioning import SHARDS
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.models.oracle import assert_judged
from tests.strategies.histories import DAY_MS, WINDOWS, History, compared, programme
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from engine.programme.model import Programme


@cache
def checked(window: str) -> Programme:
    found = load_programme(programme(window), "history").programme
    assert found is not None
    return found


def judged(window: str, lines: list[dict[str, Any]], until_ms: int) -> dict[str, Any]:
    """Return what `simulate` says of the lines, without the places in the log."""
    texts = [Line("events", number, json.dumps(line).encode()) for number, line in enumerate(lines, 1)]
    return compared(simulate_lines(checked(window), texts, until_ms).document())


def at_ms(line: dict[str, Any]) -> int:
    return instant_from_iso(line["occurred_at"], "occurred_at")


def with_ticks(lines: list[dict[str, Any]], places: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Insert ticks before lines: (number of the line, thousandths of the way from the line before it)."""
    found: dict[int, list[int]] = {}
    for place, thousandths in places:
        number = place % len(lines)
        from_ms = at_ms(lines[number - 1]) if number else at_ms(lines[0]) - DAY_MS
        found.setdefault(number, []).append(from_ms + (at_ms(lines[number]) - from_ms) * thousandths // 1_000)
    woven = []
    for number, line in enumerate(lines):
        ticks = sorted(found.get(number, []))
        woven += [{"type": "tick", "occurred_at": iso_from_instant(tick_ms)} for tick_ms in ticks]
        woven.append(line)
    return woven


PLACES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 1_000)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@example(seed=0, window="anniversary", places=[(86, 0)])  # a refusal after what a tick had done got another key
@given(seed=st.integers(0, 1_000_000), window=st.sampled_from(sorted(WINDOWS)), places=PLACES)
def test_ticks_inserted_anywhere_into_a_history_in_order_change_nothing_but_places(
    seed: int, window: str, places: list[tuple[int, int]]
) -> None:
    history = History(members=2, seed=seed).fill(60)
    lines, until_ms = history.in_time, history.end_ms + 60 * DAY_MS
    assert judged(window, with_ticks(lines, places), until_ms) == judged(window, lines, until_ms)


def test_a_tick_before_every_event_and_none_at_all_come_to_the_same() -> None:
    history = History(members=5).fill(400)
    lines, until_ms = history.in_time, history.end_ms + 60 * DAY_MS
    places = [(number, 999) for number in range(len(lines))]
    assert len(with_ticks(lines, places)) == 2 * len(lines)
    for window in WINDOWS:
        assert judged(window, with_ticks(lines, places), until_ms) == judged(window, lines, until_ms)


# The live transaction

Ticks = str
"""When ticks come: never, with `some` of the batches, or with `each` of them, as late as the data allows."""


def worked(database_url: str, lines: list[dict[str, Any]], how: tuple[int, Ticks], until_ms: int) -> dict[str, Any]:
    """Take the lines in batches of a size with ticks before some, move all clocks on, and return what the views say."""
    size, ticks = how
    activate(database_url, programme("rolling 60d"))
    chance = random.Random(5)  # noqa: S311  a test must repeat
    events = [admitted(decode_json(json.dumps(line).encode())) for line in lines]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live:
        for first in range(0, len(events), size):
            batch = events[first : first + size]
            is_ticked = ticks == "each" or (ticks == "some" and chance.random() < 0.3)
            now_ms = min(event.event.occurred_at for event in batch)
            live.commit(Batch(batch, clock=ClockMove(now_ms) if is_ticked else None))
            if is_ticked and chance.random() < 0.5:
                live.commit(Batch(clock=ClockMove(now_ms, everywhere=True)))
        while live.commit(Batch(clock=ClockMove(until_ms, everywhere=True, hourly=False))).ticks:
            pass
    finish(database_url, threading.Event())
    for shard in range(SHARDS):
        report_again(database_url, shard, until_ms)
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    return viewed(database_url)


def viewed(database_url: str) -> dict[str, Any]:
    """Return what the views say, as `compared` wants it."""
    tables = {"balances": "member_balance", "tiers": "member_tier", "rewards": "member_reward"}
    with transaction(database_url) as cursor:
        found = {name: dictionaries(cursor, f"SELECT * FROM reward.{view}") for name, view in tables.items()}
        found["reward_events"] = dictionaries(cursor, "SELECT * FROM reward.reward_event ORDER BY shard, pos")
    return compared(found)


@pytest.mark.postgres
@pytest.mark.parametrize(
    "how", [(500, "never"), (500, "each"), (7, "never"), (7, "some"), (7, "each"), (1, "some"), (1, "each")]
)
def test_neither_batches_nor_ticks_between_them_change_what_a_history_in_order_comes_to(
    how: tuple[int, Ticks], database_url: str
) -> None:
    history = History(members=12).fill(240)
    until_ms = history.end_ms + 60 * DAY_MS
    assert worked(database_url, history.in_time, how, until_ms) == judged("rolling 60d", history.in_time, until_ms)


@pytest.mark.postgres
def test_the_log_with_its_ticks_leads_to_what_was_written(database_url: str) -> None:
    """Without signups, as an oracle that reads only the log does not know whose birthday it is."""
    history = History(members=12).fill(240)
    lines = [line for line in history.in_time if line["type"] != "signup"]
    worked(database_url, lines, (7, "some"), history.end_ms)
    with transaction(database_url) as cursor:
        assert_judged(cursor)


@pytest.mark.postgres
@pytest.mark.parametrize("size", [500, 7, 1])
def test_late_events_come_to_the_same_in_batches_of_any_size_where_no_tick_falls_between(
    size: int, database_url: str
) -> None:
    history = History(members=12).fill(240)
    chance = random.Random(9)  # noqa: S311  a test must repeat
    late = sorted(history.in_time, key=lambda line: at_ms(line) + chance.choice((0, 0, 0, 20)) * DAY_MS)
    assert late != history.in_time
    until_ms = history.end_ms + 60 * DAY_MS
    found = worked(database_url, late, (size, "never"), until_ms)
    assert found == judged("rolling 60d", late, until_ms)
    assert found != judged("rolling 60d", history.in_time, until_ms)
