"""Weigh what lots are expected to redeem by the probability that their member will buy again: method M5."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING

from operations.report.arithmetic.customer_fit import fit_bgnbd
from operations.report.customers.predicted import Buying, buying_until
from operations.report.orders import MEMBER_DAYS
from operations.report.points import MOVEMENTS
from schemas.errors import InputError

if TYPE_CHECKING:
    from operations.report.arithmetic.lot_hazards import Hazards
    from operations.report.frame import Frame


def expected_redemptions(of: Frame, hazards: Hazards) -> float | None:
    """Return how many of the points outstanding will be redeemed; None, with a note, where no purchases are known.

    A member who never bought has no probability of their own; their lots count as M3 has them.
    """
    # how customers buy; without facts nobody is known to have bought
    try:
        fit = fit_bgnbd([each.history(of.cut_day) for each in buying_until(of, of.cut_day)])
    except InputError as error:
        of.notes.append(f"M5 is not computed: {error}")
        return None
    if fit is None:
        of.notes.append("M5 is not computed: nobody is known to have bought")
        return None

    rows = of.rows(
        f"""
        WITH movement AS ({MOVEMENTS}), {MEMBER_DAYS}, lot AS (
            SELECT shard, member_id, min(occurred_at) FILTER (WHERE debit = 'issued') AS granted_at,
                   sum(outstanding) AS points
            FROM movement GROUP BY shard, lot, member_id
        ), outstanding AS (
            SELECT shard, member_id, {of.day("%(cut)s")} - {of.day("granted_at")} AS age, sum(points) AS points
            FROM lot WHERE granted_at IS NOT NULL AND points <> 0 GROUP BY 1, 2, 3
        ), bought AS (
            SELECT shard, member_id, min(day) AS first, max(day) AS last, count(*) AS days
            FROM member_days WHERE net > 0 GROUP BY 1, 2
        )
        SELECT age, sum(points), first, last, days FROM outstanding LEFT JOIN bought USING (shard, member_id)
        GROUP BY age, first, last, days
        """
    )
    expected = []
    for age, points, first, last, days in rows:
        alive = 1.0 if first is None else fit.model.alive(*Buying(first, last, days, 1).history(of.cut_day)[:3])
        expected.append(int(points) * hazards.still_redeemed(age) * alive)
    return fsum(expected)
