"""Warn early: of what looks like misuse, and of rules that cost more than they were meant to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.extras import Json

from operations.report.money import cost_per_point, margin
from operations.rows import plain

if TYPE_CHECKING:
    from operations.report.frame import Frame

KINDS = (
    "refunds_after_redemption", "referral_burst", "refusals_jump", "budget_ends_early", "incentives_beyond_margin",
)  # fmt: skip
"""Every alert, in the order of the report."""

_ABOUT = ("member_id", "campaign", "reason")


def alerts(of: Frame) -> dict[str, Any]:
    """Return every warning about the last days before the cut, by kind, the greatest value first.

    Misuse is looked for in the window of the report, 30 days by default; refusals are those of the last day. Incentives
    are compared with the margin of orders in the time of the report, if the programme says the margin and the cost of a
    point. `guerdon.alerts` finds them, for the view `reward.alert`, too.
    """
    # notes say why no incentives are compared
    cost_per_point(of)
    margin(of)

    rows = of.rows(
        f"""
        SELECT alert, threshold, value, {", ".join(_ABOUT)}, begun_at
        FROM guerdon.alerts(
            %(generation)s, %(known_at)s, %(since)s, %(cut)s, %(days)s, %(version)s, %(facts)s, %(thresholds)s
        )
        """,
        version=of.version,
        thresholds=Json(of.thresholds._asdict()),
    )
    rows.sort(key=lambda row: (KINDS.index(row[0]), -row[2], *(name or "" for name in row[3:6])))
    return {"alerts": [_row(*row) for row in rows]}


def _row(alert: str, threshold: float, value: float, *more: Any) -> dict[str, Any]:
    about = {kind: name for kind, name in zip(_ABOUT, more[:-1], strict=True) if name is not None}
    return {
        "alert": alert,
        "threshold": _whole(threshold),
        "value": _whole(value),
        **about,
        "since": plain(more[-1]),
    }


def _whole(value: float) -> float:
    """Return a number as an integer where it is one: counts are whole."""
    return int(value) if value.is_integer() else value
