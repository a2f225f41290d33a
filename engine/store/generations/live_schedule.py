"""Tell by which version each source event was judged where it was live, whichever generation was live then.

A promotion writes it down for what is older, as a fact of the generation that becomes live; that one's own schedule
tells the rest. So it outlasts generations that are discarded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.books import Activation
from engine.store.generations import live_generation
from engine.store.generations.live_generation import WHOLE

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

FACT = "went_live"
"""The kind of a `generation_fact` that says up to where another generation was live, and what judged until then."""


def record(cursor: Cursor, old: int, new: int) -> None:
    """Keep what has judged where it was live up to now, as `new` takes the place of `old`; nobody evaluates."""
    cursor.execute("SELECT shard, seq FROM guerdon.shard_head ORDER BY shard")
    upto: dict[int, int] = dict(cursor.fetchall())
    schedules = {shard: of(cursor, old, shard) for shard in upto}
    live_generation.add_fact(cursor, new, WHOLE, FACT, {"upto": upto, "schedules": schedules})


def of(cursor: Cursor, live: int, shard: int) -> list[Activation]:
    """Return what was activated in a shard, ascending, as `generations.schedule` does of one generation."""
    own = live_generation.schedule(cursor, live, shard)
    before = _before(cursor, live, shard)
    if before is None:
        return own
    earlier = [activation for activation in before.schedule if activation.from_seq < before.upto]
    turn = Activation(before.upto, live_generation.version_in(own, before.upto + 1), 0)
    later = [activation for activation in own if activation.from_seq > before.upto]
    return [*earlier, turn, *later]


def other_upto(cursor: Cursor, generation: int, shard: int) -> int:
    """Return up to which seq of a shard another generation was live, 0 where it has always been this one."""
    before = _before(cursor, generation, shard)
    return 0 if before is None else before.upto


class _Before(NamedTuple):
    """Say up to which seq of a shard others were live, and what judged until then."""

    upto: int
    schedule: list[Activation]


def _before(cursor: Cursor, generation: int, shard: int) -> _Before | None:
    """Return what was before the last time that a generation has become live, None where it is the first one ever."""
    cursor.execute(
        """
        SELECT (fact->'upto'->>%(shard)s)::bigint, fact->'schedules'->%(shard)s FROM guerdon.generation_fact
        WHERE generation = %(generation)s AND (shard, seq) = %(whole)s AND kind = %(kind)s ORDER BY n DESC LIMIT 1
        """,
        {"generation": generation, "whole": WHOLE, "kind": FACT, "shard": str(shard)},
    )
    row = cursor.fetchone()
    return None if row is None else _Before(row[0], [Activation(told[0], told[1], 0) for told in row[1]])
