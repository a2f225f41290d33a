"""The worker catches up over anything a topic may hold, stays within its memory, and stops only what it must."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from schemas.codec import CommittedSchemas
from schemas.events import Purchase, Share, Signup
from tests.chaos.load import START_MS, Load, activate, make_topics, publish
from tests.chaos.workers import catch_up
from tests.oracle import assert_whole
from consumers.worker import Worker

if TYPE_CHECKING:
    from operations.settings import Settings

pytestmark = pytest.mark.kafka


def three_topics(events: int) -> Load:
    """Return a load that lies in three topics, in step."""
    load = Load(members=5)
    for number in range(events):
        fields = {"event_id": f"x{number}", "member_id": f"m{number % 5}", "occurred_at": START_MS + number * 1000}
        if number % 3 == 0:
            load.add(Signup(**fields), deliveries=1)
        elif number % 3 == 1:
            load.add(Share(**fields, object="shoe", channel="link"), deliveries=1)
        else:
            load.add(Purchase(**fields, order_id=f"o{number}", currency="USD", amount=100), deliveries=1)
    return load


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_backlog_far_larger_than_its_memory_is_taken_in_order_within_that_memory(
    settings: Settings, partitions: int
) -> None:
    make_topics(settings, partitions)
    activate(settings.database_url)
    load = three_topics(12_000)
    publish(settings, load.messages)
    tiny = settings.model_copy(update={"max_batch": 100})
    worker = Worker(tiny, CommittedSchemas(), until_caught_up=True)
    most = 0
    take = worker._lanes.take  # noqa: SLF001  how much waits is what this test is about
    def watched(*arguments):
        nonlocal most
        most = max(most, len(worker._lanes))
        return take(*arguments)
    worker._lanes.take = watched
    worker.run()
    print("MOST", most)
    assert_whole(settings, load.messages)
