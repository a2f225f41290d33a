"""Follow an experiment over time: what a report at the end of each period would have said of the orders up to then.

An effect that is large in the first weeks and fades is one of novelty. Refunds count as they are known now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.programme.model import Arm, CohortMetric
from operations.report.arithmetic import arms
from operations.report.arithmetic.comparison import welch
from operations.report.experiments.members import ENTRY, PURCHASE

if TYPE_CHECKING:
    from operations.report.experiments.exposure import Experiment
    from operations.report.frame import Frame

_STEPS = f"""
WITH {ENTRY}, {PURCHASE}, ordered AS (
    SELECT arm, occurred_at, y, sum(y) OVER (PARTITION BY shard, member_id ORDER BY occurred_at, seq) AS y_so_far
    FROM (
        SELECT shard, member_id, arm, occurred_at, seq,
               CASE WHEN %(is_net)s THEN net ELSE 1 END AS y
        FROM purchase WHERE is_since
    ) since
), step AS (                                      -- what each entry and each order adds to the sums of its arm
    SELECT arm, occurred_at, 1 AS n, 0::numeric AS y, 0::numeric AS y2 FROM entry
    UNION ALL
    SELECT arm, occurred_at, 0, y, y_so_far * y_so_far - (y_so_far - y) * (y_so_far - y) FROM ordered
)
"""


def curve_of(of: Frame, experiment: Experiment) -> list[dict[str, Any]]:
    """Return the sizes, the difference and its interval up to the end of each period with an entry or an order.

    The key `k` is the period's name, under which `forms/tables.py` lays the row out.
    """
    rows = of.rows(
        f"""
        {_STEPS} SELECT {of.period("occurred_at")}, arm, sum(n), sum(y), sum(y2) FROM step GROUP BY 1, 2 ORDER BY 1, 2
        """,
        salt=experiment.salt,
        is_net=experiment.metric is CohortMetric.NET,
    )
    so_far = {str(arm): arms.Arm(0, 0, 0) for arm in Arm}
    points: dict[str, dict[str, Any]] = {}
    for start, name, n, sum_y, sum_y2 in rows:
        before = so_far[name]
        so_far[name] = arms.Arm(before.n + int(n), before.sum_y + int(sum_y), before.sum_y2 + int(sum_y2))
        treated, control = (so_far[str(arm)] for arm in Arm)
        effect = welch(treated, control)
        points[of.name(start)] = {
            "k": of.name(start),
            "treated": treated.n,
            "control": control.n,
            "difference": None if effect is None else effect.difference,
            "low": None if effect is None else effect.low,
            "high": None if effect is None else effect.high,
        }
    return list(points.values())
