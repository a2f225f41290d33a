"""Read the reward log as it is added up by local days, where a report has `Frame.rolled`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operations.report.frame import Frame

BUILD = """
(SELECT build FROM guerdon.projection_build
 WHERE projection = 'reward_day' AND status = 'live' AND generation = %(generation)s)
"""
"""The build of the report's generation."""

KNOWN = f"build = {BUILD} AND recorded_day < %(known_before)s AND day < %(cut_day)s"
"""The condition that a row of days is known at K, before the cut."""

PERIOD = "(date_trunc(%(every)s, day::timestamp) AT TIME ZONE %(zone)s)"
"""The first instant of the period in which a row's day lies."""

_LOG = "(SELECT *, 1 AS rewards FROM guerdon.reward_event)"

_SUMS = f"""
(
    SELECT %(generation)s AS generation, type, unit, debit, credit, reason, campaign, item, amount, rewards,
           NULL::text AS member_id, day::timestamp AT TIME ZONE %(zone)s AS occurred_at,
           recorded_day::timestamp AT TIME ZONE %(zone)s AS recorded_at
    FROM guerdon.reward_day WHERE build = {BUILD}
)
"""


def reward_table(of: Frame) -> str:
    """Return the SQL of a table of rewards, for reports that add up amounts, or `rewards`, their number.

    Where rollups answer, a row stands for all rewards of one kind and day, at the local midnights at which the days of
    occurring and of recording began, and for no member. All else is as in the log; of items, those of gifts, coupons
    and tiers are there.
    """
    return _SUMS if of.rolled else _LOG
