"""Say when the points outstanding lapse: by the month of their expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.report.liability.closes import EFFECTIVE
from operations.report.periods import Every, month_name
from operations.report.points import MOVEMENTS
from operations.report.rolled.lots import expiries

if TYPE_CHECKING:
    from operations.report.frame import Frame
    from operations.report.liability.closes import Closes

NEVER = "never"


def ageing(of: Frame, closes: Closes) -> dict[str, int]:
    """Return the points outstanding at the cut by the local month in which they lapse; they sum to the closing gross.

    A lot's expiry is that of its latest movement: a referral's release gives a new one.
    """
    # a movement that came after a close counts in a month that was open then, so not before a cut in a closed one
    if of.rolled and (not closes.all or closes.ends[-1] < of.cut):
        return {NEVER if day is None else month_name(day): points for day, points in expiries(of)}
    rows = of.rows(
        f"""
        WITH movement AS NOT MATERIALIZED ({MOVEMENTS}), counted AS ({EFFECTIVE}), lot AS (
            SELECT (array_agg(expires_at ORDER BY pos DESC))[1] AS expires_at, sum(outstanding) AS points
            FROM counted WHERE effective_at < %(cut)s GROUP BY shard, lot HAVING sum(outstanding) <> 0
        )
        SELECT {of.month("expires_at")} AS month, sum(points) FROM lot GROUP BY 1 ORDER BY 1
        """,
        **closes.parameters,
    )
    return {NEVER if month is None else of.name(month, Every.MONTH): int(points) for month, points in rows}
