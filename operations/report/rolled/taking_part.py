"""Read from counts by days who took part in each period, how many orders earned, and whether something is to lapse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.report.rolled.reward_days import KNOWN, PERIOD
from projections.reward_days.texts import ACTIVE, EARNING_ORDER, PARTICIPANT, REDEEMER

if TYPE_CHECKING:
    from datetime import datetime

    from operations.report.frame import Frame

_MEASURES = {PARTICIPANT: "participants", REDEEMER: "redeemers"}


def participants(of: Frame) -> list[tuple[str, datetime | None, int]]:
    """Return how many members took part, and redeemed, in each period, and in all of them (None).

    A member counts in a time on the first of their days in it: the day before that one lies before the time. From afar
    that is its month alone; the report begins with a month, or nothing comes before it.
    """
    rows = of.rows(
        f"""
        SELECT measure, {PERIOD}, sum(number) FILTER (
                   WHERE previous < greatest(date_trunc(%(every)s, day::timestamp)::date, %(since_month)s)
               ), sum(number) FILTER (WHERE previous < %(since_month)s)
        FROM guerdon.reward_count
        WHERE {KNOWN} AND day >= %(since_day)s AND measure = ANY(%(measures)s) GROUP BY 1, 2
        """,
        measures=list(_MEASURES),
    )
    counted: list[tuple[str, datetime | None, int]] = []
    for measure, start, members, new in rows:
        counted.append((_MEASURES[measure], start, int(members or 0)))
        counted.append((_MEASURES[measure], None, int(new or 0)))
    return counted


def is_something_open(of: Frame) -> bool:
    """Whether an active amount lapses before the cut, and has not lapsed yet."""
    ((is_open,),) = of.rows(
        f"SELECT coalesce(sum(number), 0) > 0 FROM guerdon.reward_count WHERE {KNOWN} AND measure = %(measure)s",
        measure=ACTIVE,
    )
    return bool(is_open)


def earning_orders(of: Frame) -> list[tuple[datetime, int]]:
    """Return how many orders of each period gave their buyer something."""
    rows = of.rows(
        f"""
        SELECT {PERIOD}, sum(number) FROM guerdon.reward_count
        WHERE {KNOWN} AND day >= %(since_day)s AND measure = %(measure)s GROUP BY 1
        """,
        measure=EARNING_ORDER,
    )
    return [(start, int(orders)) for start, orders in rows]
