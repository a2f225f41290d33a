"""A row of the sums by days that is not as the log says is named, whichever it is."""

from __future__ import annotations

import threading

import pytest

from engine.store.database import as_owner
from operations.setup import projections
from operations.verify.checks import verify
from projections.rebuild import rebuild
from projections.runner import finish
from tests.operations.report import books
from tests.system.load import activate

pytestmark = pytest.mark.postgres

WRONG = {
    "UPDATE guerdon.reward_day SET amount = amount + 1 WHERE type = 'points.granted'": "rewards of",
    "UPDATE guerdon.participation_day SET recorded_day = recorded_day + 1": "taking part on",
    "UPDATE guerdon.reward_count SET number = number + 1 WHERE measure = 2": "members who redeemed on",
    "UPDATE guerdon.reward_count SET number = number + 1 WHERE measure = 3": "orders with a grant on",
    "UPDATE guerdon.reward_count SET number = number + 1 WHERE measure = 4": "amounts that lapse on",
    "UPDATE guerdon.reward_lot SET issued = issued + 1": "lot ",
    "UPDATE guerdon.lot_day SET points = points + 1 WHERE way = 2": "captured on",
    "UPDATE guerdon.lot_day SET points = points + 1 WHERE way = 11": "redeemed_for_good on",
}


@pytest.fixture
def url(database_url: str) -> str:
    activate(database_url, books.PROGRAMME)
    books.commit(database_url, [*books.TO_JUNE, *books.FROM_JULY], "2024-07-20T10:00")
    finish(database_url, threading.Event())
    return database_url


def test_each_wrong_row_is_named_and_a_rebuild_mends_it(url: str) -> None:
    for statement, words in WRONG.items():
        assert projections.difference(url, "reward_day") is None
        with as_owner(url) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            assert cursor.rowcount > 0
            connection.commit()
        sentence = projections.difference(url, "reward_day")
        assert sentence is not None
        assert words in sentence
        assert any(words in (finding["problem"] or "") for finding in verify(url))
        rebuild(url, "reward_day")
    assert projections.difference(url, "reward_day") is None
