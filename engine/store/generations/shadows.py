"""Make generations beside the live one, tell how each of them judges, and let one take the live one's place.

The live generation's states lie in `member_state`, `member_ledger`, `member_use`, `stock` and `budget`; those of
generation 7 in `member_state_g7` and so on. Promotion exchanges the names, so whoever evaluates never asks which
generation is live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.meaning import MEANING
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


def find(cursor: Cursor, base: int, file_version: int | None, window: tuple[int | None, int | None]) -> int | None:
    """Return the newest shadow that was begun with the same base, file and times (ms); None where there is none.

    One that an earlier release has begun by another meaning is none.
    """
    cursor.execute(
        f"""
        {_SELECT}
        WHERE g.status = 'shadow' AND g.base = %s AND g.meaning = %s
          AND (g.file_version, guerdon.ms(g.from_at), guerdon.ms(g.to_at)) IS NOT DISTINCT FROM (%s, %s, %s)
        ORDER BY g.generation DESC LIMIT 1
        """,
        (base, MEANING, file_version, *window),
    )
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def create(cursor: Cursor, base: int, file_version: int | None, window: tuple[int | None, int | None]) -> int:
    """Make an empty shadow with tables of its own and return its number; the database's owner calls it."""
    (number,) = one(
        cursor,
        "SELECT guerdon.create_shadow(%s, %s, to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0))",
        (base, file_version, *window),
    )
    cursor.execute("UPDATE guerdon.generation SET meaning = %s WHERE generation = %s", (MEANING, number))
    cursor.execute("SELECT guerdon.create_uses(%s)", (number,))
    return int(number)


def lock(cursor: Cursor, number: int) -> None:
    """Keep everybody else from folding into a generation or dropping it, until the connection is closed.

    Raises:
        AnswerIsNo: somebody does so already.
    """
    other = take_alone(cursor, REPLAY_LOCK, number)
    if other is not None:
        raise AnswerIsNo(
            f"generation {number} is being replayed, promoted or discarded already; wait for its end: {other} the lock"
        )


def positions(cursor: Cursor, number: int) -> dict[int, int]:
    """Return up to which seq a generation has judged each shard's source log."""
    cursor.execute("SELECT shard, seq FROM guerdon.generation_head WHERE generation = %s ORDER BY shard", (number,))
    return dict(cursor.fetchall())


def difference(cursor: Cursor, number: int, other: int) -> int:
    """Return in how many shards two generations that judged the same events have not decided the same, to the byte."""
    (shards,) = one(
        cursor,
        """
        SELECT count(*) FROM guerdon.generation_head a JOIN guerdon.generation_head b USING (shard)
        WHERE a.generation = %s AND b.generation = %s AND a.seq = b.seq AND (a.pos, a.hash) <> (b.pos, b.hash)
        """,
        (number, other),
    )
    return int(shards)


def held(cursor: Cursor, generation: Generation) -> list[str]:
    """Return the members whom a generation that is not live holds, and the live one does not."""
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
    """Index a generation's log by member and by reward key, for what is asked of one that is or was live.

    The owner calls it. A shadow is folded without the indexes. Building them holds up nobody but whoever folds into the
    generation.
    """
    cursor.execute("SELECT guerdon.index_log(%s)", (number,))


def copy_shared(cursor: Cursor, generation: Generation) -> None:
    """Let a generation on the live one's schedule have what is kept of that one as a whole, as adjustments.

    A repetition, which counts nothing across members, has the live one's budgets and stock, too.
    """
    adjustments.copy(cursor, generation)
    if not generation.repeats:
        return
    for kept, columns in (("stock", "reward, used, changes"), ("budget", "budget, period, amount, times, changes")):
        cursor.execute(f"DELETE FROM {generation.table(kept)}")
        cursor.execute(f"INSERT INTO {generation.table(kept)} ({columns}) SELECT {columns} FROM guerdon.{kept}")


def make_live(cursor: Cursor, generation: Generation, versions: dict[int, int]) -> None:
    """Let a generation that has judged everything take the live one's place; the database's owner calls it.

    Args:
        cursor: of the transaction that holds the live generation still.
        generation: which one.
        versions: by which version each shard's next event is judged.
    """
    edges = {version: generation.edge_ms(version) for version in versions.values()}
    if not generation.repeats:  # else it is as if it had been its base all the time
        live_schedule.record(cursor, live_generation.live(cursor), generation.number)
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
    cursor.execute(
        """
        UPDATE guerdon.programme_version SET replayed = false, activated_at = clock_timestamp()
        WHERE version = %s AND replayed
        """,
        (generation.file_version,),
    )
    cursor.execute("SELECT guerdon.switch_generation(%s)", (generation.number,))
