"""Predict how many days with an order customers will still bring, and how much on each; test it on the last quarter."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.programme.file.currencies import MINOR_DIGITS
from operations.report.arithmetic.customer_fit import History, Spending, fit_bgnbd, fit_gamma_gamma
from operations.report.orders import MEMBER_DAYS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from operations.report.arithmetic.customer_fit import BgNbdFit, GammaGammaFit
    from operations.report.frame import Frame

WEEK_DAYS = 7
HOLDOUT_WEEKS = 13
"""The quarter before the cut, on which the model is tested."""

CORRELATION_MAX = 0.3
"""Gamma-Gamma takes how often customers buy and how much they spend to be independent; beyond this they are not."""


class Buying(NamedTuple):
    """Hold what a number of customers did alike up to a day: when they bought first and last, and on how many days."""

    first: date
    last: date
    days: int
    customers: int
    held_out: int = 0
    """The days on which each of them bought after that day, up to the cut."""

    quarter_before: int = 0
    """The days on which each of them bought in the quarter that ends with that day."""

    @property
    def repeats(self) -> int:
        """Return the days with an order less the first one."""
        return self.days - 1

    def history(self, until: date) -> History:
        """Return the history as the model reads it, in weeks."""
        return History(
            self.repeats,
            (self.last - self.first).days / WEEK_DAYS,
            (until - self.first).days / WEEK_DAYS,
            self.customers,
        )


def predicted_value(of: Frame) -> dict[str, Any]:
    """Return the models of how often and how much customers buy, their likelihood, and their error on the last quarter.

    A day counts on which something is left of the orders. All days before the cut are read, whenever the report begins,
    as a model of half a history would take old customers for new ones.

    Raises:
        InputError: scipy is not installed.
    """
    buying = buying_until(of, of.cut_day)
    fit = fit_bgnbd([each.history(of.cut_day) for each in buying])
    return {
        "members": sum(each.customers for each in buying),
        "repeat_days": sum(each.customers * each.repeats for each in buying),
        "sum_tx_days": sum(each.customers * (each.last - each.first).days for each in buying),
        "sum_T_days": sum(each.customers * (of.cut_day - each.first).days for each in buying),
        "bgnbd": None if fit is None else asdict(fit.model),
        "identified": None if fit is None else fit.identified,
        "log_likelihood": None if fit is None else fit.log_likelihood,
        "p_alive_mean": None if fit is None else _alive_mean(fit, buying, of.cut_day),
        **_tested(of),
        **_spending(of),
    }


def buying_until(of: Frame, until: date) -> list[Buying]:
    """Return what customers who first bought before `until` did up to that day, and in the quarters around it."""
    rows = of.rows(
        f"""
        WITH {MEMBER_DAYS}, bought AS (
            SELECT shard, member_id, day FROM member_days WHERE net > 0
        ), customers AS (
            SELECT min(day) AS first, max(day) FILTER (WHERE day < %(until)s) AS last,
                   count(*) FILTER (WHERE day < %(until)s) AS days,
                   count(*) FILTER (WHERE day >= %(until)s) AS held_out,
                   count(*) FILTER (WHERE day < %(until)s AND day >= %(before)s) AS quarter_before
            FROM bought GROUP BY shard, member_id HAVING min(day) < %(until)s
        )
        SELECT first, last, days, count(*), held_out, quarter_before FROM customers
        GROUP BY first, last, days, held_out, quarter_before ORDER BY 1, 2, 3, 5, 6
        """,
        until=until,
        before=until - timedelta(weeks=HOLDOUT_WEEKS),
    )
    return [Buying(*row) for row in rows]


def spending(of: Frame) -> list[Spending]:
    """Return the mean spending a day, in major units, over the days after the first one, of customers who came back."""
    scale = 10 ** MINOR_DIGITS[of.currency]
    rows = of.rows(
        f"""
        WITH {MEMBER_DAYS}, bought AS (
            SELECT shard, member_id, day, net FROM member_days WHERE net > 0
        ), customers AS (
            SELECT count(*) - 1 AS repeats, sum(net) - (array_agg(net ORDER BY day))[1] AS spent
            FROM bought GROUP BY shard, member_id HAVING count(*) > 1
        )
        SELECT repeats, spent, count(*) FROM customers GROUP BY repeats, spent ORDER BY 1, 2
        """
    )
    return [Spending(repeats, int(spent) / scale / repeats, customers) for repeats, spent, customers in rows]


def _alive_mean(fit: BgNbdFit, buying: Sequence[Buying], until: date) -> float:
    """Return the mean probability that a customer will buy again."""
    alive = sum(each.customers * fit.model.alive(*each.history(until)[:3]) for each in buying)
    return alive / sum(each.customers for each in buying)


def _tested(of: Frame) -> dict[str, Any]:
    """Return what a model of all but the last quarter expects of it, beside what came and what the quarter before had.

    The errors are means over the customers who were there before the quarter, in days with an order.
    """
    until = of.cut_day - timedelta(weeks=HOLDOUT_WEEKS)
    buying = buying_until(of, until)
    fit = fit_bgnbd([each.history(until) for each in buying])
    actual: int | None = None
    expected = model_error = naive_error = None
    if fit is None:
        of.notes.append(
            f"nobody bought earlier than {HOLDOUT_WEEKS} weeks before the cut, so no prediction can be tested"
        )
    else:
        members = sum(each.customers for each in buying)
        actual = sum(each.customers * each.held_out for each in buying)
        naive_error = sum(each.customers * abs(each.quarter_before - each.held_out) for each in buying) / members
        expectations = _expectations(fit, buying, until)
        if expectations:
            pairs = list(zip(buying, expectations, strict=True))
            expected = sum(each.customers * days for each, days in pairs)
            model_error = sum(each.customers * abs(days - each.held_out) for each, days in pairs) / members
        else:
            of.notes.append("the parameters lie beyond those for which the expectation of the last quarter is computed")
    return {
        "holdout_weeks": HOLDOUT_WEEKS,
        "holdout_days_actual": actual,
        "holdout_days_expected": expected,
        "mae_model": model_error,
        "mae_naive": naive_error,
    }


def _expectations(fit: BgNbdFit, buying: Sequence[Buying], until: date) -> list[float]:
    """Return the days with an order that are expected in the last quarter; none where a number is beyond floats."""
    try:
        days = [fit.model.expected_days(*each.history(until)[:3], HOLDOUT_WEEKS) for each in buying]
    except ArithmeticError:
        return []
    return days if all(map(isfinite, days)) else []


def _spending(of: Frame) -> dict[str, Any]:
    """Return the model of how much customers spend on a day, and whether it may be used beside that of how often."""
    spendings = spending(of)
    fit = fit_gamma_gamma(spendings)
    correlation = _correlation(spendings)
    return {
        "gamma_gamma": None if fit is None else asdict(fit.model),
        "gg_log_likelihood": None if fit is None else fit.log_likelihood,
        "gg_mean": None if fit is None else fit.model.mean,
        "expected_order_mean": None if fit is None else _expected_order_mean(fit, spendings),
        "corr_x_m": correlation,
        "corr_ok": None if correlation is None else abs(correlation) < CORRELATION_MAX,
    }


def _expected_order_mean(fit: GammaGammaFit, spendings: Sequence[Spending]) -> float | None:
    """Return what customers who came back are expected to spend on a day, in the mean; None where it has no bound."""
    expected = [(each.customers, fit.model.expected_order(each.x, each.mean)) for each in spendings]
    known = [customers * order for customers, order in expected if order is not None]
    return sum(known) / sum(customers for customers, _ in expected) if len(known) == len(expected) else None


def _correlation(spendings: Sequence[Spending]) -> float | None:
    """Return the correlation of how often customers came back and what they spent; None where one does not vary."""
    total = sum(each.customers for each in spendings)
    if not total:
        return None
    mean_x = sum(each.customers * each.x for each in spendings) / total
    mean_m = sum(each.customers * each.mean for each in spendings) / total
    spread_x = sum(each.customers * (each.x - mean_x) ** 2 for each in spendings)
    spread_m = sum(each.customers * (each.mean - mean_m) ** 2 for each in spendings)
    common = sum(each.customers * (each.x - mean_x) * (each.mean - mean_m) for each in spendings)
    return common / sqrt(spread_x * spread_m) if spread_x and spread_m else None
