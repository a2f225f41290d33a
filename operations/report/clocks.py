"""Say whether everything that belongs to the time before an instant has happened in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.cursor import one

if TYPE_CHECKING:
    from datetime import datetime

    from engine.store.cursor import Cursor


def behind(cursor: Cursor, until: datetime) -> str | None:
    """Say in a sentence why time has not reached `until`; None: it has, in every shard.

    A tick goes as far as all partitions are read, so the latest one of any shard says how far time has come. A shard
    where nobody is due has no tick of its own, and is not behind for that.
    """
    (ticked_at,) = one(cursor, "SELECT max(ticked_at) FROM guerdon.shard_head")
    if ticked_at is None or ticked_at < until:
        clock = "no clock has moved yet" if ticked_at is None else f"the clocks stand at {ticked_at.isoformat()}"
        return f"{clock}; let a worker run until they have come to {until.isoformat()}"

    cursor.execute(
        """
        SELECT h.shard FROM guerdon.shard_head h
        WHERE (h.ticked_at IS NULL OR h.ticked_at < %(until)s)
          AND EXISTS (SELECT FROM guerdon.member_state m WHERE m.shard = h.shard AND m.due_at < %(until)s)
        ORDER BY h.shard LIMIT 1
        """,
        {"until": until},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    return (
        f"the clock of shard {row[0]} stands before {until.isoformat()}, and something is due there; let a worker run, "
        "and look at `guerdon status`"
    )
