"""Say how much of a campaign's budget is used in its period, and when it runs out at the pace of the last week."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operations.report.frame import Frame


def budgets(of: Frame) -> dict[str, dict[str, Any]]:
    """Return the budget of each campaign that has one; of several the one that is used up furthest.

    The log says how much is used, and so it is known for any generation and at any time: all that the rules gave in the
    period that holds the end of the report, less what refunds have taken back of it; in points, in minor units, or a
    number of times. `guerdon.budget_use` reckons it, for alerts, too.
    """
    rows = of.rows(
        """
        SELECT campaign, most::bigint, used::bigint, remaining::bigint, ends_at, unit, every
        FROM guerdon.budget_use(%(generation)s, %(known_at)s, %(cut)s, %(version)s)
        """,
        version=of.version,
    )
    return {
        campaign: {
            "limit": most,
            "used": used,
            "left": left,
            "ends_at": None if ends_at is None else ends_at.astimezone(of.cut.tzinfo).isoformat(timespec="seconds"),
            "unit": unit,
            "every": every,
        }
        for campaign, most, used, left, ends_at, unit, every in rows
    }
