"""Members keep their history and get, once, what another generation would have given them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.database import transaction
from operations.adjustments import promote_as_adjustments
from operations.difference import compared
from operations.verify import verify
from projections.runner import finish
from tests.replays import differing, repeated
from tests.test_promote import judged_richly

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres


def changes(database_url: str, number: int) -> list[dict[str, Any]]:
    with compared(database_url, number) as difference:
        return [row for row in difference.members() if row["change"]]


def sound(database_url: str, number: int | None = None) -> None:
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url, number) if finding["problem"]] == []


def written_adjustments(database_url: str) -> list[tuple[Any, ...]]:
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT shard, seq, member_id, event_id FROM guerdon.source_event WHERE kind = 'adjustment'
            ORDER BY shard, seq
            """
        )
        return cursor.fetchall()


def test_members_have_what_the_other_generation_gives_them(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    assert len(changes(database_url, number)) == 20
    told = promote_as_adjustments(database_url, number)
    assert changes(database_url, number) == []
    assert len(written_adjustments(database_url)) == 20
    sound(database_url)
    again = promote_as_adjustments(database_url, number)
    assert again == told | {"already": True}
    assert len(written_adjustments(database_url)) == 20
    assert differing(database_url, repeated(database_url)["generation"]) == 0
