"""A history of real households who refer one another ends alike, however many workers work it off."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.engine.live.test_clock import work
from tests.models.referred_households import PROGRAMME, households, in_memory, in_views
from tests.system.load import activate, make_topics, publish

if TYPE_CHECKING:
    from operations.settings import Settings

ORDERS_MAX = 8
ALIGNMENT_S = 86_400


@pytest.mark.kafka
@pytest.mark.parametrize("workers", [1, 3])
def test_a_year_of_referred_households_ends_as_in_memory_whoever_works_it_off(workers: int, settings: Settings) -> None:
    told = households(ORDERS_MAX)
    expected = in_memory(told)
    assert (told.before, told.after, told.too_late) > (47, 3, 3)
    aligned = settings.model_copy(update={"max_batch": 200, "alignment_s": ALIGNMENT_S})
    make_topics(aligned, 4)
    activate(aligned.database_url, PROGRAMME)
    publish(aligned, told.messages())
    work(aligned, told.end_ms, workers)
    assert in_views(aligned.database_url) == expected
    statuses = Counter((status, reason) for _, _, status, reason in expected["referrals"])
    assert statuses["rejected", "unknown_code"] == told.too_late
