"""Follow cohorts of members month after month from rollups."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from operations.report.rolled.cells import COHORTS, WITHIN, known

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame

_SIZES = {"by_signup": "joined", "by_first_order": "second"}
"""The measure that counts the members of each kind of cohort, by the day on which they entered it."""

_MONTHS = {"by_signup": "stayed", "by_first_order": "bought"}
"""The measure that counts them again with each month in which they bought, beside the month of theirs before it."""


class Cohort(NamedTuple):
    """Hold the members whose first signup, or first order, lies in one month, and the months in which they bought."""

    members: int
    in_month: Counter[date]
    """How many of them bought in a month, by its first day."""

    last_in_month: Counter[date]
    """How many of them bought in a month and not after it."""


def cohorts(of: Frame, name: str) -> dict[date, Cohort]:
    """Return the cohorts of a kind, `by_signup` or `by_first_order`, by the first day of their month.

    Call this only where `knows_months(of)` is true. A member who bought in a month and in a later one is counted in the
    later one with the month before it. All others bought in the month last.
    """
    sizes: Counter[date] = Counter()
    for cohort, members in of.rows(
        f"""
        SELECT date_trunc('month', day::timestamp)::date, sum(amount)::bigint
        FROM {known(of)} WHERE {WITHIN} AND measure = %(measure)s GROUP BY 1 HAVING sum(amount) <> 0
        """,
        measure=_SIZES[name],
    ):
        sizes[cohort] = members

    bought: dict[date, Counter[date]] = defaultdict(Counter)
    went_on: dict[date, Counter[date]] = defaultdict(Counter)
    for cohort, month, previous, has_previous, members in of.rows(
        f"""
        SELECT day, later, previous, previous > '-infinity', sum(amount)::bigint
        FROM {known(of)} WHERE {COHORTS} AND measure = %(measure)s AND later < %(cut_day)s
        GROUP BY day, later, previous
        """,
        measure=_MONTHS[name],
    ):
        bought[cohort][month] += members
        if has_previous:
            went_on[cohort][previous] += members
    return {
        cohort: Cohort(
            members,
            bought[cohort],
            Counter({month: count - went_on[cohort][month] for month, count in bought[cohort].items()}),
        )
        for cohort, members in sizes.items()
    }
