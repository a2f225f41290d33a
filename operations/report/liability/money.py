"""Roll the liability forward in money from one close to the next, in minor units of the programme's currency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.report.periods import Every

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from operations.report.frame import Frame
    from operations.report.liability.closes import Closes
    from operations.report.liability.outcomes import Said

METHOD = "M3"
"""The method whose estimate at a close is the liability in money, and whose rate splits the price of sales."""


def in_money(
    of: Frame, closes: Closes, said: Mapping[str, Mapping[str, Said]], rolled: Mapping[str, Any], price: Fraction | None
) -> dict[str, Any]:
    """Return a row a closed month: from what was owed in money at the close before to what is owed at its own.

    opening + deferred - recognised_on_redemption - recognised_on_expiry + change_of_estimate = closing. A point that
    is granted defers its price times the rate of the close; one that is redeemed recognises its price, as its
    redemption was expected. Points that lapse recognise nothing by themselves, because nothing was deferred for
    points that nobody will redeem (IFRS 15 B46): if more lapse than expected, the estimate changes.

    Args:
        of: by month; other lengths have no rows.
        closes: of the report.
        said: at each close, by month and method.
        rolled: the roll-forward in points.
        price: of a point by itself.
    """
    if price is None or of.every is not Every.MONTH:
        return {}
    rows, opening = {}, 0.0
    for close in closes.all:
        estimate, points = said[close.name].get(METHOD), rolled.get(close.name)
        if points is None or estimate is None or estimate.urr is None or estimate.expected_redemptions is None:
            continue
        granted = sum(points[way] for way in ("granted", "adjusted", "honoured", "opening"))
        deferred = float(granted * price) * estimate.urr
        recognised = float((points["captured"] - points["restored"]) * price)
        closing = float(price) * estimate.expected_redemptions
        rows[close.name] = {
            "opening": opening,
            "deferred": deferred,
            "recognised_on_redemption": recognised,
            "recognised_on_expiry": 0.0,
            "change_of_estimate": closing - opening - deferred + recognised,
            "closing": closing,
        }
        opening = closing
    return rows
