from __future__ import annotations

import math

import pytest

from operations.report.arithmetic.always_valid import (
    difference_seen,
    half_width,
    members_needed,
    mixing_parameter,
    scale_of,
)
from operations.report.arithmetic.comparison import welch
from tests.operations.report.arithmetic.test_arms import arm

PLANNED = 20_000
SCALE = 4.0
"""The scale of a metric with a standard deviation of 1 and arms of equal size: N · (1/(N/2) + 1/(N/2))."""


def width_over_fixed(members: int) -> float:
    rho = mixing_parameter(PLANNED, SCALE)
    width = half_width(SCALE, members, rho)
    assert width is not None
    return width / (1.959963984540054 * math.sqrt(SCALE / members))


def test_the_price_of_looking_at_any_time() -> None:
    assert round(width_over_fixed(PLANNED), 2) == 1.55
    assert round(width_over_fixed(PLANNED // 5), 2) == 1.72
    assert round(width_over_fixed(PLANNED // 10), 2) == 1.97


def test_the_mixing_parameter_by_hand() -> None:
    evidence = 2 * math.log(20)
    assert mixing_parameter(PLANNED, SCALE) == pytest.approx(80_000 / (evidence + math.log(1 + evidence)))


def test_the_interval_is_tightest_around_the_planned_size() -> None:
    width = half_width(SCALE, PLANNED, mixing_parameter(PLANNED, SCALE))
    others = [
        half_width(SCALE, PLANNED, mixing_parameter(planned, SCALE)) for planned in (2_000, 8_000, 50_000, 200_000)
    ]
    assert width is not None
    assert all(other is not None and width < other * 1.001 for other in others)


def test_the_scale_of_a_difference_hardly_depends_on_the_members() -> None:
    few, many = welch(arm([1, 2, 3, 4] * 10), arm([2, 3] * 20)), welch(arm([1, 2, 3, 4] * 1000), arm([2, 3] * 2000))
    assert few is not None
    assert many is not None
    assert scale_of(few, 80) == pytest.approx(scale_of(many, 8000), rel=0.03)


def test_without_variance_there_is_no_interval() -> None:
    assert half_width(0.0, 400, mixing_parameter(PLANNED, 0.0)) is None


def test_the_planned_size_by_the_usual_rule() -> None:
    # 16 standard deviations squared over the difference squared, the rule of thumb for 80 % at 5 %
    assert members_needed(sigma=10, delta=1) == 1570
    assert members_needed(sigma=10, delta=0) is None
    assert difference_seen(sigma=10, members=1570) == pytest.approx(1, rel=1e-3)
