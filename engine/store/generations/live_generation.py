"""Find the live generation, keep it in its place while a transaction writes to it, and read its schedule and facts."""

from __future__ import annotations

from bisect import bisect_left
from operator import attrgetter
from typing import TYPE_CHECKING

from psycopg2.extras import Json

from engine.ledger.books import Activation
from engine.store.cursor import one
from engine.store.generations import meanings
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor


SHARE_EVALUATION = "LOCK TABLE guerdon.evaluating IN ROW SHARE MODE"
"""The lock of everybody who evaluates: many hold it at once, and nobody while evaluation is held still."""

WHOLE = (0, 0)
"""The place of a fact about a generation as a whole: before every source event of the first shard."""


def lock_live(cursor: Cursor) -> int:
    """Keep the live generation in its place until the transaction ends, and return its number.

    Raises:
        AnswerIsNo: as `writable`.
    """
    cursor.execute(SHARE_EVALUATION)
    return writable(cursor)


def hold_evaluation(cursor: Cursor) -> None:
    """Keep everybody from evaluating until the transaction ends; this waits for the transactions under way."""
    cursor.execute("LOCK TABLE guerdon.evaluating IN EXCLUSIVE MODE")


def writable(cursor: Cursor) -> int:
    """Return the number of the live generation, in order to write to it.

    Raises:
        AnswerIsNo: the database was restored from an archive, and nothing may be added to its log; or the live
            generation was decided by another meaning than this release's.
    """
    # never in one statement with the lock: this one must see commits that fell into the wait for the lock
    generation, meaning, why = one(
        cursor,
        """
        SELECT generation, meaning, (SELECT convert_from(value, 'UTF8') FROM guerdon.setting WHERE name = 'restored')
        FROM guerdon.generation WHERE status = 'live'
        """,
    )
    if why is not None:
        raise AnswerIsNo(why)
    meanings.refuse_live(generation, meaning)
    return int(generation)


def refuse_restored(cursor: Cursor) -> None:
    """Raise `AnswerIsNo` where the database was restored from an archive and nothing may be added to its log."""
    cursor.execute("SELECT convert_from(value, 'UTF8') FROM guerdon.setting WHERE name = 'restored'")
    row = cursor.fetchone()
    if row is not None:
        raise AnswerIsNo(row[0])


def mark_restored(cursor: Cursor, why: str | None) -> None:
    """Forbid additions to the log, for the reason in a sentence; None allows them again."""
    cursor.execute("DELETE FROM guerdon.setting WHERE name = 'restored'")
    if why is not None:
        cursor.execute("INSERT INTO guerdon.setting (name, value) VALUES ('restored', convert_to(%s, 'UTF8'))", (why,))


def live(cursor: Cursor) -> int:
    """Return the number of the live generation, in order to read."""
    (generation,) = one(cursor, "SELECT generation FROM guerdon.generation WHERE status = 'live'")
    return int(generation)


def check_exists(cursor: Cursor, generation: int) -> None:
    """Raise `InputError` unless there is such a generation."""
    cursor.execute("SELECT 1 FROM guerdon.generation WHERE generation = %s", (generation,))
    if cursor.fetchone() is None:
        raise InputError(f"there is no generation {generation}; without a number the live one is meant")


def now_ms(cursor: Cursor) -> int:
    """Return PostgreSQL's clock in ms: workers on several machines must agree about `recorded_at`."""
    (at_ms,) = one(cursor, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    return int(at_ms)


def add_fact(cursor: Cursor, generation: int, place: tuple[int, int], kind: str, fact: dict[str, object]) -> None:
    """Keep a decision at `place`, a shard and seq, for replays of the same schedule."""
    cursor.execute(
        """
        INSERT INTO guerdon.generation_fact (generation, shard, seq, n, kind, fact)
        SELECT %(generation)s, %(shard)s, %(seq)s, count(*), %(kind)s, %(fact)s
        FROM guerdon.generation_fact
        WHERE generation = %(generation)s AND shard = %(shard)s AND seq = %(seq)s
        """,
        {"generation": generation, "shard": place[0], "seq": place[1], "kind": kind, "fact": Json(fact)},
    )


def version_at(cursor: Cursor, generation: int, shard: int, seq: int) -> int:
    """Return the programme version that judges the source event `seq` of `shard`; 0 before the first activation."""
    cursor.execute(
        """
        SELECT version FROM guerdon.generation_schedule
        WHERE generation = %s AND shard = %s AND from_seq < %s ORDER BY from_seq DESC LIMIT 1
        """,
        (generation, shard, seq),
    )
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])


def schedule(cursor: Cursor, generation: int, shard: int) -> list[Activation]:
    """Return the activations in a shard, ascending: each version judges the source events after its from_seq."""
    cursor.execute(
        """
        SELECT from_seq, version, guerdon.ms(at) FROM guerdon.generation_schedule
        WHERE generation = %s AND shard = %s ORDER BY from_seq
        """,
        (generation, shard),
    )
    return [Activation(*row) for row in cursor.fetchall()]


def version_in(schedule: Sequence[Activation], seq: int) -> int:
    """Return the version that judges the source event at `seq`; 0 before the first activation."""
    index = bisect_left(schedule, seq, key=attrgetter("from_seq")) - 1
    return 0 if index < 0 else schedule[index].version


def why_suspended(cursor: Cursor, generation: int, shard: int, member_id: str) -> str:
    """Return the latest reason for which a generation has suspended a member."""
    (why,) = one(
        cursor,
        """
        SELECT fact->>'reason' FROM guerdon.generation_fact
        WHERE generation = %s AND shard = %s AND kind = 'member_held' AND fact->>'member_id' = %s
        ORDER BY seq DESC LIMIT 1
        """,
        (generation, shard, member_id),
    )
    return str(why)


def suspended_at(cursor: Cursor, generation: int, shard: int, member_id: str) -> frozenset[int]:
    """Return the seqs at which a member was suspended, released since or not."""
    cursor.execute(
        """
        SELECT seq FROM guerdon.generation_fact
        WHERE generation = %s AND shard = %s AND kind = 'member_held' AND fact->>'member_id' = %s
        """,
        (generation, shard, member_id),
    )
    return frozenset(seq for (seq,) in cursor.fetchall())
