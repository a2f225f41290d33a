"""Add up the cells of the source facts' rollups; each answer is that of the logs, to the unit.

A cell is a change that was recorded on a local day. Those recorded before a day, added up, say how things stood at its
midnight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame

WITHIN = "day >= %(since_day)s AND day < %(cut_day)s"
"""Which cells count: those of days in the time of the report."""

COHORTS = "day >= %(since_month)s AND day < %(cut_day)s"
"""The same of cells whose day is the first one of a cohort's month, where `knows_months`."""


def known(of: Frame) -> str:
    """Return the SQL of the cells that were recorded in time; as of now there are fewer."""
    if of.known_before is None:
        return "(SELECT * FROM guerdon.rollup_now WHERE build = %(facts)s) cell"
    return "(SELECT * FROM guerdon.rollup WHERE build = %(facts)s AND recorded < %(known_before)s) cell"


def knows_months(of: Frame) -> bool:
    """Whether the end of the report cuts no month in two, as cells of cohorts hold whole months."""
    if of.cut_day.day == 1:
        return True
    ((is_cut,),) = of.rows(f"SELECT EXISTS (SELECT FROM {known(of)} WHERE measure = 'event' AND day >= %(cut_day)s)")
    return not is_cut


class MeasureDay(NamedTuple):
    """Hold what a measure adds up to on a local day."""

    measure: str
    day: date
    amount: int


def measure_days(of: Frame, *measures: str) -> list[MeasureDay]:
    """Return what each measure adds up to on each day in the time of the report that has any."""
    rows = of.rows(
        f"""
        SELECT measure, day, sum(amount) FROM {known(of)} WHERE {WITHIN} AND measure = ANY(%(measures)s)
        GROUP BY measure, day HAVING sum(amount) <> 0
        """,
        measures=list(measures),
    )
    return [MeasureDay(measure, day, int(amount)) for measure, day, amount in rows]


def members_by_period(of: Frame, measure: str) -> dict[date | None, int]:
    """Return how many members did something in a period, by its first day, and in all of them (None): once each.

    A cell counts members by the day on which they did it and the day before that on which they did. So those
    count whose day before lies before the period: each with the first day in it. A day before that is far has its
    month alone, and periods begin with a month, or near the day. So does the report, or nothing comes before it.
    """
    rows = of.rows(
        f"""
        SELECT start, coalesce(sum(amount) FILTER (WHERE previous < greatest(start, %(since_month)s)), 0),
               coalesce(sum(amount) FILTER (WHERE previous < %(since_month)s), 0)
        FROM (
            SELECT date_trunc(%(every)s, day::timestamp)::date AS start, previous, sum(amount) AS amount
            FROM {known(of)} WHERE {WITHIN} AND measure = %(measure)s GROUP BY 1, 2
        ) days GROUP BY start
        """,
        measure=measure,
    )
    members: dict[date | None, int] = {start: int(count) for start, count, _ in rows if count}
    in_all = sum(int(count) for _, _, count in rows)
    return members | {None: in_all} if in_all else members
