"""Compute the Net Promoter Score from activities of kind `survey`.

Source: Reichheld, The One Number You Need to Grow, Harvard Business Review 81 (2003).
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

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


def satisfaction(of: Frame) -> Callable[[str], dict[str, Any]]:
    """Return what gives the score of a period by the period's name."""
    answers = answers_by_period(of)
    return lambda name: _score(answers.get(name, Answers()))


def answers_by_period(of: Frame) -> dict[str, Answers]:
    """Return the answers of each period that has any, and of all of them; each member counts with the latest score."""
    rows = of.rows(
        f"""
        SELECT period, count(*), count(score), count(*) FILTER (WHERE score >= 9), count(*) FILTER (WHERE score <= 6)
        FROM (
            SELECT w.period,
                   (array_agg(a.score ORDER BY a.occurred_at DESC, a.seq DESC)
                    FILTER (WHERE a.score BETWEEN 0 AND 10))[1] AS score
            FROM guerdon.fact_activity a
            CROSS JOIN LATERAL (VALUES ({of.period("a.occurred_at")}), (NULL)) w (period)
            WHERE a.build = %(facts)s AND a.kind = 'survey' AND a.recorded_at < %(known_at)s
              AND a.occurred_at >= %(since)s AND a.occurred_at < %(cut)s
            GROUP BY w.period, a.shard, a.member_id
        ) latest GROUP BY period
        """
    )
    return {of.name(start): Answers(*numbers) for start, *numbers in rows}


def _score(answers: Answers) -> dict[str, Any]:
    """Return the score with its standard error, both from -100 to 100, and the counts that they are made of."""
    score = error = None
    if answers.scored >= ANSWERS_MIN:
        promoters, detractors = answers.promoters / answers.scored, answers.detractors / answers.scored
        balance = promoters - detractors
        score = 100 * balance
        error = 100 * sqrt((promoters + detractors - balance**2) / answers.scored)
    return {
        "nps_n": answers.scored,
        "nps_promoters": answers.promoters,
        "nps_detractors": answers.detractors,
        "nps_asked": answers.asked,
        "nps": score,
        "se": error,
    }
