"""Let the fold of a projection fail at chosen rows, and check what is missing then."""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING, NamedTuple

from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import transaction
from operations.setup import projections
from operations.verify.checks import verify
from projections.runner import EVERY, PROJECTIONS
from tests.system.batches import admitted, commit, purchase

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from engine.store.cursor import Cursor

MEMBERS = 7
EVENTS = 40
LETTERS = "".join(random.Random(1).choices(string.ascii_letters, k=9_000))  # noqa: S311  a test's own
"""A text that no index takes, as it cannot be compressed."""


class Row(NamedTuple):
    """Name a row of the reward log."""

    shard: int
    pos: int
    seq: int
    member_id: str


def log(database_url: str, first: int, count: int) -> None:
    """Log purchases; each gives several reward events: points, status, coupons, tiers."""
    events = [admitted(purchase(at, f"m{at % MEMBERS}", amount=6_000 + at)) for at in range(first, first + count)]
    commit(database_url, Batch(events))


def row_of(database_url: str, member_id: str, number: int) -> Row:
    """Return the first row of a member's source event `number`, from 0, among those with rows."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT shard, min(pos), seq, member_id FROM guerdon.reward_event WHERE member_id = %s
            GROUP BY shard, seq, member_id ORDER BY seq LIMIT 1 OFFSET %s
            """,
            (member_id, number),
        )
        (row,) = cursor.fetchall()
    return Row(*row)


def by_python(_cursor: Cursor) -> None:
    raise OverflowError("made by this test")


def by_postgresql(cursor: Cursor) -> None:
    cursor.execute("SELECT 1 / 0")


def poison(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: list[Row], fails: Callable[[Cursor], None] = by_python
) -> None:
    """Let the fold of a projection fail after it has written, wherever its ranges hold one of `rows`."""
    fold = PROJECTIONS[name].fold

    def fold_or_fail(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
        fold(cursor, build, generation, is_first=is_first)
        (holds,) = one(
            cursor,
            """
            SELECT count(*) FROM projection_range r JOIN unnest(%s::integer[], %s::bigint[]) AS p (shard, pos)
              ON r.shard = p.shard AND p.pos > r.after_pos AND p.pos <= r.upto_pos WHERE r.build = %s
            """,
            ([row.shard for row in rows], [row.pos for row in rows], build),
        )
        if holds:
            fails(cursor)

    monkeypatch.setattr(PROJECTIONS[name], "fold", fold_or_fail)


def set_aside(database_url: str, name: str) -> list[tuple[int, int, str]]:
    """Return (shard, seq, member) of the gaps in the live build of a projection."""
    return [(row["shard"], row["seq"], row["member_id"]) for row in projections.events_set_aside(database_url, name)]


def assert_whole_but(database_url: str, name: str, expected: list[Row]) -> None:
    """Hold that all projections are at the head, that only `expected` is missing, and only from `name`."""
    rows = {row["projection"]: row for row in projections.listed(database_url)}
    assert {rows[each]["lag"] for each in PROJECTIONS} == {0}
    assert {each: row["set_aside"] for each, row in rows.items()} == dict.fromkeys(EVERY, 0) | {name: len(expected)}
    assert set_aside(database_url, name) == sorted((row.shard, row.seq, row.member_id) for row in expected)

    for each in EVERY:
        assert projections.difference(database_url, each) is None
    findings = verify(database_url)
    assert [finding for finding in findings if finding["problem"]] == []
    assert findings[-1]["looked_at"] == len(expected)


def balances(database_url: str) -> dict[tuple[str, str], int]:
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, unit, granted FROM reward.member_balance")
        return {(member_id, unit): int(granted) for member_id, unit, granted in cursor.fetchall()}
