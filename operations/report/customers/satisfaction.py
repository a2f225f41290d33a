"""Compute the Net Promoter Score from activities of kind `survey`.

Source: Reichheld, The One Number You Need to Grow, Harvard Business Review 81 (2003).
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.periods import ALL
from operations.report.rolled import surveys as rolled
from operations.report.rolled.cells import knows_months
from operations.report.split import UNKNOWN, split

if TYPE_CHECKING:
    from operations.report.frame import Frame

ANSWERS_MIN = 30
"""With fewer answers no score is shown: its error would be larger than what it could say."""


class Answers(NamedTuple):
    """Hold the members whom a survey reached in a period."""

    asked: int = 0
    """All of them, whether they gave a score or not."""

    scored: int = 0
    """Those who gave a score from 0 to 10."""

    promoters: int = 0
    """Those whose latest score is 9 or 10."""

    detractors: int = 0
    """Those whose latest score is 0 to 6."""


def answers_by_period(of: Frame) -> dict[tuple[str, str], Answers]:
    """Return the answers by the period's name and value; each member counts with the latest score.

    A survey belongs to no order, so it has no channel.
    """
    if of.rolled and knows_months(of):
        return {
            (ALL if day is None else of.name_of_day(day), UNKNOWN): Answers(asked, sum(scored), scored[0], scored[2])
            for day, (asked, scored) in rolled.answers(of).items()
        }
    by = split(of)
    rows = of.rows(
        f"""
        WITH {by.table}, latest AS (
            SELECT w.start, a.member_id, NULL::text AS channel,
                   least({of.period_end("w.start")}, %(cut)s) AS occurred_at,
                   (array_agg(a.score ORDER BY a.occurred_at DESC, a.seq DESC)
                    FILTER (WHERE a.score BETWEEN 0 AND 10))[1] AS score
            FROM guerdon.fact_activity a
            CROSS JOIN LATERAL (VALUES ({of.period("a.occurred_at")}), (NULL)) w (start)
            WHERE a.build = %(facts)s AND a.kind = 'survey' AND a.recorded_at < %(known_at)s
              AND a.occurred_at >= %(since)s AND a.occurred_at < %(cut)s
            GROUP BY w.start, a.shard, a.member_id
        )
        SELECT l.start, {by.value_of_order("l")}, count(*), count(l.score), count(*) FILTER (WHERE l.score >= 9),
               count(*) FILTER (WHERE l.score <= 6)
        FROM latest l {by.joined_order("l")} GROUP BY 1, 2
        """,
        **by.parameters,
    )
    return {(of.name(start), value): Answers(*numbers) for start, value, *numbers in rows}


def score(answers: Answers) -> dict[str, Any]:
    """Return the score with its standard error, both from -100 to 100, and the counts that they are made of."""
    promoted = error = None
    if answers.scored >= ANSWERS_MIN:
        promoters, detractors = answers.promoters / answers.scored, answers.detractors / answers.scored
        balance = promoters - detractors
        promoted = 100 * balance
        error = 100 * sqrt((promoters + detractors - balance**2) / answers.scored)
    return {
        "nps_n": answers.scored,
        "nps_promoters": answers.promoters,
        "nps_detractors": answers.detractors,
        "nps_asked": answers.asked,
        "nps": promoted,
        "se": error,
    }
