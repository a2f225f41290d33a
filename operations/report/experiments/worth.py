"""Say what the treated of an experiment have brought beyond the controls, and what that has cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.arithmetic.comparison import fieller
from operations.report.experiments.compared import record
from operations.report.rewards import USES_UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operations.report.arithmetic.comparison import Effect
    from operations.report.experiments.compared import Compared
    from operations.report.frame import Frame


def worth(of: Frame, compared: Compared) -> dict[str, Any]:
    """Return what the treated have brought beyond the controls, and what the experiment's rewards have cost.

    Intervals hold for one look. Those over the cost know that the cost varies from member to member, too. A note in the
    report says why a cost or an interval is None.
    """
    whole, members = compared.exposure.whole, compared.treated.n
    net, profit = compared.difference("net"), compared.difference("profit")
    incremental = None if net is None else members * net.difference
    cost = whole.treated.sums["cost_of_rules"] if compared.is_priced else None
    is_judged = profit is not None and compared.money.margin is not None and cost is not None
    numbers = {
        "incremental_revenue": incremental,
        "incremental_revenue_interval": _of_all(net, members),
        "cost_realised": cost,
        "iroas": None if incremental is None or not cost else incremental / cost,
        "iroas_interval": record(fieller(*whole.of("net", "cost_of_rules"))) if cost else None,
        "profit": record(profit) if is_judged else None,
        "roi": members * profit.difference / cost if is_judged and profit is not None and cost else None,
        "roi_interval": record(fieller(*whole.of("profit", "cost_of_rules"))) if is_judged and cost else None,
    }
    _note(of, compared, numbers)
    return numbers


def _note(of: Frame, compared: Compared, numbers: Mapping[str, Any]) -> None:
    salt = compared.experiment.salt
    if any(sums.counts.unpriced for sums in compared.exposure.whole):
        of.notes.append(f'experiment "{salt}": the programme does not say what all of the rewards cost')
    if any(sums.counts.coupons for sums in compared.exposure.whole):
        of.notes.append(f'experiment "{salt}": {USES_UNKNOWN}')
    if numbers["iroas"] is not None and numbers["iroas_interval"] is None:
        of.notes.append(
            f'experiment "{salt}": the cost of a member may as well be 0, so iroas and roi have no interval'
        )


def _of_all(effect: Effect | None, members: int) -> dict[str, float] | None:
    """Return the interval of a difference for all the treated."""
    if effect is None or effect.low is None or effect.high is None:
        return None
    return {"low": members * effect.low, "high": members * effect.high}
