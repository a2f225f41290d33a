"""A worker killed while referrals are decided and forwarded decides and forwards each of them once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from engine.store.cursor import one
from engine.store.database import transaction
from schemas.events import Signup
from tests.engine.live.test_clock import messages
from tests.engine.live.test_referrals import END_MS, PROGRAMME, assert_sound, balances, crossing, in_memory, line_of
from tests.system.load import activate, make_topics, publish
from tests.system.poison import STEPS
from tests.system.workers import catch_up, other_group

if TYPE_CHECKING:
    from operations.settings import Settings
    from tests.system.workers import Workers

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

POINTS = [*(f"after {name}" for name in STEPS), "before commit", "after commit"]


@pytest.mark.parametrize("point", POINTS)
def test_referrals_are_decided_and_forwarded_once_where_a_worker_is_killed(
    point: str, settings: Settings, workers: Workers
) -> None:
    events = sorted(crossing(120, 3), key=lambda event: event.occurred_at)
    crashing = settings.model_copy(update={"max_batch": 40})
    make_topics(crashing, 1)
    activate(crashing.database_url, PROGRAMME)
    publish(crashing, messages([line_of(event) for event in events]))
    pid = workers.start(crashing, point, 3, until_caught_up=True)
    assert workers.wait(pid) == -signal.SIGKILL, f"the worker never came to {point!r}: {workers.said()}"
    catch_up(other_group(crashing, "next"))
    assert_sound(crashing.database_url)
    expected = in_memory(PROGRAMME, events, END_MS)
    assert balances(crashing.database_url) == {
        (row["member_id"], row["unit"]): (row["granted"], row["reversed"], row["available"])
        for row in expected["balances"]
    }
    referred = [event for event in events if isinstance(event, Signup) and event.referrer_id is not None]
    roots = [event for event in events if isinstance(event, Signup) and event.referrer_id is None]
    with transaction(crashing.database_url) as cursor:
        counted = one(
            cursor,
            """
            SELECT count(*) FILTER (WHERE kind = 'attribution'), count(*) FILTER (WHERE kind = 'forwarded')
            FROM guerdon.source_event
            """,
        )
    assert counted == (len(referred), len(events) - len(roots))
