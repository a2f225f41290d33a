"""Find the parameters of BG/NBD and Gamma-Gamma under which the histories of all customers are likeliest.

This is the one place of the reports that needs scipy. A likelihood often has a flat ridge, and two programs must agree
on its height to 10⁻³. Searches of scipy from several starts do; one of our own would have to be as good. Over arrays a
history also costs 0.3 µs and not 0.8 µs, and a search looks at all of them some thousand times.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.arithmetic.customer_value import BgNbd, GammaGamma
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDENTIFIED = (1e-4, 1e4)
"""Parameters beyond these say that the histories do not decide them: another program may find others, as likely."""

_SEARCHED = (log(1e-7), log(1e7))
"""The bounds of the search, in logarithms."""


class History(NamedTuple):
    """Hold a history that some customers share: its days with an order less one, and its times."""

    x: int
    t_x: float
    age: float
    customers: int = 1


class Spending(NamedTuple):
    """Hold the mean of `x` days with orders, 1 and more, that some customers share; `mean` is above 0."""

    x: int
    mean: float
    customers: int = 1


class BgNbdFit(NamedTuple):
    """Hold the likeliest BG/NBD."""

    model: BgNbd
    log_likelihood: float
    identified: bool


class GammaGammaFit(NamedTuple):
    """Hold the likeliest Gamma-Gamma."""

    model: GammaGamma
    log_likelihood: float
    identified: bool


def fit_bgnbd(histories: Sequence[History]) -> BgNbdFit | None:
    """Return the BG/NBD under which the histories are likeliest; None without any.

    Raises:
        InputError: scipy is not installed.
        ValueError: a history ends before its last order.
    """
    if not histories:
        return None
    if any(not 0 <= each.t_x <= each.age for each in histories):
        raise ValueError("a history ends before its last order, or its last order lies before its first")

    numpy, _, special = arrays = _arrays()
    x, t_x, age, customers = numpy.array(histories, dtype=float).T
    lgamma, log_beta = special.gammaln, special.betaln

    def cost(logarithms: Any) -> float:
        r, alpha, a, b = numpy.exp(logarithms)
        common = lgamma(r + x) - lgamma(r) + r * log(alpha) + log_beta(a, b + x) - log_beta(a, b)
        active = -(r + x) * numpy.log(alpha + age)
        gone = numpy.where(
            x > 0, log(a) - numpy.log(numpy.maximum(b + x - 1, b)) - (r + x) * numpy.log(alpha + t_x), -numpy.inf
        )
        return -float(customers @ (common + numpy.logaddexp(active, gone)))

    # begin at rates of buying around the mean one, with customers who stay long and who leave soon
    pace = float((customers @ age) / (customers @ x + customers.sum())) or 1.0
    starts = [(1, pace, 1, 2), (0.3, 0.3 * pace, 0.5, 2), (4, 4 * pace, 0.1, 5)]
    parameters, likelihood = _likeliest(arrays, cost, starts)
    return BgNbdFit(BgNbd(*parameters), likelihood, _is_identified(parameters))


def fit_gamma_gamma(spendings: Sequence[Spending]) -> GammaGammaFit | None:
    """Return the Gamma-Gamma under which the customers' mean orders are likeliest; None without any.

    Raises:
        InputError: scipy is not installed.
        ValueError: a mean is not above 0, or is of no order.
    """
    if not spendings:
        return None
    if any(each.x < 1 or each.mean <= 0 for each in spendings):
        raise ValueError("a customer's mean order must be above 0, over one order and more")

    numpy, _, special = arrays = _arrays()
    x, mean, customers = numpy.array(spendings, dtype=float).T
    lgamma = special.gammaln

    def cost(logarithms: Any) -> float:
        p, q, gamma = numpy.exp(logarithms)
        likelihoods = (
            lgamma(p * x + q) - lgamma(p * x) - lgamma(q)
            + q * log(gamma) + (p * x - 1) * numpy.log(mean) + p * x * numpy.log(x)
            - (p * x + q) * numpy.log(gamma + x * mean)
        )  # fmt: skip
        return -float(customers @ likelihoods)

    # begin where the population's mean is the customers' one, spread widely and narrowly
    middle = float((customers @ mean) / customers.sum())
    starts = [(1, 3, 2 * middle), (6, 4, middle / 2), (2, 20, 9.5 * middle)]
    parameters, likelihood = _likeliest(arrays, cost, starts)
    return GammaGammaFit(GammaGamma(*parameters), likelihood, _is_identified(parameters))


class _Arrays(NamedTuple):
    """Hold numpy, and scipy's optimize and special."""

    numpy: Any
    optimize: Any
    special: Any


def _arrays() -> _Arrays:
    try:
        import numpy  # noqa: ICN001, PLC0415  an extra: only fits need it
        from scipy import optimize, special  # noqa: PLC0415  as above
    except ImportError:
        raise InputError("predictions of customers' value need scipy: pip install 'guerdon[analytics]'") from None
    return _Arrays(numpy, optimize, special)


class _Likeliest(NamedTuple):
    parameters: list[float]
    log_likelihood: float


def _likeliest(arrays: _Arrays, cost: Callable[[Any], float], starts: Sequence[tuple[float, ...]]) -> _Likeliest:
    """Return the parameters of least cost, searched by their logarithms from several starts."""
    numpy, optimize, _ = arrays
    bounds = [_SEARCHED] * len(starts[0])
    runs = [
        optimize.minimize(cost, numpy.log(start), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13})
        for start in starts
    ]
    best = min(runs, key=lambda run: run.fun)

    # its slopes are too coarse for flat ridges; a simplex around the best point needs none
    best = optimize.minimize(
        cost, best.x, method="Nelder-Mead", bounds=bounds, options={"fatol": 1e-6, "xatol": 1e-6, "maxfev": 4000}
    )
    return _Likeliest([float(each) for each in numpy.exp(best.x)], -float(best.fun))


def _is_identified(parameters: Sequence[float]) -> bool:
    low, high = IDENTIFIED
    return all(low <= each <= high for each in parameters)
