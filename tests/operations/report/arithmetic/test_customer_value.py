from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from operations.report.arithmetic.customer_fit import History, Spending, fit_bgnbd, fit_gamma_gamma
from operations.report.arithmetic.customer_value import BgNbd, GammaGamma, hyp2f1
from schemas.errors import InputError

PUBLISHED = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)
"""The CDNOW customers of Fader, Hardie and Lee, in weeks."""

SPENDING = GammaGamma(p=6.25, q=3.74, gamma=15.44)
SHAPES = st.floats(0.05, 20)


def test_the_published_customer_has_the_published_expectation() -> None:
    assert round(PUBLISHED.expected_days(2, 30.43, 38.86, 39), 3) == 1.226
    assert round(PUBLISHED.alive(2, 30.43, 38.86), 3) == 0.727


def test_the_published_spending_has_the_published_mean() -> None:
    assert SPENDING.mean is not None
    assert round(SPENDING.mean, 2) == 35.22
    expected = SPENDING.expected_order(5, 30)
    assert expected is not None
    assert round(expected, 2) == 30.42


def test_a_mean_without_bound_is_none() -> None:
    wild = GammaGamma(p=0.1, q=0.5, gamma=10)
    assert (wild.mean, wild.expected_order(1, 30)) == (None, None)
    assert wild.expected_order(6, 30) is not None


@given(x=st.integers(0, 60), parts=st.tuples(st.floats(0, 1), st.floats(0.1, 400)), shapes=st.tuples(*[SHAPES] * 4))
def test_the_likelihood_is_the_published_formula(x: int, parts: tuple[float, float], shapes: tuple[float, ...]) -> None:
    r, alpha, a, b = shapes
    age = parts[1]
    t_x = parts[0] * age if x else 0.0
    active = special.betaln(a, b + x) - (r + x) * math.log(alpha + age)
    gone = special.betaln(a + 1, b + x - 1) - (r + x) * math.log(alpha + t_x) if x else -math.inf
    common = special.gammaln(r + x) - special.gammaln(r) + r * math.log(alpha) - special.betaln(a, b)
    found = BgNbd(r, alpha, a, b).log_likelihood(x, t_x, age)
    assert found == pytest.approx(common + np.logaddexp(active, gone), rel=1e-9, abs=1e-9)


@given(x=st.integers(0, 60), parts=st.tuples(st.floats(0, 1), st.floats(1, 200)), ahead=st.floats(0, 200), a=SHAPES)
def test_the_expectation_is_the_published_formula(x: int, parts: tuple[float, float], ahead: float, a: float) -> None:
    if abs(a - 1) < 1e-3:
        a += 0.01  # the published formula divides by a - 1
    r, alpha, b, age = 0.8, 6.0, 2.5, parts[1]
    model, t_x = BgNbd(r, alpha, a, b), parts[0] * age if x else 0.0
    shrunk = ((alpha + age) / (alpha + age + ahead)) ** (r + x)
    series = special.hyp2f1(r + x, b + x, a + b + x - 1, ahead / (alpha + age + ahead))
    published = (a + b + x - 1) / (a - 1) * (1 - shrunk * series) * model.alive(x, t_x, age)
    assert model.expected_days(x, t_x, age, ahead) == pytest.approx(published, rel=1e-6, abs=1e-8)


def test_the_expectation_does_not_jump_where_its_formula_divides_by_nothing() -> None:
    around = [BgNbd(0.8, 6, a, 2.5).expected_days(3, 20, 30, 10) for a in (0.999, 1.0, 1.001)]
    assert around[0] > around[1] > around[2]
    assert around[1] == pytest.approx((around[0] + around[2]) / 2, rel=1e-5)


def test_a_customer_of_a_thousand_orders_overflows_nothing() -> None:
    expected = PUBLISHED.expected_days(1_000, 360, 365, 3_650)
    assert 0 < expected < 10_000
    assert 0 <= PUBLISHED.alive(1_000, 1, 3_650) < 1e-300


@pytest.mark.parametrize("x", [0, 3, 60, 300])
def test_a_population_that_hardly_leaves_buys_as_one_that_never_does(x: int) -> None:
    """With a and b this great every order is the last with a chance of 1 in 70: the fit of a year of groceries."""
    model = BgNbd(r=1.443, alpha=1.502, a=1.44e5, b=9.844e6)
    t_x, age, ahead = 0.9 * 39.0 if x else 0.0, 39.0, 13.0
    found = model.expected_days(x, t_x, age, ahead)
    leaves, rate = model.a / (model.a + model.b), (model.r + x) / (model.alpha + age)

    # the mean of (1 - exp(-leaves * rate * ahead)) / leaves over rates that are spread as a gamma distribution
    shrunk = ((model.alpha + age) / (model.alpha + age + leaves * ahead)) ** (model.r + x)
    assert found == pytest.approx((1 - shrunk) / leaves * model.alive(x, t_x, age), rel=1e-3)
    assert found < rate * ahead


@given(st.floats(-3, 30), st.floats(-3, 30), st.floats(0.1, 60), st.floats(0, 0.9))
def test_the_hypergeometric_series_is_scipys(a: float, b: float, c: float, z: float) -> None:
    oracle = special.hyp2f1(a, b, c, z)
    scale = hyp2f1(abs(a), abs(b), c, z)  # terms of both signs cancel
    assert hyp2f1(a, b, c, z) == pytest.approx(oracle, rel=1e-8, abs=1e-10 * scale)


