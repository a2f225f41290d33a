from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize, stats

from operations.report.arithmetic.arms import Arm
from operations.report.arithmetic.comparison import compare_ratios, cuped, fieller, holm, lift, welch
from tests.operations.report.arithmetic.test_arms import arm

AMOUNTS = st.lists(st.integers(0, 10**7), min_size=2, max_size=60)
CLOSE = 1e-9


@given(AMOUNTS, AMOUNTS)
def test_welchs_test_is_scipys(treated: list[int], control: list[int]) -> None:
    assume(len({*treated}) > 1 or len({*control}) > 1)
    found = welch(arm(treated), arm(control))
    oracle = stats.ttest_ind(treated, control, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert found is not None
    assert found.df == pytest.approx(oracle.df, rel=CLOSE)
    assert found.t == pytest.approx(oracle.statistic, rel=CLOSE, abs=1e-9)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-7, abs=1e-15)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-3)


def test_without_variance_there_is_a_difference_and_no_interval() -> None:
    found = welch(arm([5, 5, 5]), arm([3, 3]))
    assert found is not None
    assert (found.difference, found.se) == (2, 0)
    assert (found.df, found.low, found.high, found.t, found.p) == (None,) * 5


@pytest.mark.parametrize(("treated", "control"), [*product(([], [7], [7, 9]), repeat=2)])
def test_an_arm_below_two_members_says_nothing(treated: list[int], control: list[int]) -> None:
    arms = arm(treated), arm(control)
    is_enough = len(treated) == len(control) == 2
    assert (welch(*arms) is not None) == is_enough
    assert (cuped(*arms) is not None) == is_enough
    assert (lift(*arms) is not None) == is_enough


def test_the_lift_has_the_variance_of_the_delta_method() -> None:
    treated, control = arm([12, 14, 10, 16]), arm([10, 8, 12, 10, 10])
    found = lift(treated, control)
    mean_t, mean_c = 13, 10
    by_hand = 2 / 5 * mean_t**2 / mean_c**4 + 20 / 3 / 4 / mean_c**2
    assert found is not None
    assert found.lift == pytest.approx(0.3)
    assert found.se == pytest.approx(by_hand**0.5)
    assert found.high - found.low == pytest.approx(2 * 1.959963984540054 * by_hand**0.5)


def test_there_is_no_lift_over_nothing_and_none_over_a_loss() -> None:
    assert lift(arm([1, 2]), arm([0, 0])) is None
    assert lift(arm([1, 2]), arm([-4, -6])) is None
    assert lift(arm([3, 3]), arm([2, 2])) is None


def test_what_the_time_before_explains_is_taken_out_whole() -> None:
    x_t, x_c = [10, 20, 30, 40], [12, 22, 28]
    found = cuped(arm([2 * each + 5 for each in x_t], x_t), arm([2 * each for each in x_c], x_c))
    assert found is not None
    assert found.theta == pytest.approx(2)
    assert found.effect.difference == pytest.approx(5)
    assert found.effect.se == pytest.approx(0, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)), min_size=4, max_size=40))
def test_theta_is_the_slope_within_the_arms(members: list[tuple[int, int]]) -> None:
    half = len(members) // 2
    arms = [members[:half], members[half:]]
    treated, control = (arm([y for y, _ in each], [x for _, x in each]) for each in arms)
    found = cuped(treated, control)
    centred = [
        (x - sum(x for _, x in each) / len(each), y - sum(y for y, _ in each) / len(each))
        for each in arms
        for y, x in each
    ]
    spread = sum(x * x for x, _ in centred)
    assume(spread > 1e-6)
    assert found is not None
    assert found.theta == pytest.approx(sum(x * y for x, y in centred) / spread, rel=1e-6, abs=1e-6)


def test_without_a_time_before_the_effect_is_welchs() -> None:
    treated, control = arm([12, 14, 10, 16]), arm([10, 8, 12, 10, 10])
    found = cuped(treated, control)
    assert found is not None
    assert found.theta == 0
    assert found.effect == welch(treated, control)


