"""A worker whose table went back under it reads again what the table lacks, with nobody's help and no new message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumers.source import track
from engine.store.database import as_owner
from operations.intake import offsets
from tests.system.load import Load, activate, make_topics, publish
from tests.system.workers import eventually, running

if TYPE_CHECKING:
    from operations.settings import Settings

pytestmark = pytest.mark.kafka


LACKS_COMMITS = """
UPDATE guerdon.consumer_offset
SET next_offset = first_offset, accepted = 0, duplicate = 0, quarantined = 0, passed = 0,
    last_offset = NULL, leader_epoch = NULL, last_digest = NULL
WHERE next_offset > first_offset
"""
"""As a standby has it that lacks the last commits; what it would lack of the logs is there, and so repeated."""

LACKS_PARTITIONS = "DELETE FROM guerdon.consumer_offset WHERE next_offset > first_offset"
"""As a backup has it that was taken before the partitions were first read."""


@pytest.mark.parametrize("lacking", [LACKS_COMMITS, LACKS_PARTITIONS])
def test_what_a_failover_lost_is_read_again_though_nothing_more_is_sent(
    lacking: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "COMPARE_S", 0.2)
    make_topics(settings, 2)
    activate(settings.database_url)
    load = Load(members=5, bad=False).fill(60)
    publish(settings, load.messages)

    def taken() -> int:
        rows = offsets.listed(settings)
        return sum(row["accepted"] + row["duplicate"] for row in rows) if not any(row["lag"] for row in rows) else -1

    with running(settings):
        eventually(lambda: taken() == len(load.messages), "all of it")
        with as_owner(settings.database_url) as connection, connection, connection.cursor() as cursor:
            cursor.execute(lacking)
            assert cursor.rowcount > 1
        eventually(lambda: taken() == len(load.messages), "all of it, once more")
    assert sum(row["accepted"] for row in offsets.listed(settings)) == 0
