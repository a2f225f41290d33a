"""Report what became of the points of each month: redeemed, expired, erased or outstanding, and at which age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.frame import ratio
from operations.report.periods import Every, name_of
from operations.report.redemption.vintages import run_off, vintage_cells, vintages, whole_until
from operations.report.split import UNKNOWN, shown

if TYPE_CHECKING:
    from datetime import date

    from operations.report.frame import Frame
    from operations.report.redemption.vintages import Vintage


def redemption(of: Frame) -> dict[str, Any]:
    """Return the vintages of the time of the report, and the breakage of those with nothing outstanding.

    The vintages have their cells by whole months up to the cut; what happened since is in their sums only.
    """
    by_value = vintages(vintage_cells(of, of.since))
    whole = whole_until(of)

    # a vintage's row for each value that had grants in its month
    rows: dict[str, dict[str, Any]] = {}
    for value, months in by_value.items():
        for vintage in months:
            rows.setdefault(name_of(Every.MONTH, vintage.month), {})[value] = _row(vintage, whole)
    shown_rows = {name: shown(of, rows[name]) for name in sorted(rows)}

    totals = {value: _breakage(months) for value, months in by_value.items()}
    if of.by is None:
        return {"vintages": shown_rows, **totals.get(UNKNOWN, _breakage([]))}
    return {"vintages": shown_rows, **{key: {value: totals[value][key] for value in sorted(totals)} for key in _TOTALS}}


_TOTALS = ("breakage_realised", "closed_vintages", "closed_earned", "closed_expired")


def _breakage(of: list[Vintage]) -> dict[str, Any]:
    closed = run_off(of)
    values = (ratio(closed.expired, closed.earned), closed.vintages, closed.earned, closed.expired)
    return dict(zip(_TOTALS, values, strict=True))


def _row(of: Vintage, whole: date) -> dict[str, Any]:
    redeemed_by_age = of.redeemed_by_age(whole)
    return {
        "issued": of.issued,
        "reversed": of.reversed,
        "settled": of.settled,
        "earned": of.earned,
        "redeemed": of.redeemed,
        "expired": of.expired,
        "erased": of.erased,
        "outstanding": of.outstanding,
        "redeemed_by_age": redeemed_by_age,
        "redemption_by_age": [ratio(redeemed, of.earned) for redeemed in redeemed_by_age],
        "redemption": ratio(of.redeemed, of.earned),
        "breakage_realised": None if of.outstanding else ratio(of.expired, of.earned),
    }
