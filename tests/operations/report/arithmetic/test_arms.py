from __future__ import annotations

from statistics import covariance, mean, variance

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from operations.report.arithmetic.arms import Arm, srm

AMOUNTS = st.integers(0, 10**9)


def arm(y: list[int], x: list[int] | None = None) -> Arm:
    """Return the sums of an arm, each member of which has an amount since entering and one before."""
    x = x or [0] * len(y)
    return Arm(
        n=len(y),
        sum_y=sum(y),
        sum_y2=sum(each * each for each in y),
        sum_x=sum(x),
        sum_x2=sum(each * each for each in x),
        sum_xy=sum(of_x * of_y for of_x, of_y in zip(x, y, strict=True)),
    )


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=2))
def test_sums_say_what_the_members_say(members: list[tuple[int, int]]) -> None:
    y, x = [each for each, _ in members], [each for _, each in members]
    sums = arm(y, x)
    assert sums.mean_y == pytest.approx(mean(y))
    assert sums.mean_x == pytest.approx(mean(x))
    assert sums.var_y() == pytest.approx(variance(y), rel=1e-12, abs=1e-12)
    assert sums.var_x() == pytest.approx(variance(x), rel=1e-12, abs=1e-12)
    assert sums.cov() == pytest.approx(covariance(x, y), rel=1e-9, abs=1)


def test_great_amounts_with_a_small_spread_keep_their_variance() -> None:
    y = [10**15 + each for each in (1, 2, 3)]
    assert arm(y).var_y() == 1


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 9_999))
def test_the_check_of_sizes_is_scipys(treated: int, control: int, treat: int) -> None:
    found = srm((treated, control), (treat, 10_000 - treat))
    if not treated + control:
        assert found is None
        return
    total = treated + control
    expected = [total * treat / 10_000, total * (10_000 - treat) / 10_000]
    oracle = stats.chisquare([treated, control], expected)
    assert found is not None
    assert found.chi2 == pytest.approx(oracle.statistic, rel=1e-9, abs=1e-9)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-14)
    assert found.alarm == (found.p < 0.001)
    assert found.df == 1
    assert found.deviation_points == pytest.approx(100 * (treated / total - treat / 10_000))


def test_ten_points_of_a_thousand_members_alarm_and_three_do_not() -> None:
    wrong, right = srm((600, 400), (1, 1)), srm((515, 485), (1, 1))
    assert wrong is not None
    assert right is not None
    assert (wrong.alarm, right.alarm) == (True, False)
    assert [wrong.chi2, right.chi2] == pytest.approx([40, 0.9])
    assert wrong.deviation_points == pytest.approx(10)


def test_members_in_an_arm_of_nothing_are_a_leak() -> None:
    leak = srm((990, 10), (10_000, 0))
    assert leak is not None
    assert (leak.chi2, leak.p, leak.alarm, leak.p_every_look) == (None, 0, True, 0)


def test_an_arm_of_nothing_without_members_is_as_intended() -> None:
    for counts, weights in [((1_000, 0), (10_000, 0)), ((0, 1_000), (0, 10_000))]:
        found = srm(counts, weights)
        assert found is not None
        assert (found.chi2, found.p, found.alarm, found.p_every_look) == (0, 1, False, 1)


def test_the_check_of_every_look_is_the_bayes_factor_of_a_dirichlet_prior() -> None:
    counts, weights = (5_400, 4_600), (0.5, 0.5)
    found = srm(counts, weights)
    assert found is not None
    drawn = stats.dirichlet_multinomial.logpmf(counts, [5_000, 5_000], 10_000)
    exact = stats.multinomial.logpmf(counts, 10_000, weights)
    assert found.p_every_look == pytest.approx(2.718281828459045 ** -(drawn - exact), rel=1e-6)
    assert found.p_every_look < 0.001
