"""Read which months were closed, and let what was recorded after a close count in the first open month."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.periods import Every, add_months, midnight, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from engine.store.cursor import Cursor


class Close(NamedTuple):
    """Hold an operator's decision that a month is closed, with the points that were published for its end."""

    month: date
    zone: str
    closed_at: datetime
    actor: str
    reason: str
    generation: int
    closing_gross: int
    closing_debt: int

    @property
    def name(self) -> str:
        """Return the month as YYYY-MM."""
        return name_of(Every.MONTH, self.month)


@dataclass(frozen=True, slots=True)
class Closes:
    """Hold the closes that a report knows, in the order of months, which is that of decisions, too."""

    all: tuple[Close, ...]
    zone: str
    """The report's: its midnights end the months."""

    @property
    def ends(self) -> list[datetime]:
        """Return the instants at which the closed months ended."""
        return [midnight(add_months(each.month, 1), self.zone) for each in self.all]

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters of `EFFECTIVE`."""
        return {
            "closed_at": [each.closed_at for each in self.all],
            # whose first entry counts for all that was recorded before the first close
            "open_from": [None, *self.ends],
        }


EFFECTIVE = """
SELECT m.*, greatest(m.occurred_at, m.open_from) AS effective_at, m.occurred_at < m.open_from IS TRUE AS is_late
FROM (
    SELECT movement.*, (%(open_from)s::timestamptz[])[
        1 + width_bucket(movement.recorded_at, %(closed_at)s::timestamptz[])
    ] AS open_from
    FROM movement
) m
"""
"""Every movement with the instant at which it counts: its own, or the begin of the month that was open first.

`open_from` is the end of the last month that was closed when the movement was recorded.
"""


def closes(cursor: Cursor, known_at: datetime, zone: str) -> Closes:
    """Return the closes that were decided before `known_at`."""
    cursor.execute(
        """
        SELECT month, zone, closed_at, actor, reason, generation, closing_gross::bigint, closing_debt::bigint
        FROM guerdon.month_close WHERE closed_at < %s ORDER BY month
        """,
        (known_at,),
    )
    return Closes(tuple(Close(*row) for row in cursor.fetchall()), zone)


def first_open(decided: Sequence[Close], first: date) -> date:
    """Return the first month that is open; `first` is the first month of the log."""
    return add_months(decided[-1].month, 1) if decided else first
