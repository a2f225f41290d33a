"""Make generations beside the live one, read how each of them judges, and let one take the live one's place.

The live generation's states lie in `member_state`, `member_ledger`, `member_use`, `stock` and `budget`; those of
generation 7 lie in `member_state_g7` and so on. A promotion exchanges the names of the tables, so evaluation always
works on the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.meaning import MEANING
from engine.store import webhook_cursors
from engine.store.cursor import one
from engine.store.generations import adjustments, live_generation, live_schedule
from engine.store.generations.generation import Generation
from engine.store.session.blockers import take_alone
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

REPLAY_LOCK = 0x7265_706C
"""Advisory lock with a generation's number: one replay at a time folds into it."""

_SELECT = """
SELECT g.generation, g.status, g.base, g.file_version, guerdon.ms(g.from_at), guerdon.ms(g.to_at), g.meaning, b.meaning
FROM guerdon.generation g LEFT JOIN guerdon.generation b ON b.generation = g.base
"""


def get(cursor: Cursor, number: int) -> Generation:
    """Return a generation.

    Raises:
        InputError: there is no such generation.
    """
    cursor.execute(f"{_SELECT} WHERE g.generation = %s", (number,))
    row = cursor.fetchone()
    if row is None:
        raise InputError(f"there is no generation {number}; `guerdon generations` shows them")
    return Generation(*row)


def find(
    cursor: Cursor, base: int, file_version: int | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> int | None:
    """Return the newest shadow with the same base, file and times (ms); None where there is none.

    A shadow that an earlier release has begun by another meaning does not count.
    """
    cursor.execute(
        f"""
        {_SELECT}
        WHERE g.status = 'shadow' AND g.base = %s AND g.meaning = %s
          AND (g.file_version, guerdon.ms(g.from_at), guerdon.ms(g.to_at)) IS NOT DISTINCT FROM (%s, %s, %s)
        ORDER BY g.generation DESC LIMIT 1
        """,
        (base, MEANING, file_version, from_ms, to_ms),
    )
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def create(
    cursor: Cursor, base: int, file_version: int | None = None, from_ms: int | None = None, to_ms: int | None = None
) -> int:
    """Make an empty shadow with tables of its own and return its number; only the database's owner may."""
    (number,) = one(
        cursor,
        "SELECT guerdon.create_shadow(%s, %s, to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0))",
        (base, file_version, from_ms, to_ms),
    )
    cursor.execute("UPDATE guerdon.generation SET meaning = %s WHERE generation = %s", (MEANING, number))
    cursor.execute("SELECT guerdon.create_uses(%s)", (number,))
    return int(number)


def lock(cursor: Cursor, number: int) -> None:
    """Keep everybody else from folding into a generation or dropping it, until the connection is closed.

    Raises:
        AnswerIsNo: somebody else is at it already.
    """
    other = take_alone(cursor, REPLAY_LOCK, number)
    if other is not None:
        raise AnswerIsNo(
            f"generation {number} is being replayed, promoted or discarded already; wait for its end: {other} the lock"
        )


def positions(cursor: Cursor, number: int) -> dict[int, int]:
    """Return by shard the last seq of the source log that a generation has judged."""
    cursor.execute("SELECT shard, seq FROM guerdon.generation_head WHERE generation = %s ORDER BY shard", (number,))
    return dict(cursor.fetchall())


def difference(cursor: Cursor, number: int, other: int) -> int:
    """Return the number of shards that two generations have judged up to the same seq, with logs that differ."""
    (shards,) = one(
        cursor,
        """
        SELECT count(*) FROM guerdon.generation_head a JOIN guerdon.generation_head b USING (shard)
        WHERE a.generation = %s AND b.generation = %s AND a.seq = b.seq AND (a.pos, a.hash) <> (b.pos, b.hash)
        """,
        (number, other),
    )
    return int(shards)


def suspended_members(cursor: Cursor, generation: Generation) -> list[str]:
    """Return the members who are suspended in a generation that is not live, and not in the live one."""
    cursor.execute(
        """
        SELECT DISTINCT f.fact->>'member_id' FROM guerdon.generation_fact f
        WHERE f.generation = %s AND f.kind = 'member_held'
          AND NOT EXISTS (
              SELECT FROM guerdon.source_event e
              WHERE e.shard = f.shard AND e.seq > f.seq AND e.kind = 'release' AND e.member_id = f.fact->>'member_id'
          )
          AND NOT EXISTS (
              SELECT FROM guerdon.quarantine q
              WHERE q.seq IS NOT NULL AND q.status = 'open' AND q.member_id = f.fact->>'member_id'
          )
        ORDER BY 1
        """,
        (generation.number,),
    )
    return [member_id for (member_id,) in cursor.fetchall()]


def index_log(cursor: Cursor, number: int) -> None:
    """Index a generation's log by member and by reward key, before it becomes live; only the database's owner may.

    A shadow is folded without these indexes. Building them holds up only those who fold into the generation.
    """
    cursor.execute("SELECT guerdon.index_log(%s)", (number,))


def copy_shared(cursor: Cursor, generation: Generation) -> None:
    """Copy the parts that the live generation has as a whole, such as adjustments, to a generation on its schedule.

    A repetition gets budgets and stock as well, as it counts nothing across members itself.
    """
    adjustments.copy(cursor, generation)
    if not generation.repeats:
        return
    for name, columns in (("stock", "reward, used, changes"), ("budget", "budget, period, amount, times, changes")):
        cursor.execute(f"DELETE FROM {generation.table(name)}")
        cursor.execute(f"INSERT INTO {generation.table(name)} ({columns}) SELECT {columns} FROM guerdon.{name}")


def make_live(cursor: Cursor, generation: Generation, versions: dict[int, int]) -> None:
    """Let a generation that has judged everything take the live one's place; only the database's owner may.

    Args:
        cursor: belongs to the transaction that holds evaluation still.
        generation: the new live one.
        versions: the version that judges the next event of each shard.
    """
    # a repetition has the very schedule of its base
    if not generation.repeats:
        live_schedule.record(cursor, live_generation.live(cursor), generation.number)

    # put the versions into the heads, and where one differs, its activation into the schedule
    edges = {version: generation.edge_ms(version) for version in versions.values()}
    cursor.execute(
        """
        WITH changed AS (
            UPDATE guerdon.generation_head h SET version = v.version
            FROM unnest(%(shards)s::smallint[], %(versions)s::integer[]) AS v (shard, version)
            WHERE h.generation = %(generation)s AND h.shard = v.shard AND h.version <> v.version
            RETURNING h.generation, h.shard, h.seq, h.version
        ), edge (version, at) AS (
            SELECT * FROM unnest(%(edges)s::integer[], %(ms)s::bigint[])
        )
        INSERT INTO guerdon.generation_schedule AS s (generation, shard, from_seq, version, at)
        SELECT c.*, to_timestamp(edge.at / 1000.0) FROM changed c JOIN edge USING (version)
        ON CONFLICT (generation, shard, from_seq) DO UPDATE SET version = excluded.version, at = excluded.at
        """,
        {
            "generation": generation.number,
            "shards": list(versions),
            "versions": list(versions.values()),
            "edges": list(edges),
            "ms": list(edges.values()),
        },
    )

    # the replay's file is a version like any other now
    cursor.execute(
        """
        UPDATE guerdon.programme_version SET replayed = false, activated_at = clock_timestamp()
        WHERE version = %s AND replayed
        """,
        (generation.file_version,),
    )

    cursor.execute("SELECT guerdon.switch_generation(%s)", (generation.number,))
    webhook_cursors.move_to(cursor, generation.number)
