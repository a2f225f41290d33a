"""Hold the deferral of revenue against the numbers that standards and handbooks publish."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations.report.arithmetic.deferral import deferred, recognised


class Step(NamedTuple):
    """Hold one date: points redeemed so far, points expected in the end, and the revenue of the time since the last."""

    redeemed: int
    expected: int
    revenue: int


CASES = {
    "sales of 7,200,000": (
        720_000, [Step(4_000, 8_000, 360_000), Step(8_100, 9_000, 288_000), Step(9_000, 9_000, 72_000)],
    ),
    "KPMG 10A": (9_000, [Step(4_500, 9_700, 4_175), Step(8_500, 9_900, 3_552)]),
    "KPMG 10B": (9_000, [Step(4_500, 9_700, 4_175), Step(8_500, 9_200, 4_140)]),
    "IFRS 15 example 52": (8_676, [Step(4_500, 9_500, 4_110), Step(8_500, 9_700, 3_493)]),
}  # fmt: skip
LEFT = {"sales of 7,200,000": 0, "KPMG 10A": 1_273, "KPMG 10B": 685, "IFRS 15 example 52": 1_073}


@pytest.mark.parametrize("case", CASES)
def test_revenue_is_recognised_as_published(case: str) -> None:
    total, steps = CASES[case]
    sums = [0, *(recognised(total, step.redeemed, step.expected) for step in steps)]
    assert [later - earlier for earlier, later in pairwise(sums)] == [step.revenue for step in steps]
    assert total - sums[-1] == LEFT[case]


def test_a_price_is_split_as_published() -> None:
    assert deferred(7_200_000, 7_200_000, 10_000, 100, 0.8) == 720_000
    points = deferred(100_000, 100_000, 10_000, 1, 0.95)
    assert (round(100_000 - points), round(points)) == (91_324, 8_676)


def test_points_that_nobody_redeems_defer_nothing() -> None:
    assert deferred(1_000, 1_000, 50, 10, 0) == 0
    assert deferred(1_000, 0, 50, 10, 0) == 0
    assert recognised(900, 0, 0) == 900


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_more_is_recognised_than_was_deferred(total: int, redeemed: int, expected: int) -> None:
    assert 0 <= recognised(total, redeemed, expected) <= total
