"""The vintages with nothing outstanding say which part of points is redeemed in the end."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

from operations.report.redemption.vintages import RunOff, Vintage, run_off

OPEN = Vintage(date(2026, 1, 1), issued=1_000, redeemed=380)
OLD = Vintage(date(2025, 1, 1), issued=540, reversed=30, settled=10, redeemed=300, expired=150, erased=50)
OLDER = Vintage(date(2024, 1, 1), issued=300, redeemed=120, expired=180)


def test_only_vintages_with_nothing_outstanding_have_run_off() -> None:
    assert run_off((OPEN, OLD, OLDER)) == RunOff(vintages=2, earned=800, redeemed=420, expired=330)
    assert run_off((OPEN, OLD, OLDER)).rate == Fraction(420, 800)


def test_without_points_that_have_run_off_there_is_no_rate() -> None:
    assert run_off((OPEN,)) == RunOff(0, 0, 0, 0)
    assert run_off((OPEN,)).rate is None
    assert run_off((Vintage(date(2026, 1, 1), issued=5, reversed=5),)).rate is None
