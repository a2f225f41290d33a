"""A projection is the fold of its log, built step by step or at once, and a rebuild disturbs no reader."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg2
import pytest

from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import transaction
from operations.setup import projections
from projections import balances as balance_projection
from projections import folders, runner
from projections.gaps import ProjectionPaused
from projections.rebuild import rebuild
from projections.runner import advance, connect_to_project, finish, live_builds
from schemas.errors import InputError
from tests.models.oracle import assert_judged
from tests.system.batches import admitted, commit, purchase
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres
NAME = "member_balance"
MEMBERS = 7
Balances = list[tuple[str, int]]


def log(database_url: str, first: int, count: int) -> None:
    """Log purchases of 60.00 or more: two reward events each."""
    events = [admitted(purchase(at, f"m{at % MEMBERS}", amount=6_000 + at)) for at in range(first, first + count)]
    commit(database_url, Batch(events))


def balances(database_url: str) -> Balances:
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, granted FROM reward.member_balance ORDER BY member_id")
        return [(member_id, int(granted)) for member_id, granted in cursor.fetchall()]


@pytest.fixture
def logged(database_url: str) -> str:
    activate(database_url)
    log(database_url, 0, 50)
    return database_url


def test_incremental_equals_rebuilt_equals_the_oracle(logged: str) -> None:
    finish(logged, threading.Event())
    log(logged, 50, 50)
    finish(logged, threading.Event())
    incremental = balances(logged)
    assert len(incremental) == MEMBERS
    with transaction(logged) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.reward_event") == (rebuild(logged, NAME),)
    assert balances(logged) == incremental
    assert projections.difference(logged, NAME) is None
    with transaction(logged) as cursor:
        assert_judged(cursor)


@pytest.mark.parametrize("positions_max", [1, 2, 3])
def test_a_range_that_is_cut_ends_with_a_whole_source_event(
    logged: str, positions_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POSITIONS_MAX", positions_max)
    with closing(connect_to_project(logged)) as connection, connection.cursor() as cursor:
        builds = live_builds(cursor)

        while advance(connection, builds):
            cursor.execute(
                """
                SELECT count(*) FROM guerdon.projection_cursor c
                JOIN guerdon.reward_event a ON a.shard = c.shard AND a.pos = c.pos
                JOIN guerdon.reward_event b ON b.shard = c.shard AND b.pos = c.pos + 1 AND b.seq = a.seq
                WHERE c.build = ANY(%s)
                """,
                (builds,),
            )
            assert cursor.fetchone() == (0,), "a reader would see half of an event"
    assert projections.difference(logged, NAME) is None
    assert {row["lag"] for row in projections.listed(logged) if row["projection"] in runner.PROJECTIONS} == {0}


def test_two_projectors_at_once_fold_each_position_once(logged: str) -> None:
    threads = [threading.Thread(target=finish, args=(logged, threading.Event())) for _ in range(3)]
    for thread in threads:
        thread.start()
    log(logged, 50, 100)
    for thread in threads:
        thread.join(30)
    finish(logged, threading.Event())
    assert projections.difference(logged, NAME) is None


def test_readers_see_no_balance_go_back_or_vanish_while_it_is_rebuilt(
    logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POSITIONS_MAX", 5)
    finish(logged, threading.Event())
    seen: list[Balances] = [balances(logged)]

    def progress(_done: int, _total: int) -> None:
        seen.append(balances(logged))
        if len(seen) < 6:
            log(logged, 50 * len(seen), 50)  # the log goes on, and so does the build that is read
            finish(logged, threading.Event())
            seen.append(balances(logged))

    rebuild(logged, NAME, progress)
    seen.append(balances(logged))
    for before, after in pairwise(seen):
        assert len(before) == len(after) == MEMBERS
        assert all(earlier[1] <= later[1] for earlier, later in zip(before, after, strict=True))
    assert projections.difference(logged, NAME) is None


def test_a_rebuild_that_was_interrupted_is_cleared_away_by_the_next(logged: str) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(logged, NAME, interrupt)
    finish(logged, threading.Event())
    assert len(balances(logged)) == MEMBERS
    rebuild(logged, NAME)
    with transaction(logged) as cursor:
        cursor.execute("SELECT status FROM guerdon.projection_build WHERE projection = %s", (NAME,))
        assert cursor.fetchall() == [("live",)]
        cursor.execute("SELECT count(DISTINCT build) FROM guerdon.member_balance")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize("ranges_read_through", [0, 4])
def test_a_rebuild_by_any_number_of_processes_is_the_fold_of_the_log(
    cores: int, ranges_read_through: int, logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "READ_THROUGH", ranges_read_through)
    monkeypatch.setattr(runner, "POSITIONS_MAX", 7)  # some shards in one range, others in more
    progress: list[tuple[int, int]] = []
    for name in runner.PROJECTIONS:
        progress.clear()
        positions = rebuild(logged, name, lambda done, total: progress.append((done, total)), cores=cores)
        assert progress[-1] == (positions, positions)
        assert [done for done, _ in progress] == sorted(done for done, _ in progress)
        assert projections.difference(logged, name) is None


def test_what_is_told_of_a_comparison_ends_with_all_positions(logged: str) -> None:
    finish(logged, threading.Event())
    progress: list[tuple[int, int]] = []
    assert projections.difference(logged, NAME, lambda done, total: progress.append((done, total))) is None
    with transaction(logged) as cursor:
        (positions,) = one(cursor, "SELECT count(*) FROM guerdon.reward_event")
    assert progress[-1] == (positions, positions)
    assert len(progress) == 64 // projections.SHARDS_AT_ONCE


def test_a_rebuild_whose_folding_fails_leaves_the_old_rows_and_ends_every_connection(
    logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(logged, threading.Event())
    before = balances(logged)

    def fails(*_: object, **__: object) -> None:
        raise LookupError("made by this test")

    with monkeypatch.context() as defect:
        defect.setattr(balance_projection, "fold", fails)
        with pytest.raises(ProjectionPaused, match="made by this test"):
            rebuild(logged, NAME)
    assert balances(logged) == before
    with transaction(logged) as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'guerdon rebuild'
            """
        )
        assert cursor.fetchone() == (0,)
    rebuild(logged, NAME)
    assert projections.difference(logged, NAME) is None