def test_a_ratio_of_sums_is_no_mean_of_ratios() -> None:
    # members' amounts and orders: 30 of 3, 10 of 1, 25 of 2 against 8 of 1, 16 of 2
    treated, control = arm([30, 10, 25], [3, 1, 2]), arm([8, 16], [1, 2])
    found = compare_ratios(treated, control)
    ratio = 65 / 6
    residuals = [y - ratio * x for y, x in ((30, 3), (10, 1), (25, 2))]
    by_hand = sum(each * each for each in residuals) / 2 / (3 * 2**2)
    assert found is not None
    assert found.difference == pytest.approx(ratio - 8)
    assert found.se == pytest.approx(by_hand**0.5)


@pytest.mark.parametrize("control", [[], [5], [5, 6]])
def test_a_ratio_to_nothing_says_nothing(control: list[int]) -> None:
    assert compare_ratios(arm([30, 10], [3, 1]), arm(control)) is None


def test_one_arm_may_be_without_variance() -> None:
    found = welch(arm([1, 2, 3]), arm([5, 5]))
    assert found is not None
    assert found.df == pytest.approx(2)


def test_holms_method_adjusts_by_rank_and_keeps_the_order() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def slow_fieller(u: np.ndarray[Any, Any], c: np.ndarray[Any, Any], v: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the ratios at which a t-test of u - r c against v stands at the edge, found by bisection."""
    ratio = (u.mean() - v.mean()) / c.mean()
    at_ratio = stats.ttest_ind(u - ratio * c + v.mean(), v, equal_var=False)
    edge = stats.t.ppf(0.975, at_ratio.df)

    def beyond(r: float) -> float:
        return float(abs(stats.ttest_ind(u - r * c, v, equal_var=False).statistic) - edge)

    wide = 1.0
    while beyond(ratio - wide) < 0 or beyond(ratio + wide) < 0:
        wide *= 2
    return optimize.brentq(beyond, ratio - wide, ratio), optimize.brentq(beyond, ratio, ratio + wide)


@pytest.mark.parametrize("seed", range(5))
def test_fiellers_interval_ends_where_a_t_test_of_the_rest_does(seed: int) -> None:
    chance = np.random.default_rng(seed)
    c = chance.integers(0, 400, 300)
    u, v = chance.integers(0, 9_000, 300) + 2 * c, chance.integers(0, 9_000, 200)
    found = fieller(arm(u.tolist(), c.tolist()), arm(v.tolist()))
    assert found is not None
    assert tuple(found) == pytest.approx(slow_fieller(u, c, v), rel=1e-6)


def test_fiellers_interval_over_a_cost_that_is_the_same_for_all_is_welchs_over_it() -> None:
    treated, control = [12, 14, 10, 16], [10, 8, 12, 10, 10]
    effect, found = welch(arm(treated), arm(control)), fieller(arm(treated, [4] * 4), arm(control))
    assert effect is not None
    assert found is not None
    assert found == pytest.approx((effect.low / 4, effect.high / 4))  # type: ignore[operator]  # both are numbers


def test_fiellers_interval_holds_the_true_ratio_nineteen_times_of_twenty() -> None:
    """The true ratio is 500 ÷ 100 = 5; the cost of a member varies with what they buy."""
    chance = np.random.default_rng(16)
    held = 0
    for _ in range(1_000):
        cost = chance.exponential(100, 150)
        found = fieller(
            arm((3 * cost + chance.exponential(1_200, 150)).tolist(), cost.tolist()),
            arm(chance.exponential(1_000, 150).tolist()),
        )
        assert found is not None
        held += found.low < 5 < found.high
    assert 930 <= held <= 970


def test_a_cost_that_may_be_nothing_bounds_no_ratio() -> None:
    assert fieller(arm([9, 7, 8, 6], [40, 0, 0, 0]), arm([5, 6, 4])) is None
    assert fieller(arm([9, 7, 8, 6]), arm([5, 6, 4])) is None
    assert fieller(arm([9], [1]), arm([5, 6, 4])) is None
    assert fieller(arm([9, 9], [1, 1]), arm([5, 5])) is None


def test_a_variance_that_rounding_makes_negative_is_none_at_all() -> None:
    assert Arm(n=3, sum_y=0.3, sum_y2=0.03 - 1e-17).var_y() == 0
