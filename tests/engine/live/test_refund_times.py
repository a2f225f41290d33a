"""However a history is cut into batches, members get the same for their own events, and referrers for their referees'.

The live transaction passes on what a batch's referees do in a later one, and forgets what it may after each; `simulate`
does neither. What both bring must be the same.
"""

from __future__ import annotations

import json
from contextlib import closing
from itertools import count, pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.member.state import PAGE_LOTS
from engine.programme.file.load import load_programme
from engine.programme.localtime import DAY_MS
from engine.store.database import transaction
from operations.rows import dictionaries
from schemas.json_events import decode_json
from schemas.scalars import iso_from_instant
from tests.chaos.conftest import FULL
from tests.strategies.refund_histories import (
    START_MS,
    TEXT,
    Event,
    History,
    brought,
    histories,
    named,
    simulated,
)
from tests.strategies.replays import differing, repeated
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.postgres

END_MS = START_MS + 10_000 * 86_400_000
CUTS = st.lists(st.integers(1, 25), max_size=4).map(sorted)


def cut(events: Sequence[Event], cuts: Sequence[int]) -> list[Sequence[Event]]:
    """Return events in batches that end before some of them."""
    return [events[first:end] for first, end in pairwise([0, *cuts, len(events)]) if events[first:end]]


def published(history: History, cuts: Sequence[int]) -> Iterator[tuple[str, list[Sequence[Event]]]]:
    """Yield the ways in which a history may come: at once, cut, one by one, or the referees' part as a backlog."""
    in_time = history.all()
    yield "at once", [in_time]
    yield "cut", cut(in_time, cuts)
    yield "one by one", [[event] for event in in_time]
    yield "backlog", [history.own, *cut(history.friends, cuts)]


def take(worker: LiveTransaction, events: Sequence[Event]) -> None:
    worker.commit(Batch([admitted(decode_json(json.dumps(event))) for event in events]))


def drain(worker: LiveTransaction) -> None:
    """Let what was passed on be taken in, as idle workers do."""
    while worker.commit(Batch(clock=ClockMove(START_MS, everywhere=True, hourly=False, reached_ms=END_MS))).ticks:
        pass


def test_a_history_brings_the_same_however_it_is_cut_into_batches(database_url: str) -> None:
    activate(database_url, TEXT)
    programme = load_programme(TEXT, "p.yaml").programme
    assert programme is not None
    numbers = count()

    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:

        @settings(
            max_examples=60 if FULL else 5,
            deadline=None,
            database=None,
            derandomize=not FULL,
            suppress_health_check=list(HealthCheck),
        )
        @given(histories(12), CUTS)
        def it_does(history: History, cuts: list[int]) -> None:
            for way, batches in published(history, cuts):
                suffix = f"-{next(numbers)}"
                for batch in batches:
                    take(worker, named(batch, suffix))
                    if way == "cut":
                        drain(worker)
                drain(worker)
                with transaction(database_url) as cursor:
                    rewards = dictionaries(
                        cursor,
                        "SELECT type::text, member_id, event_id, rule_id, unit, reason, amount"
                        " FROM reward.reward_event WHERE member_id LIKE %s",
                        (f"%{suffix}",),
                    )
                assert brought(rewards) == brought(simulated(programme, named(history.all(), suffix))), way

        it_does()
    replayed = repeated(database_url)
    assert differing(database_url, replayed["generation"]) == 0


PLAIN = """\
schema: guerdon/1
programme: p
timezone: UTC
currency: USD
refunds: {window: 1d}
rules:
- {id: r, on: purchase, give: [{points: 5}]}
"""


def test_a_refund_is_known_also_where_its_orders_page_turns_at_once(database_url: str) -> None:
    """All come in one batch, so late that only what is noted of an order says that it is known; its page turns then."""
    activate(database_url, PLAIN)

    def event(number: int, kind: str, at_ms: int, **fields: object) -> Event:
        head = {"type": kind, "event_id": f"e{number}", "member_id": "ann", "occurred_at": iso_from_instant(at_ms)}
        return head | fields

    def order(number: int, at_ms: int) -> Event:
        return event(number, "purchase", at_ms, order_id=f"o{number}", currency="USD", amount=900)

    late = [order(number, START_MS + number) for number in range(1, PAGE_LOTS + 1)]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        take(worker, [order(0, START_MS + 60 * DAY_MS)])
        take(worker, [*late, event(20, "refund", START_MS + 1_000, order_id="o1", refund_id="a")])
        take(worker, [event(21, "refund", START_MS + 2_000, order_id="o1", refund_id="b")])
    with transaction(database_url) as cursor:
        cursor.execute("SELECT reason FROM reward.reward_event WHERE event_id = 'e21'")
        assert cursor.fetchall() == [("nothing_left",)]
    replayed = repeated(database_url)
    assert differing(database_url, replayed["generation"]) == 0
