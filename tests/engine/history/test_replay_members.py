"""A replay repeats what spans members: attributions, forwarded events, voids and contests, byte for byte."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import engine.history.replay as replay_module
from engine.history.replay import Replay, Stretch
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.database import as_owner, transaction
from engine.store.generations import shadows
from engine.store.logs.whole_log import WholeLog
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.generations import promote
from operations.replay.run import Request, connect_to_replay, replay
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo
from schemas.events import Decision, Erasure
from tests.engine.ledger.test_referrals import programme
from tests.engine.live.test_referrals import END_MS, MINUTE_MS, assert_sound, crossing, taken_in
from tests.strategies.replays import repeated, rows
from tests.system.batches import SCHEMAS, admitted, commit
from tests.system.load import START_MS, activate

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


def test_a_repetition_of_referrals_and_contests_has_the_same_bytes(database_url: str) -> None:
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


def test_a_file_ranks_contests_anew_and_the_same_file_finds_the_same_winners(database_url: str, tmp_path: Path) -> None:
    lived(database_url)
    file = tmp_path / "same.yaml"
    file.write_text(PROGRAMME, encoding="utf-8")
    again = replay(database_url, Request(file))
    assert rows(database_url, again["generation"]) == rows(database_url, 1)
    assert again["shards_that_differ"] == 0
    facts = won_in(database_url, 1)
    assert facts
    assert won_in(database_url, again["generation"]) == facts
    other = PROGRAMME.replace("winners: 5", "winners: 2").replace("points: 77", "points: 78")
    file.write_text(other, encoding="utf-8")
    fewer = replay(database_url, Request(file))["generation"]
    best = [(place, won) for place, won in facts if won["rank"] <= 2]
    assert won_in(database_url, fewer) == best
    with backtested(database_url, Question(file)) as tested, compared(database_url, fewer) as difference:
        assert tested.document()["units"] == difference.document()["units"]
    promote(database_url, fewer)
    assert_sound(database_url)
    assert repeated(database_url)["shards_that_differ"] == 0


def test_a_winner_who_was_erased_since_keeps_prize_and_rank_under_any_file(database_url: str, tmp_path: Path) -> None:
    lived(database_url)
    facts = won_in(database_url, 1)
    erased = facts[1][1]["member_id"]
    commit(database_url, Batch([admitted(Erasure(event_id="gone", member_id=erased, occurred_at=END_MS + 1))]))
    others = (
        PROGRAMME.replace("points: 77", "points: 78"),
        PROGRAMME.partition("contests:")[0].partition("- {id: first")[0],
    )
    for body, expected in zip(others, (facts, [won for won in facts if won[1]["member_id"] == erased]), strict=True):
        file = tmp_path / "other.yaml"
        file.write_text(body, encoding="utf-8")
        number = replay(database_url, Request(file))["generation"]
        assert won_in(database_url, number) == expected
        assert [row[2:-1] for row in rows(database_url, number) if row[4] == erased] == [
            row[2:-1] for row in rows(database_url, 1) if row[4] == erased
        ]
        assert [finding for finding in verify(database_url, number) if finding["problem"]] == []
        with backtested(database_url, Question(file)) as tested, compared(database_url, number) as difference:
            assert tested.document()["units"] == difference.document()["units"]


def won_in(database_url: str, generation: int) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT shard, seq, fact FROM guerdon.generation_fact WHERE generation = %s AND kind = 'contest'
            ORDER BY fact->>'contest', fact->>'period', (fact->>'rank')::integer
            """,
            (generation,),
        )
        return [((shard, seq), fact) for shard, seq, fact in cursor.fetchall()]


def test_a_replay_with_contests_that_is_killed_goes_on_to_the_same_winners(database_url: str, tmp_path: Path) -> None:
    """Chunks of seven events: a closing is never torn."""
    lived(database_url)
    file = tmp_path / "same.yaml"
    file.write_text(PROGRAMME, encoding="utf-8")
    number = replay(database_url, Request(file))["generation"]
    with transaction(database_url) as cursor:
        first, upto = shadows.get(cursor, number), shadows.positions(cursor, 1)
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        generation = shadows.get(cursor, shadows.create(cursor, 1, first.file_version))
    while True:
        with closing(connect_to_replay(database_url)) as connection:
            if not Replay(connection, generation, list(upto)).advance(Stretch(upto, 7)):
                break
    assert rows(database_url, generation.number) == rows(database_url, 1)
    assert won_in(database_url, generation.number) == won_in(database_url, 1)


def test_a_closing_of_which_a_part_is_not_to_be_had_yet_is_left_for_later(database_url: str) -> None:
    """Its rows may bear different times, where a clock was set back; the place that a pass ends at may lie between."""
    lived(database_url)
    with transaction(database_url) as cursor:
        upto = shadows.positions(cursor, 1)
        merged = list(WholeLog(cursor).merged(upto))
    closing_rows = [place for place, row in enumerate(merged) if row.recorded.kind == "contest"]
    first = closing_rows[0]
    assert replay_module._with_whole_closings(iter(merged[: first + 5]), 10_000) == merged[:first]  # noqa: SLF001  it reads no log
    assert replay_module._with_whole_closings(iter(merged), first + 5) == merged[: first + 64]  # noqa: SLF001  as above


def test_a_contest_whose_ends_the_log_does_not_know_is_refused(database_url: str, tmp_path: Path) -> None:
    lived(database_url)
    file = tmp_path / "other.yaml"
    for other in (PROGRAMME.replace("period: day", "period: week"), PROGRAMME.replace("id: recruiters", "id: others")):
        file.write_text(other, encoding="utf-8")
        with pytest.raises(AnswerIsNo, match="the log does not say when they ended"):
            replay(database_url, Request(file))
    file.write_text(PROGRAMME.partition("contests:")[0].replace("- {id: first", "# - {id: first"), encoding="utf-8")
    none = replay(database_url, Request(file))["generation"]
    assert won_in(database_url, none) == []
