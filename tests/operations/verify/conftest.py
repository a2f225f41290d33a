"""Give tests of verify a small database that is whole, a copy each."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from engine.intake.batch import OffsetMove
from engine.live.batch import Batch
from engine.store.database import transaction
from engine.store.kafka import offsets
from projections.runner import finish
from tests.conftest import _database
from tests.operations.verify.test_verify import PLACE
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Iterator


def take(database_url: str, numbers: range, first_offset: int) -> None:
    """Let purchases be consumed from PLACE, one an offset."""
    events = [admitted(purchase(number)) for number in numbers]
    for offset, event in enumerate(events, first_offset):
        event.topic, event.partition, event.offset = *PLACE, offset
    move = OffsetMove(first_offset, first_offset + len(events), START_MS)
    commit(database_url, Batch(events, moves={PLACE: move}))
    finish(database_url, threading.Event())


@pytest.fixture(scope="module")
def prepared(postgres_admin_url: str, template_database: str) -> Iterator[str]:
    """Return the name of a database that is whole, for each test to have a copy of.

    In shard SHARD stand an activation and ten purchases, which gave a reward each.
    """
    with _database(postgres_admin_url, template_database) as url:
        activate(url)
        with transaction(url) as cursor:
            offsets.add_partitions(cursor, {PLACE: 0})
        take(url, range(10), 0)
        yield url.rpartition("/")[2]


@pytest.fixture
def whole(postgres_admin_url: str, prepared: str) -> Iterator[str]:
    with _database(postgres_admin_url, prepared) as url:
        yield url
