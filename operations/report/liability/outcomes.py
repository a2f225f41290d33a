"""Set what was expected at each close against what has happened to the same points since."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.periods import Every, name_of
from operations.report.points import MOVEMENTS
from operations.rows import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from operations.report.frame import Frame
    from operations.report.liability.closes import Close, Closes


class Said(NamedTuple):
    """Hold what a method said at a close; None where it said nothing."""

    urr: float | None
    expected_redemptions: float | None


KNOWN_GRANTS = """
SELECT shard, lot, width_bucket(occurred_at, %(ends)s::timestamptz[]) AS occurred,
       width_bucket(recorded_at, %(closed_at)s::timestamptz[]) AS recorded
FROM movement WHERE debit = 'issued'
"""
"""Every grant, with how many closes it missed by when it happened, and by when it was recorded."""


def outcomes(of: Frame, closes: Closes) -> dict[str, Any]:
    """Return by closed month what was outstanding at its close, what each method expected, and what has happened.

    Only points that the close knew count. A movement counts as having happened since if the close did not know it.
    """
    if not closes.all:
        return {}
    said, moved = recorded(of), _moved(of, closes)
    return {each.name: _outcome(each, moved[number], said[each.name]) for number, each in enumerate(closes.all)}


def _outcome(close: Close, moved: Mapping[str, int], said: Mapping[str, Said]) -> dict[str, Any]:
    redeemed = moved["captured"] - moved["restored"]
    expired = moved["expired"] + moved["erased"] - moved["reversed_from_expired"]
    gone = moved["reversed_from_lots"] + moved["reversed_from_expired"] + moved["settled"]
    return {
        "closed_at": plain(close.closed_at),
        "outstanding": close.closing_gross,
        "redeemed_since": redeemed,
        "expired_since": expired,
        "reversed_since": gone,
        "still_outstanding": close.closing_gross - redeemed - expired - gone,
        "methods": {method: each._asdict() for method, each in said.items()},
    }


def _moved(of: Frame, closes: Closes) -> list[dict[str, int]]:
    """Return by close the points that left what it knew to be outstanding, by way.

    A close knows what happened before its month's end and was recorded before the close. Both are in order, so the
    first close that knows a movement follows from two numbers, and the cells are sums by those.
    """
    rows = of.rows(
        f"""
        WITH movement AS NOT MATERIALIZED ({MOVEMENTS}), known_grant AS ({KNOWN_GRANTS})
        SELECT greatest(g.occurred, g.recorded) AS granted,
               greatest(width_bucket(m.occurred_at, %(ends)s::timestamptz[]),
                        width_bucket(m.recorded_at, %(closed_at)s::timestamptz[])) AS moved,
               m.way, sum(m.amount)
        FROM movement m JOIN known_grant g USING (shard, lot)
        WHERE m.way IS NOT NULL AND m.debit NOT IN ('issued', 'debt') GROUP BY 1, 2, 3
        """,
        ends=closes.ends,
        closed_at=[each.closed_at for each in closes.all],
    )
    moved: list[dict[str, int]] = [defaultdict(int) for _ in closes.all]
    for granted, left, way, points in rows:
        for number in range(granted, min(left, len(moved))):
            moved[number][way] += int(points)
    return moved


def recorded(of: Frame) -> dict[str, dict[str, Said]]:
    """Return what each method said at each close, by month and method."""
    said: dict[str, dict[str, Said]] = defaultdict(dict)
    for month, method, rate, expected in of.rows(
        "SELECT month, method, redemption_rate, expected_redemptions FROM guerdon.estimate ORDER BY month, method"
    ):
        said[name_of(Every.MONTH, month)][method] = Said(rate, expected)
    return said
