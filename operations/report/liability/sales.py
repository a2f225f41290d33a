"""Split the net of orders between goods and the points that came with them, and recognise what belongs to points.

A report splits the orders of a period as one: all points have one price, and nobody knows which will be redeemed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import fsum
from typing import TYPE_CHECKING, Any

from operations.report.arithmetic.deferral import deferred, recognised
from operations.report.arithmetic.lot_hazards import hazards
from operations.report.liability.money import METHOD
from operations.report.movements import BURNED, MOVES, entered
from operations.report.orders import ORDERS
from operations.report.periods import ALL, Every

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from operations.report.frame import Frame
    from operations.report.liability.closes import Closes
    from operations.report.liability.methods import Estimate
    from operations.report.liability.outcomes import Said

_SOLD = f"""
{ORDERS}, sold AS (
    SELECT e.shard, e.seq, e.reward_key AS lot, e.amount, e.occurred_at AS granted_at, o.occurred_at, o.net
    FROM guerdon.reward_event e JOIN orders o USING (shard, seq)
    WHERE {MOVES} AND e.unit = %(unit)s AND e.type = 'points.granted' AND o.occurred_at >= %(since)s
)
"""
"""The points that an order's own event brought its buyer, with the order's net; those of a referrer are no part."""

_OUTSTANDING = " + ".join(entered(account) for account in ("pending", "active", "reserved"))


@dataclass(slots=True)
class Sales:
    """Hold the orders of a period that brought points, their net in minor units, and what became of the points."""

    orders: int = 0
    net: int = 0
    points: int = 0
    redeemed: int = 0
    outstanding: dict[int, int] = field(default_factory=dict)
    """By the lots' age in days at the cut."""


def deferral(
    of: Frame, closes: Closes, said: Mapping[str, Mapping[str, Said]], now: Estimate, price: Fraction | None
) -> dict[str, Any]:
    """Return a row a period and one of all: the net of its orders, split between goods and points, and the revenue.

    The rate at which a month was closed splits its price for good; a month that is open is split by the rate of now.
    Each report expects another number of redemptions, and recognises by that one (cumulative catch-up). Amounts are
    None, with a note, where no price is named or no rate is known.

    Args:
        of: the report.
        closes: that the report knows.
        said: at each close, by month and method.
        now: what method M3 says at the cut.
        price: of a point by itself.
    """
    if price is None:
        of.notes.append("sales are not split: the programme names neither points.price nor points.liability_per_point")
    rates = {each.name: said[each.name].get(METHOD) for each in closes.all} if of.every is Every.MONTH else {}
    by_period = {name: Sales() for name in of.period_names if name != ALL} | _sales(of)
    rows = {}
    for name, sales in by_period.items():
        at_close = rates.get(name)
        rows[name] = _row(sales, now, now.rate if at_close is None else at_close.urr, price)
    return rows | {ALL: {name: _sum(row[name] for row in rows.values()) for name in SUMS}}


SUMS = ("orders", "net", "goods", "deferred", "points", "redeemed", "expected_redemptions", "recognised", "liability")
"""The amounts that add up over periods."""


def _row(sales: Sales, now: Estimate, rate: float | None, price: Fraction | None) -> dict[str, Any]:
    still = (now.hazards or hazards(())).still_redeemed
    expected = fsum(points * still(age) for age, points in sales.outstanding.items())
    row = {
        "orders": sales.orders,
        "net": sales.net,
        "points": sales.points,
        "rate": rate,
        "goods": None,
        "deferred": None,
        "redeemed": sales.redeemed,
        "expected_redemptions": expected,
        "recognised": None,
        "liability": None,
    }
    if price is None or rate is None:
        return row

    # the net is taken for the price of the goods alone, too: it is what the shop sells them for
    of_points = round(deferred(sales.net, sales.net, sales.points, float(price), rate))
    revenue = recognised(of_points, sales.redeemed, sales.redeemed + round(expected))
    amounts = {"goods": sales.net - of_points, "deferred": of_points, "recognised": revenue}
    return row | amounts | {"liability": of_points - revenue}


def _sum(values: Any) -> Any:
    """Return the sum; None where a value is unknown."""
    known = list(values)
    return None if None in known else sum(known)


def _sales(of: Frame) -> dict[str, Sales]:
    """Return the orders that brought points by the period of the order."""
    found: dict[str, Sales] = {}
    for start, orders, net, points in of.rows(
        f"""
        WITH {_SOLD}, of_order AS (
            SELECT occurred_at, net, sum(amount) AS points FROM sold GROUP BY shard, seq, occurred_at, net
        )
        SELECT {of.period("occurred_at")}, count(*), sum(net), sum(points) FROM of_order GROUP BY 1
        """
    ):
        found[of.name(start)] = Sales(orders, int(net), int(points))

    for start, age, redeemed, outstanding in of.rows(
        f"""
        WITH {_SOLD}
        SELECT {of.period("s.occurred_at")}, {of.day("%(cut)s")} - {of.day("s.granted_at")},
               sum({BURNED}), sum({_OUTSTANDING})
        FROM sold s JOIN guerdon.reward_event e ON e.shard = s.shard AND coalesce(e.lot, e.reward_key) = s.lot
        WHERE {MOVES} AND e.unit = %(unit)s GROUP BY 1, 2
        """
    ):
        sales = found[of.name(start)]
        sales.redeemed += int(redeemed)
        sales.outstanding[age] = int(outstanding)
    return found
