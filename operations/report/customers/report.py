"""Report what customers buy, whether they come back, what they are worth, and what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.customers.lifetime import lifetime_value
from operations.report.customers.periods import order_periods
from operations.report.customers.returning import repurchase, retention
from operations.report.rolled.cells import knows_months

if TYPE_CHECKING:
    from operations.report.frame import Frame

_CUT_MONTHS = (
    "nps, retention and clv are read from the logs, which takes longer: rollups know them for whole months, so let the "
    "report end with a month, or have all that happened"
)


def customers(of: Frame) -> dict[str, Any]:
    """Return orders by period, and the cohorts of members: second orders, retention, and what they have brought.

    Only the periods can be split.
    """
    if of.by is not None:
        of.notes.append(f"periods are split by {of.by}; repurchase, retention and clv are those of all members")
    if of.rolled and not knows_months(of):
        of.notes.append(_CUT_MONTHS)
    return {
        "periods": order_periods(of),
        "repurchase": repurchase(of),
        "retention": retention(of),
        "clv": lifetime_value(of),
    }
