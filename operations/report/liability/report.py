"""Report the points that members may still spend: their origin, their expiry, and how many will be redeemed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.liability import closes as closed
from operations.report.liability.ageing import ageing
from operations.report.liability.methods import estimates, methods
from operations.report.liability.money import METHOD, in_money
from operations.report.liability.outcomes import outcomes, recorded
from operations.report.liability.roll_forward import does_not_close, roll_forward
from operations.report.liability.sales import deferral
from operations.report.money import cost_per_point, price_per_point
from operations.report.periods import ALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operations.report.frame import Frame


def liability(of: Frame) -> dict[str, Any]:
    """Return the roll-forward by period, the ageing at the cut, the methods, and what became of earlier estimates."""
    decided = closed.closes(of.cursor, of.known_at, of.zone)
    cost = cost_per_point(of)
    rolled = roll_forward(of, decided, cost)
    said, at_closes, price = estimates(of), recorded(of), price_per_point(of)
    return {
        "roll_forward": rolled,
        "ageing": ageing(of, decided),
        "methods": methods(said, rolled[ALL]["closing_gross"], cost),
        "estimates": outcomes(of, decided),
        "money": in_money(of, decided, at_closes, rolled, price),
        "deferral": deferral(of, decided, at_closes, said[METHOD], price),
    }


def problem(data: Mapping[str, Any]) -> str | None:
    """Say in a sentence why the report must not be used: a period that does not close, or an ageing that differs."""
    rolled: Mapping[str, Any] = data["roll_forward"]
    aged = sum(data["ageing"].values())
    closing = rolled[ALL]["closing_gross"]
    if aged != closing:
        return f"the ageing sums up to {aged:,} points and the roll-forward closes at {closing:,}; run `guerdon verify`"
    return does_not_close(rolled)