def test_a_series_that_does_not_end_is_an_error() -> None:
    with pytest.raises(ArithmeticError, match="does not converge"):
        hyp2f1(2, 2, 1, 1 - 1e-9)


@given(st.integers(1, 100), st.floats(0.5, 5_000))
def test_the_likelihood_of_a_mean_is_a_density(x: int, mean: float) -> None:
    p, q, gamma = SPENDING.p * x, SPENDING.q, SPENDING.gamma
    published = -special.betaln(p, q) + q * math.log(gamma) + (p - 1) * math.log(mean)
    published += p * math.log(x) - (p + q) * math.log(gamma + x * mean)
    assert SPENDING.log_likelihood(x, mean) == pytest.approx(published, rel=1e-9, abs=1e-9)


def drawn(customers: int, seed: int) -> list[History]:
    """Return histories over 39 weeks of customers who buy and leave as the published ones do."""
    chance = np.random.default_rng(seed)
    histories = []
    for _ in range(customers):
        rate, leaves = chance.gamma(PUBLISHED.r, 1 / PUBLISHED.alpha), chance.beta(PUBLISHED.a, PUBLISHED.b)
        age, now, x, last = 39 - chance.uniform(0, 12), 0.0, 0, 0.0
        while (now := now + chance.exponential(1 / max(rate, 1e-12))) < age:
            x, last = x + 1, now
            if chance.uniform() < leaves:
                break
        histories.append(History(x, last, age))
    return histories


def test_a_fit_finds_at_least_the_likelihood_of_the_true_parameters() -> None:
    histories = drawn(3_000, seed=16)
    fit = fit_bgnbd(histories)
    truth = math.fsum(PUBLISHED.log_likelihood(each.x, each.t_x, each.age) for each in histories)
    assert fit is not None
    assert fit.identified
    assert truth <= fit.log_likelihood < truth + 10
    assert fit.log_likelihood == pytest.approx(
        math.fsum(fit.model.log_likelihood(each.x, each.t_x, each.age) for each in histories), abs=1e-6
    )
    for wrong in (0.98, 1.02):  # nothing beside it is likelier
        beside = BgNbd(fit.model.r * wrong, fit.model.alpha, fit.model.a, fit.model.b)
        assert math.fsum(beside.log_likelihood(e.x, e.t_x, e.age) for e in histories) < fit.log_likelihood


def test_customers_who_share_a_history_count_each() -> None:
    histories = [History(x, 3.0 * x, 30.0) for x in (0, 1, 2, 3, 5, 8) for _ in range(x + 3)]
    together = [History(x, 3.0 * x, 30.0, customers=x + 3) for x in (0, 1, 2, 3, 5, 8)]
    one_by_one, shared = fit_bgnbd(histories), fit_bgnbd(together)
    assert one_by_one is not None
    assert shared is not None
    assert shared.log_likelihood == pytest.approx(one_by_one.log_likelihood, abs=1e-3)


def test_customers_who_never_leave_decide_no_rate_of_leaving() -> None:
    fit = fit_bgnbd([History(x, 39.9, 40.0, customers=10) for x in (20, 25, 30)])
    assert fit is not None
    assert not fit.identified


def test_a_fit_of_spending_finds_the_parameters_it_was_drawn_with() -> None:
    chance = np.random.default_rng(16)
    spendings = []
    for _ in range(4_000):
        x, scale = int(chance.integers(1, 12)), chance.gamma(SPENDING.q, 1 / SPENDING.gamma)
        spendings.append(Spending(x, float(chance.gamma(SPENDING.p * x, 1 / (scale * x)))))
    fit = fit_gamma_gamma(spendings)
    truth = math.fsum(SPENDING.log_likelihood(each.x, each.mean) for each in spendings)
    assert fit is not None
    assert fit.identified
    assert truth <= fit.log_likelihood < truth + 10
    assert fit.model.mean == pytest.approx(35.22, rel=0.05)


def test_nobody_and_one_customer_have_an_answer() -> None:
    assert fit_bgnbd([]) is None
    assert fit_gamma_gamma([]) is None
    alone = fit_bgnbd([History(2, 10.0, 30.0)])
    assert alone is not None
    assert math.isfinite(alone.log_likelihood)
    spender = fit_gamma_gamma([Spending(2, 30.0)])
    assert spender is not None
    assert not spender.identified


@pytest.mark.parametrize("history", [History(1, 9.0, 8.0), History(1, -1.0, 8.0)])
def test_a_history_of_negative_time_is_refused(history: History) -> None:
    with pytest.raises(ValueError, match="ends before its last order"):
        fit_bgnbd([history])


@pytest.mark.parametrize("spending", [Spending(0, 9.0), Spending(2, 0.0), Spending(2, -3.0)])
def test_a_mean_of_nothing_is_refused(spending: Spending) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        fit_gamma_gamma([spending])


def test_without_scipy_a_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"pip install 'guerdon\[analytics\]'"):
        fit_bgnbd([History(1, 3.0, 8.0)])
