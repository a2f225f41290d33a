"""Say what points cost and sell for, and what is left of sales, by the programme of a report; all in minor units."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operations.report.frame import Frame


def cost_per_point(of: Frame) -> Fraction | None:
    """Return what a point costs, in minor units; None, with a note in the report, where the programme does not say."""
    cost = of.programme.terms.points.liability_per_point
    if cost is None:
        of.notes.append("what points cost is not known: the programme names no points.liability_per_point")
    return cost


def cost_of(points: float | None, cost: Fraction | None) -> float | None:
    """Return what points cost; None where either is unknown."""
    return None if points is None or cost is None else float(Fraction(points) * cost)


def price_per_point(of: Frame) -> Fraction | None:
    """Return what a point sells for by itself; None where the programme names neither a price nor a cost."""
    return of.programme.terms.points.price


def margin(of: Frame) -> Fraction | None:
    """Return the share of net sales that the cost of goods leaves; None, with a note, where none is named."""
    share = of.programme.terms.margin
    if share is None:
        of.notes.append("the margin is not known: the programme names none, so there is revenue and no profit")
        return None
    return Fraction(*share)