def test_a_projection_that_is_not_the_fold_of_its_log_is_told_and_mended(logged: str) -> None:
    finish(logged, threading.Event())
    with transaction(logged) as cursor:
        cursor.execute("DELETE FROM guerdon.member_balance WHERE member_id = 'm3'")
    sentence = projections.difference(logged, NAME)
    assert sentence is not None
    assert sentence.startswith("member m3, points: the projection says nothing and the log says issued -")
    rebuild(logged, NAME)
    assert projections.difference(logged, NAME) is None


def test_an_unknown_projection_is_named_with_those_that_there_are(logged: str) -> None:
    for act in (rebuild, projections.difference):
        with pytest.raises(InputError, match='there is no projection "balance"'):
            act(logged, "balance")


@pytest.fixture
def analyst(logged: str) -> Iterator[psycopg2.extensions.cursor]:
    connection = psycopg2.connect(logged)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET ROLE guerdon_analyst")
        yield cursor
        connection.rollback()
    connection.close()


def test_an_analyst_reads_the_views_and_nothing_else(analyst: psycopg2.extensions.cursor) -> None:
    for view in ("member_balance", "member_reward", "tier_history", "reward_event", "freshness"):
        analyst.execute(f"SELECT * FROM reward.{view}")
        assert analyst.description is not None
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        analyst.execute("SELECT * FROM guerdon.source_event")


@pytest.mark.parametrize("view", ["member_balance", "member_reward", "tier_history"])
def test_a_member_is_found_in_a_view_by_its_index(view: str, analyst: psycopg2.extensions.cursor) -> None:
    analyst.execute("SET LOCAL enable_seqscan = off")  # the test's tables are so small that reading them all is right
    analyst.execute(f"EXPLAIN SELECT * FROM reward.{view} WHERE member_id = 'm3'")
    plan = "\n".join(line for (line,) in analyst.fetchall())
    assert "Index Cond: ((build = (InitPlan 1).col1) AND (member_id = 'm3'::text))" in plan
