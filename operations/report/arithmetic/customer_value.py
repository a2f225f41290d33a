"""Predict what customers will buy: BG/NBD says how often, Gamma-Gamma for how much.

A customer's history is `x`, the days with an order less one; `t_x`, the time from the first of them to the last; and
`age`, the time from the first to now. Times are in any one unit, and orders in any one money. Sources: Fader, Hardie
and Lee, "Counting Your Customers" the Easy Way, Marketing Science 24 (2005); Fader and Hardie, The Gamma-Gamma Model of
Monetary Value (2013). `customer_fit` finds the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log, log1p

TERMS_MAX = 1_000_000
"""The most terms of the hypergeometric series: it needs about 40 ÷ (1 - z)."""


@dataclass(frozen=True, slots=True)
class BgNbd:
    """Hold the parameters of a population: it buys by a gamma distribution (r, alpha), and leaves by a beta (a, b).

    All are above 0; alpha is in the unit of time.
    """

    r: float
    alpha: float
    a: float
    b: float

    def log_likelihood(self, x: int, t_x: float, age: float) -> float:
        """Return the logarithm of a history's likelihood."""
        r, alpha, a, b = self.r, self.alpha, self.a, self.b
        common = lgamma(r + x) - lgamma(r) + r * log(alpha) + _log_beta(a, b + x) - _log_beta(a, b)
        active = common - (r + x) * log(alpha + age)
        if not x:
            return active

        # the sum of both ways in logarithms, the greater one first
        gone = common + log(a / (b + x - 1)) - (r + x) * log(alpha + t_x)
        return max(active, gone) + log1p(exp(-abs(active - gone)))

    def alive(self, x: int, t_x: float, age: float) -> float:
        """Return the probability that a customer will buy again; 1 after a single order, as the model has it."""
        if not x:
            return 1.0
        odds = log(self.a / (self.b + x - 1)) + (self.r + x) * log((self.alpha + age) / (self.alpha + t_x))
        return 1 / (1 + exp(odds)) if odds < 0 else exp(-odds) / (1 + exp(-odds))

    def expected_days(self, x: int, t_x: float, age: float, ahead: float) -> float:
        """Return how many days with an order are expected within the time `ahead` from now.

        Raises:
            ArithmeticError: the series does not converge, as `ahead` is a million times longer than all before it.
        """
        r, b = self.r, self.b
        a = self.a if abs(self.a - 1) > 1e-6 else 1 + 1e-6  # the formula divides by a - 1; the mean does not jump there
        z, c = ahead / (self.alpha + age + ahead), a + b + x - 1

        # of the published series and Euler's transformation of it, the one whose terms stay small: the latter for
        # customers with hundreds of orders, the former for a population that hardly leaves
        if abs((a + b - 1 - r) * (a - 1)) < (r + x) * (b + x):
            series: float = (1 - z) ** (a - 1) * hyp2f1(a + b - 1 - r, a - 1, c, z)
        else:
            series = (1 - z) ** (r + x) * hyp2f1(r + x, b + x, c, z)
        return c / (a - 1) * (1 - series) * self.alive(x, t_x, age)


@dataclass(frozen=True, slots=True)
class GammaGamma:
    """Hold how the mean order of customers is spread; all parameters are above 0, and gamma is in money."""

    p: float
    q: float
    gamma: float

    def log_likelihood(self, x: int, mean: float) -> float:
        """Return the logarithm of the likelihood of `mean`, above 0, over `x` orders, 1 and more."""
        p, q, gamma = self.p * x, self.q, self.gamma
        return (
            lgamma(p + q) - lgamma(p) - lgamma(q)
            + q * log(gamma) + (p - 1) * log(mean) + p * log(x) - (p + q) * log(gamma + x * mean)
        )  # fmt: skip

    @property
    def mean(self) -> float | None:
        """Return the mean order of the population; None for q up to 1, where it has no bound."""
        return self.p * self.gamma / (self.q - 1) if self.q > 1 else None

    def expected_order(self, x: int, mean: float) -> float | None:
        """Return a customer's expected order from the mean of `x` orders; None where it has no bound."""
        weight = self.p * x + self.q - 1
        return self.p * (self.gamma + x * mean) / weight if weight > 0 else None


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def hyp2f1(a: float, b: float, c: float, z: float) -> float:
    """Return Gauss' hypergeometric function for c > 0 and 0 <= z < 1 by its series (Abramowitz and Stegun 15.1.1).

    Raises:
        ArithmeticError: the series does not converge, as z is too close to 1.
    """
    term = total = 1.0
    for n in range(TERMS_MAX):
        term *= (a + n) * (b + n) / ((c + n) * (n + 1)) * z
        total += term
        if abs(term) <= abs(total) * 1e-17:
            return total
    raise ArithmeticError(f"the hypergeometric series does not converge at {a}, {b}, {c}, {z}")
