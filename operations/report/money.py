"""Say what points cost by the programme of a report."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from engine.programme.file.currencies import MINOR_DIGITS
from engine.store.cursor import one
from operations.replay.difference_sides import terms_in

if TYPE_CHECKING:
    from operations.report.frame import Frame


def cost_per_point(of: Frame) -> Fraction | None:
    """Return what a point costs, in minor units; None, with a note in the report, where the programme does not say."""
    (body,) = one(of.cursor, "SELECT body FROM guerdon.programme_version WHERE version = %s", (of.version,))
    cost = terms_in(body, None, of.currency).liability_per_point
    if cost is None:
        of.notes.append("what points cost is not known: the programme names no points.liability_per_point")
        return None
    minor_units: int = 10 ** MINOR_DIGITS[of.currency]
    return Fraction(cost) * minor_units
