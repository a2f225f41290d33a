"""Count who was asked by surveys, and what they answered last, from rollups."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from operations.report.rolled.cells import WITHIN, known, members_by_period

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame

MEASURES = ("promoter", "passive", "detractor")


class Answered(NamedTuple):
    """Hold how many members were asked, and how many gave which score last, in the order of MEASURES."""

    asked: int
    scored: list[int]


def answers(of: Frame) -> dict[date | None, Answered]:
    """Return the answers of each period that has any, by its first day, and of all of them (None).

    Call this only where `knows_months(of)` is true. Each cell counts members by the day of their score and by `later`,
    the day of their next one. A score is the last of a period where `later` lies beyond it.
    """
    scored: defaultdict[date | None, list[int]] = defaultdict(lambda: [0] * len(MEASURES))
    for measure, start, of_period, of_all in of.rows(
        f"""
        SELECT measure, start,
               sum(amount) FILTER (WHERE later = '-infinity' OR later >= least(until, %(cut_day)s)),
               sum(amount) FILTER (WHERE later = '-infinity' OR later >= %(cut_day)s)
        FROM (
            SELECT measure, later, amount, date_trunc(%(every)s, day::timestamp)::date AS start,
                   (date_trunc(%(every)s, day::timestamp) + %(length)s::interval)::date AS until
            FROM {known(of)} WHERE {WITHIN} AND measure = ANY(%(measures)s)
        ) days GROUP BY measure, start
        """,
        measures=list(MEASURES),
    ):
        place = MEASURES.index(measure)
        scored[start][place] += int(of_period or 0)
        scored[None][place] += int(of_all or 0)
    asked = members_by_period(of, "asked")
    return {start: Answered(members, scored[start]) for start, members in asked.items()}
