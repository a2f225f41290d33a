"""Compute the distributions that reports test by: normal, Student's t and chi-squared, with the standard library alone.

Sources: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.4 to 26.7; Numerical Recipes, 6.2 and 6.4
(modified Lentz's method for continued fractions). Probabilities agree with scipy's to nine digits and more.
"""

from __future__ import annotations

from math import exp, inf, lgamma, log, log1p, pi
from statistics import NormalDist

EPSILON = 1e-15
STEPS_MAX = 100_000
"""The most terms of a series or a continued fraction; they need about the square root of the degrees of freedom."""

_TINY = 1e-300
_NORMAL = NormalDist()


def normal_quantile(p: float) -> float:
    """Return the value below which a standard normal variable lies with probability `p`, 0 < p < 1."""
    return _NORMAL.inv_cdf(p)


def chi2_sf(x: float, df: int) -> float:
    """Return the probability that a chi-squared variable of `df` degrees of freedom exceeds `x`.

    Raises:
        ArithmeticError: the series does not converge, as beyond some hundred million degrees.
    """
    half = x / 2
    return gamma_upper(df / 2, half) if half > 0 else 1.0


def t_sf(t: float, df: float) -> float:
    """Return the probability that Student's t of `df` degrees of freedom, any positive number, exceeds `t`.

    Raises:
        ArithmeticError: as `beta_regularised`.
    """
    square = t * t
    tail = beta_regularised(df / (df + square), df / 2, 0.5, rest=square / (df + square)) / 2
    return tail if t >= 0 else 1 - tail


def t_quantile(p: float, df: float) -> float:
    """Return the value below which Student's t of `df` degrees of freedom lies with probability `p`, 0 < p < 1.

    Raises:
        ArithmeticError: the value is beyond what a float can hold, or as `beta_regularised`.
    """
    if p < 0.5:
        return -t_quantile(1 - p, df)

    # Newton's steps: the normal quantile lies below, and the tail is convex, so they come closer from below
    t = normal_quantile(p)
    front = -_log_beta(df / 2, 0.5) - log(df) / 2
    for _ in range(STEPS_MAX):
        density = exp(front - (df + 1) / 2 * log1p(t * t / df))
        step = (t_sf(t, df) - (1 - p)) / density if density else inf
        if step <= EPSILON * t:
            return t
        t += step
        if t > 1e150:
            break
    raise ArithmeticError(f"no float holds the quantile {p} of Student's t with {df} degrees of freedom")


def beta_regularised(x: float, a: float, b: float, *, rest: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for 0 <= x <= 1 and positive a, b.

    `rest` is 1 - x, which its caller knows to more digits where x is close to 1.

    Raises:
        ArithmeticError: the continued fraction does not converge, as for parameters beyond some thousand million.
    """
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0

    log_x = log(x) if x < 0.5 else log1p(-rest)
    log_rest = log(rest) if rest < 0.5 else log1p(-x)
    front = exp(a * log_x + b * log_rest - _log_beta(a, b))

    # the fraction converges fast on one side of the mean; close to 1 its denominators would lose their digits
    if x < (a + 1) / (a + b + 2) and (a < 1000 or rest * a > 4):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(rest, b, a) / b


def _log_beta(a: float, b: float) -> float:
    """Return the logarithm of the beta function, to 14 digits also for Student's t of a million degrees."""
    if b == 0.5 and a > 100:
        # the difference of two large logarithms would lose the digits that this series keeps
        return log(pi / a) / 2 + 1 / (8 * a) - 1 / (192 * a**3) + 1 / (640 * a**5)
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    c, value = 1.0, d
    for m in range(1, STEPS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / _not_zero(1 + even * d), _not_zero(1 + even / c)
        value *= d * c

        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / _not_zero(1 + odd * d), _not_zero(1 + odd / c)
        value *= d * c
        if abs(d * c - 1) < EPSILON:
            return value
    raise ArithmeticError(f"the incomplete beta function does not converge at {x}, {a}, {b}")


def gamma_upper(s: float, x: float) -> float:
    """Return the regularised upper incomplete gamma function Q(s, x) for positive s and x.

    Raises:
        ArithmeticError: neither the series nor the continued fraction converges.
    """
    front = exp(s * log(x) - x - lgamma(s))
    return 1 - front * _gamma_series(s, x) if x < s + 1 else front * _gamma_fraction(s, x)


def _gamma_series(s: float, x: float) -> float:
    term = total = 1 / s
    for n in range(1, STEPS_MAX):
        term *= x / (s + n)
        total += term
        if term < total * EPSILON:
            return total
    raise ArithmeticError(f"the incomplete gamma function does not converge at {s}, {x}")


def _gamma_fraction(s: float, x: float) -> float:
    b = x + 1 - s
    c, d = 1 / _TINY, 1 / b
    value = d
    for n in range(1, STEPS_MAX):
        numerator = -n * (n - s)
        b += 2
        d, c = 1 / _not_zero(numerator * d + b), _not_zero(b + numerator / c)
        value *= d * c
        if abs(d * c - 1) < EPSILON:
            return value
    raise ArithmeticError(f"the incomplete gamma function does not converge at {s}, {x}")


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
