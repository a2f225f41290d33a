"""A replay under the same programmes gives the same bytes, whatever is in the history and wherever it was killed."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from engine.replay import Replay, Stretch
from engine.store import shadows
from engine.store.database import transaction
from operations.replay import Request, connect_to_replay, replay
from operations.verify import verify
from schemas.errors import AnswerIsNo, InputError
from tests.replays import OTHER, WITH_EVERYTHING, differing, events, everything, is_held, repeated, rows, work
from tests.chaos.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from engine.store.shadows import Generation

pytestmark = pytest.mark.postgres

HOUR_MS = 3_600_000
POINTS = (
    "before fold", "after fold", "before append rewards", "before save states", "before save facts",
    "before save heads", "before commit", "after commit",
)  # fmt: skip


def kinds(database_url: str) -> set[str]:
    """Return what kinds of things the live generation's history has."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT type::text FROM guerdon.reward_event WHERE generation = 1
            UNION SELECT reason FROM guerdon.reward_event WHERE generation = 1 AND type = 'reward.refused'
            UNION SELECT kind::text FROM guerdon.source_event
            UNION SELECT kind FROM guerdon.generation_fact
            """
        )
        return {kind for (kind,) in cursor.fetchall()}


def begun(database_url: str, file_version: int | None = None) -> Generation:
    """Make an empty shadow of the live generation."""
    with transaction(database_url, role=None) as cursor:
        return shadows.get(cursor, shadows.create(cursor, 1, file_version, (None, None)))


def test_a_replay_without_a_file_gives_the_same_bytes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch)
    result = repeated(database_url)
    mine, live = rows(database_url, result["generation"]), rows(database_url, 1)
    assert next((pair for pair in zip(mine, live, strict=False) if pair[0] != pair[1]), None) is None
    assert len(mine) == len(live)
    assert differing(database_url, result["generation"]) == result["shards_that_differ"] == 0
    assert [finding for finding in verify(database_url, result["generation"]) if finding["problem"]] == []
    assert kinds(database_url) >= {
        "points.granted", "points.released", "points.expired", "points.reversed", "points.captured", "points.restored",
        "tier.changed", "benefit.granted", "coupon.issued", "gift.awarded", "out_of_stock", "limit_max", "limit_times",
        "budget", "member_held", "release", "tick", "activation", "refund", "redemption",
    }  # fmt: skip


def test_a_member_who_is_held_is_held_in_a_repetition_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 600)
    number = repeated(database_url)["generation"]
    with transaction(database_url) as cursor:
        assert is_held(cursor, "member-4")
        cursor.execute(
            "SELECT generation, array_agg((shard, seq, n, kind, fact)::text ORDER BY shard, seq, n) "
            "FROM guerdon.generation_fact GROUP BY 1 ORDER BY 1"
        )
        (_, live), (_, mine) = cursor.fetchall()
        assert mine == live
        cursor.execute(f"SELECT count(*) FROM guerdon.member_state_g{number} WHERE due_at IS NULL")
        assert cursor.fetchone() != (0,)


def test_asked_again_a_replay_goes_on_from_where_it_was(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 300)
    first = repeated(database_url)
    work(database_url, events(420)[300:])
    again = repeated(database_url)
    assert again["generation"] == first["generation"]
    assert 0 < again["events"] < first["events"]
    assert differing(database_url, again["generation"]) == 0
    assert repeated(database_url)["events"] == 0


def kill_in(database_url: str, generation: Generation, point: str, hit: int, chunk: int) -> int:
    """Fold in a process that kills itself the `hit`-th time that it comes to `point`; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    numbers = count(1)

    def observe(here: str) -> None:
        if here == point and next(numbers) == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with transaction(database_url) as cursor:
            upto = shadows.positions(cursor, 1)
        together = generation.file_version is not None
        with closing(connect_to_replay(database_url)) as connection:
            for shards in [list(upto)] if together else [[shard] for shard in upto]:
                folding = Replay(connection, generation, shards, observe)
                while folding.advance(Stretch(upto, chunk)):
                    pass
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.chaos
def test_killed_at_any_step_a_replay_goes_on_and_gives_the_same_bytes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(database_url, monkeypatch, 450)
    generation = begun(database_url)
    for number, point in enumerate(POINTS):
        assert kill_in(database_url, generation, point, 3 + number, 11) == -signal.SIGKILL
    repeated(database_url, into=generation.number)
    assert rows(database_url, generation.number) == rows(database_url, 1)
    assert differing(database_url, generation.number) == 0
