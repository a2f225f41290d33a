"""Tell which version judged each source event in the generation that was live at the time.

A promotion writes the versions up to then down, as a fact of the generation that becomes live; the rest is that
generation's own schedule. So the knowledge outlasts generations that are discarded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.books import Activation
from engine.store.generations import live_generation
from engine.store.generations.live_generation import WHOLE

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

FACT = "went_live"
"""The kind of a `generation_fact` that says how far others were live, and which versions judged until then."""


def record(cursor: Cursor, old: int, new: int) -> None:
    """Keep the live schedules up to now, as `new` takes the place of `old`; the caller holds evaluation still."""
    cursor.execute("SELECT shard, seq FROM guerdon.shard_head ORDER BY shard")
    upto: dict[int, int] = dict(cursor.fetchall())
    schedules = {shard: of(cursor, old, shard) for shard in upto}
    live_generation.add_fact(cursor, new, WHOLE, FACT, {"upto": upto, "schedules": schedules})


def of(cursor: Cursor, live: int, shard: int) -> list[Activation]:
    """Return the live activations in a shard, ascending; `live_generation.schedule` has those of one generation."""
    own = live_generation.schedule(cursor, live, shard)
    before = _before(cursor, live, shard)
    if before is None:
        return own

    # up to the promotion the versions of the other generations, then this one's own
    earlier = [activation for activation in before.schedule if activation.from_seq < before.upto]
    turn = Activation(before.upto, live_generation.version_in(own, before.upto + 1), 0)
    later = [activation for activation in own if activation.from_seq > before.upto]
    return [*earlier, turn, *later]


def other_upto(cursor: Cursor, generation: int, shard: int) -> int:
    """Return the last seq of a shard at which another generation was live, 0 where it has always been this one."""
    before = _before(cursor, generation, shard)
    return 0 if before is None else before.upto


class _Before(NamedTuple):
    """Hold the last seq of a shard at which others were live, and the activations until then."""

    upto: int
    schedule: list[Activation]


def _before(cursor: Cursor, generation: int, shard: int) -> _Before | None:
    """Return the schedule before a generation last became live, None for the very first generation."""
    cursor.execute(
        """
        SELECT (fact->'upto'->>%(shard)s)::bigint, fact->'schedules'->%(shard)s FROM guerdon.generation_fact
        WHERE generation = %(generation)s AND (shard, seq) = %(whole)s AND kind = %(kind)s ORDER BY n DESC LIMIT 1
        """,
        {"generation": generation, "whole": WHOLE, "kind": FACT, "shard": str(shard)},
    )
    row = cursor.fetchone()
    return None if row is None else _Before(row[0], [Activation(each[0], each[1], 0) for each in row[1]])
