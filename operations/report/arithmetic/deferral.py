"""Split a price between goods and points, and recognise what belongs to points as they are redeemed.

Sources: IFRS 15 B39 to B47 with example 52; ASC 606-10-55-41 to 55-49; KPMG, Revenue: Handbook, examples 10A and 10B.
The auditor decides; these are the formulas. Amounts are whole units of money, such as cents.
"""

from __future__ import annotations


def deferred(price: int, goods: int, points: int, price_per_point: float, rate: float) -> float:
    """Return the part of a price that belongs to points, in proportion to what both would cost alone.

    Args:
        price: that the customer paid.
        goods: what the goods would cost alone.
        points: granted with them.
        price_per_point: what a point would cost alone.
        rate: rho, the part of the points that is expected to be redeemed.
    """
    alone = points * price_per_point * rate
    return price * alone / (goods + alone) if alone else 0.0


def recognised(deferred: int, redeemed: int, expected: int) -> int:
    """Return the revenue recognised so far of what was deferred, rounded to the nearest unit, halves up.

    A changed estimate changes the whole sum at once (cumulative catch-up), and no more than `deferred` is recognised.

    Args:
        deferred: for all the points.
        redeemed: points redeemed so far.
        expected: points expected to be redeemed in the end; where it is 0, all is recognised.
    """
    if redeemed >= expected:
        return deferred
    return (2 * deferred * redeemed + expected) // (2 * expected)
