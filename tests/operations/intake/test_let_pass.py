"""A record that an operator lets pass is known again at a restart, and no other record passes in its name."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from consumers.source.positions import Positions
from engine.store.database import transaction
from engine.store.kafka import offsets as positions
from operations.intake import offsets
from tests.engine.live.test_safety_net_kafka import counters, send
from tests.system.load import Load, activate, make_topics
from tests.system.workers import catch_up

if TYPE_CHECKING:
    from operations.settings import Settings

pytestmark = pytest.mark.kafka


def test_a_worker_that_starts_behind_a_record_that_was_let_pass_does_not_take_it_for_a_lost_tail(
    settings: Settings,
) -> None:
    topic = f"{settings.topic_prefix}purchases"
    make_topics(settings, 1)
    activate(settings.database_url)
    load = Load(members=5)
    send(settings, load, range(2))
    catch_up(settings)
    send(settings, load, range(2, 3))
    offsets.let_pass(settings, topic, 0, 2, "the last of its batch")
    catch_up(settings)
    assert counters(settings) == (2, 0, 1)
    send(settings, load, range(3, 5))
    assert catch_up(settings).accepted == 2, "the partition is read on"
    assert [row["stopped"] for row in offsets.listed(settings) if row["stopped"]] == []


def test_what_was_let_pass_before_a_reset_is_let_pass_no_more(database_url: str) -> None:
    place = ("purchases", 0)
    with transaction(database_url) as cursor:
        positions.add_partitions(cursor, {place: 0})
        positions.let_pass(cursor, place, 5, "it cannot be read")
    with closing(Positions(database_url)) as asked:
        asked.of([place])
        assert asked.passing[place] == {5}
        with transaction(database_url) as cursor:
            positions.begin_again(cursor, place, 0, "the topic was made anew")
        asked.of([place])
        assert asked.passing[place] == frozenset()
