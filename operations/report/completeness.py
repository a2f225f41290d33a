"""Say whether a report is complete: nothing can be added to its time any more but what comes late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.report.clocks import behind
from operations.report.rolled.taking_part import is_something_open

if TYPE_CHECKING:
    from operations.report.frame import Frame


def is_complete(of: Frame) -> bool:
    """Whether the clock of every shard has passed the cut, and no lot that lapses before it is still open."""
    if of.known_at < of.cut or behind(of.cursor, of.cut) is not None:
        return False
    if of.rolled:
        return not is_something_open(of)
    ((is_open,),) = of.rows(
        """
        SELECT EXISTS (
            SELECT FROM guerdon.reward_event e
            WHERE e.generation = %(generation)s AND e.recorded_at < %(known_at)s AND e.expires_at < %(cut)s
              AND e.debit IS NOT NULL AND (e.credit = 'active' OR e.debit = 'active')
            GROUP BY e.shard, coalesce(e.lot, e.reward_key)
            HAVING sum(CASE WHEN e.credit = 'active' THEN e.amount ELSE -e.amount END) > 0
        )
        """
    )
    return not is_open
