"""Hold the distributions against scipy's, which shares no code with them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import special, stats

from operations.report.arithmetic.distributions import (
    beta_regularised,
    chi2_sf,
    gamma_upper,
    normal_quantile,
    t_quantile,
    t_sf,
)

DEGREES = st.floats(0.5, 1e7)
CLOSE = 1e-9
TINY = 1e-300
"""The probability below which only the order of magnitude counts, and nobody reads even that."""


@given(t=st.floats(-60, 60), df=DEGREES)
@example(t=4.0, df=2644.0)
def test_the_tail_of_students_t_is_scipys(t: float, df: float) -> None:
    assert t_sf(t, df) == pytest.approx(stats.t.sf(t, df), rel=CLOSE, abs=TINY)


@given(p=st.floats(1e-6, 1 - 1e-6), df=DEGREES)
def test_a_quantile_of_students_t_has_its_probability_below_it(p: float, df: float) -> None:
    assert t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-8, abs=1e-12)


@given(x=st.floats(0, 1000), df=st.integers(1, 500))
def test_the_tail_of_chi_squared_is_scipys(x: float, df: int) -> None:
    assert chi2_sf(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=CLOSE, abs=1e-15)


@given(x=st.floats(0, 1), a=st.floats(0.1, 5000), b=st.floats(0.1, 5000))
def test_the_incomplete_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert beta_regularised(x, a, b, rest=1 - x) == pytest.approx(special.betainc(a, b, x), rel=1e-8, abs=1e-12)


@given(s=st.floats(0.1, 5000), x=st.floats(1e-6, 10_000))
def test_the_incomplete_gamma_function_is_scipys(s: float, x: float) -> None:
    assert gamma_upper(s, x) == pytest.approx(special.gammaincc(s, x), rel=CLOSE, abs=1e-12)


@given(st.floats(1e-9, 1 - 1e-9))
def test_normal_quantiles_are_scipys(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=CLOSE, abs=1e-12)


@pytest.mark.parametrize("df", [5, 50, 500, 1990, 2010, 2644, 1e4, 1e5, 1e6, 1e7])
def test_every_tail_that_an_experiment_reads_keeps_its_digits(df: float) -> None:
    ts = [step / 20 for step in range(1, 140)]
    assert [t_sf(t, df) for t in ts] == pytest.approx([stats.t.sf(t, df) for t in ts], rel=3e-9)


@pytest.mark.parametrize("df", [1e4, 1e6, 1e8])
def test_a_million_members_cost_no_digits(df: float) -> None:
    assert t_quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-13)


def test_the_ends_are_probabilities_themselves() -> None:
    assert chi2_sf(0, 3) == 1
    assert (t_sf(0, 5), t_quantile(0.5, 5)) == (0.5, 0)
    assert (beta_regularised(0, 2, 3, rest=1), beta_regularised(1, 2, 3, rest=0)) == (0, 1)


def test_a_quantile_that_no_float_holds_is_an_error_and_no_endless_loop() -> None:
    with pytest.raises(ArithmeticError, match="no float holds"):
        t_quantile(0.999999, 0.01)
