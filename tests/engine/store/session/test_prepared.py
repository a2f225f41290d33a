"""Hold that a session which keeps plans answers as one that keeps none, and asks as it is where it cannot plan."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from engine.store.database import connect
from engine.store.session.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    """Return a pool of one session."""
    with closing(Pool(partial(connect, database_url), sessions_max=1)) as pool:
        yield pool


def asked(pool: Pool, query: str, variables: Any = None) -> list[tuple[Any, ...]]:
    with pool.snapshot() as cursor:
        cursor.execute(query, variables)
        return cursor.fetchall()


def prepared(cursor: Cursor) -> list[str]:
    cursor.execute("SELECT statement FROM pg_prepared_statements ORDER BY name")
    return [statement for (statement,) in cursor.fetchall()]


@pytest.mark.parametrize(
    ("query", "variables", "rows"),
    [
        (
            "/* keep the plan */ SELECT shard FROM guerdon.shard_head WHERE shard = %s OR shard = %s ORDER BY 1",
            (3, 5),
            [(3,), (5,)],
        ),
        (
            "/* keep the plan */ SELECT shard FROM guerdon.shard_head WHERE shard > %(a)s - 1 AND shard < %(a)s + 1",
            {"a": 7},
            [(7,)],
        ),
        (
            "/* keep the plan */ SELECT shard FROM guerdon.shard_head WHERE shard = ANY(%s) AND shard %% 2 = 0",
            ([1, 2],),
            [(2,)],
        ),
        (
            "/* keep the plan */ SELECT count(*) FROM guerdon.shard_head WHERE shard < coalesce(%s, shard + 1)",
            (None,),
            [(64,)],
        ),
    ],
)
def test_a_question_is_planned_after_it_was_asked_once(
    pool: Pool, query: str, variables: Any, rows: list[tuple[Any, ...]]
) -> None:
    assert [asked(pool, query, variables) for _ in range(3)] == [rows] * 3
    with pool.snapshot() as cursor:
        assert len(prepared(cursor)) == 1


def test_a_question_with_a_parameter_of_no_type_is_asked_as_it_is(pool: Pool) -> None:
    question = "/* keep the plan */ SELECT 1 WHERE %s IS NULL"
    assert [asked(pool, question, (None,)) for _ in range(3)] == [[(1,)]] * 3
    with pool.snapshot() as cursor:
        assert prepared(cursor) == []


def test_a_question_that_does_not_say_so_is_planned_each_time(pool: Pool) -> None:
    for _ in range(2):
        assert asked(pool, "SELECT shard FROM guerdon.shard_head WHERE shard = %s", (1,)) == [(1,)]
        assert asked(pool, "/* keep the plan */ SELECT 1") == [(1,)]
    with pool.snapshot() as cursor:
        assert prepared(cursor) == []


def test_plans_end_with_their_session(pool: Pool) -> None:
    query = "/* keep the plan */ SELECT shard FROM guerdon.shard_head WHERE shard = %s"
    assert asked(pool, query, (1,)) == [(1,)]
    with pytest.raises(psycopg2.errors.DivisionByZero):
        asked(pool, "SELECT 1 / %s", (0,))
    assert asked(pool, query, (3,)) == [(3,)]
