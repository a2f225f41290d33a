"""Warn early: of what looks like misuse, and of rules that cost more than they were meant to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.alerts.costs import budgets_that_end_early, incentives_beyond_margin
from operations.report.alerts.misuse import referral_bursts, refunds_after_redemption, refusal_jumps

if TYPE_CHECKING:
    from operations.report.frame import Frame

KINDS = (
    refunds_after_redemption,
    referral_bursts,
    refusal_jumps,
    budgets_that_end_early,
    incentives_beyond_margin,
)


def alerts(of: Frame) -> dict[str, Any]:
    """Return every warning about the last days before the cut, by kind, the greatest value first.

    Misuse is looked for in the window of the report, 30 days by default; refusals are those of the last day.
    """
    warnings = [sorted(kind(of), key=lambda each: (-each.value, each.name)) for kind in KINDS]
    return {"alerts": [each.row() for group in warnings for each in group]}
