"""A replay repeats what spans members: attributions, forwarded events, voids and contests, byte for byte."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from engine.batch import Batch, ClockMove
from engine.live import LiveTransaction
from engine.store.database import transaction
from operations.replay import Request, replay
from schemas.errors import AnswerIsNo
from schemas.events import Decision
from tests.chaos.batches import SCHEMAS
from tests.chaos.load import START_MS, activate
from tests.replays import repeated, rows
from tests.test_referrals import programme
from tests.test_referrals_live import END_MS, MINUTE_MS, assert_sound, crossing, taken_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

PROGRAMME = programme("{claim_window: 90d, block: [self, cycle]}") + (
    "- {id: first, on: contest, when: {contest.rank: {lte: 3}}, give: [{points: 77}]}\n"
    "contests: [{id: recruiters, metric: referrals, period: day, winners: 5}]\n"
)


def lived(database_url: str) -> None:
    """Take in a history of referrals, with two voids, and let the days of a contest end."""
    activate(database_url, PROGRAMME)
    events = sorted(crossing(200, 5), key=lambda event: event.occurred_at)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for first in range(0, len(events), 20):
            part = events[first : first + 20]
            taken_in(worker, *part)
            reached_ms = part[-1].occurred_at
            while worker.commit(Batch(clock=ClockMove(START_MS, everywhere=True, reached_ms=reached_ms))).ticks:
                pass
        for number in (70, 90):
            void = Decision(
                event_id=f"v{number}", source="operator", member_id=f"m{number}",
                occurred_at=START_MS + 900 * MINUTE_MS, action="referral_void", reason="one person",
            )  # fmt: skip
            taken_in(worker, void)
        while worker.commit(Batch(clock=ClockMove(END_MS, everywhere=True, hourly=False, reached_ms=END_MS))).ticks:
            pass
    assert_sound(database_url)


def test_a_repetition_of_referrals_and_contests_has_the_same_bytes(database_url: str, tmp_path: Path) -> None:
    lived(database_url)
    with transaction(database_url) as cursor:
        cursor.execute("SELECT DISTINCT type::text FROM guerdon.reward_event")
        kinds = {kind for (kind,) in cursor.fetchall()}
    assert kinds >= {
        "referral.attributed", "referral.qualified", "referral.voided", "points.reversed", "contest.won",
    }  # fmt: skip
    result = repeated(database_url)
    assert result["shards_that_differ"] == 0
    assert rows(database_url, result["generation"]) == rows(database_url, 1)
    other = tmp_path / "other.yaml"
    other.write_text(PROGRAMME.replace("points: 77", "points: 78"), encoding="utf-8")
    with pytest.raises(AnswerIsNo, match="contests are ranked over all members"):
        replay(database_url, Request(other))
