"""Predicted value: what the models are given and what they are tested on, counted over the orders themselves."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from datetime import date, timedelta
from statistics import correlation, fmean
from typing import TYPE_CHECKING, Any

import pytest

from schemas.events import Activity
from tests.operations.report.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytest.importorskip("scipy")
pytestmark = pytest.mark.postgres

FIRST, CUT = date(2026, 1, 1), date(2026, 10, 1)
HELD_OUT = CUT - timedelta(days=91)
Spent = dict[str, dict[date, int]]
"""What each member spent on each day, in minor units."""


@pytest.fixture
def log(database_url: str) -> History:
    return History(database_url)


def orders(leaves: Callable[[random.Random], float]) -> Spent:
    """Return the orders of 80 members who come at rates of their own; `leaves` draws how likely one is their last."""
    chance = random.Random(5)  # noqa: S311  a test's own
    spent: Spent = defaultdict(dict)
    for member in range(80):
        leaving = leaves(chance)
        day = FIRST + timedelta(days=chance.randrange(200))
        rate, size = chance.gammavariate(1.2, 0.05), chance.gammavariate(4, 900)
        while day < CUT:
            spent[f"m{member}"][day] = max(1, round(size * chance.gammavariate(5, 0.2)))
            if chance.random() < leaving:
                break
            day += timedelta(days=1 + int(chance.expovariate(rate)))
    return dict(spent)


@pytest.fixture
def spent(log: History) -> Spent:
    """Return orders that are recorded, two on some days; beside them are a free one and a returned one."""
    made = orders(lambda chance: chance.betavariate(0.8, 2.5))
    events = [log.make(Activity, "2026-09-30", member_id="last", kind="review")]
    for who, days in made.items():
        for number, (day, amount) in enumerate(days.items()):
            halves = (amount // 2, amount - amount // 2) if number % 3 == 0 and amount > 1 else (amount,)
            events += [log.order(who, f"{day}", f"{who}-{day}-{n}", half) for n, half in enumerate(halves)]
    events += [log.order("free", "2026-02-01", "free", 0), log.order("back", "2026-02-01", "back", 900)]
    log.take(*events)
    log.take(log.refund("back", "2026-02-02", "back"))
    return made


def log_likelihood(model: Mapping[str, float], spent: Spent) -> float:
    """Return the logarithm of the likelihood of all histories by the formula of the paper."""
    r, alpha, a, b = (model[name] for name in ("r", "alpha", "a", "b"))

    def beta(one: float, other: float) -> float:
        return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)

    total = 0.0
    for days in spent.values():
        x, t_x, age = len(days) - 1, (max(days) - min(days)).days / 7, (CUT - min(days)).days / 7
        buys = math.lgamma(r + x) - math.lgamma(r) + r * math.log(alpha)
        stays = beta(a, b + x) - beta(a, b) + buys - (r + x) * math.log(alpha + age)
        if x:
            leaves = beta(a + 1, b + x - 1) - beta(a, b) + buys - (r + x) * math.log(alpha + t_x)
            high, low = max(stays, leaves), min(stays, leaves)
            stays = high + math.log1p(math.exp(low - high))
        total += stays
    return total


def test_the_model_is_given_the_days_of_all_members(log: History, spent: Spent) -> None:
    data = log.report("clv_predicted")
    assert data["members"] == len(spent)
    assert data["repeat_days"] == sum(len(days) - 1 for days in spent.values())
    assert data["sum_tx_days"] == sum((max(days) - min(days)).days for days in spent.values())
    assert data["sum_T_days"] == sum((CUT - min(days)).days for days in spent.values())
    assert data["log_likelihood"] == pytest.approx(log_likelihood(data["bgnbd"], spent), abs=1e-6)
    assert data["identified"] is True
    assert 0 < data["p_alive_mean"] < 1


def test_no_model_near_it_is_likelier(log: History, spent: Spent) -> None:
    data = log.report("clv_predicted")
    for name in data["bgnbd"]:
        for factor in (0.95, 1.05):
            other = data["bgnbd"] | {name: data["bgnbd"][name] * factor}
            assert log_likelihood(other, spent) < data["log_likelihood"]


def test_the_last_quarter_is_held_out(log: History, spent: Spent) -> None:
    data = log.report("clv_predicted")
    there = [days for days in spent.values() if min(days) < HELD_OUT]
    actual = [sum(day >= HELD_OUT for day in days) for days in there]
    before = [sum(HELD_OUT - timedelta(days=91) <= day < HELD_OUT for day in days) for days in there]
    assert (data["holdout_weeks"], data["holdout_days_actual"]) == (13, sum(actual))
    assert data["mae_naive"] == pytest.approx(
        fmean(abs(one - other) for one, other in zip(actual, before, strict=True))
    )
    assert data["holdout_days_expected"] == pytest.approx(sum(actual), rel=0.5)
    assert data["mae_model"] < 2 * data["mae_naive"]


def test_spending_is_of_the_days_after_the_first_one(log: History, spent: Spent) -> None:
    data = log.report("clv_predicted")
    means = []
    for days in spent.values():
        later = [amount / 100 for day, amount in days.items() if day > min(days)]
        if later:
            means.append((len(later), fmean(later)))
    assert data["corr_x_m"] == pytest.approx(correlation(*map(list, zip(*means, strict=True))), rel=1e-9)
    assert data["corr_ok"] is (abs(data["corr_x_m"]) < 0.3)
    model = data["gamma_gamma"]
    assert data["gg_mean"] == pytest.approx(model["p"] * model["gamma"] / (model["q"] - 1), rel=1e-12)
    assert data["gg_mean"] == pytest.approx(fmean(m for _, m in means), rel=0.2)

    # each customer by their own days, drawn towards the mean of all
    p, q, gamma = model["p"], model["q"], model["gamma"]
    expected = [p * (gamma + x * mean) / (p * x + q - 1) for x, mean in means]
    assert data["expected_order_mean"] == pytest.approx(fmean(expected), rel=1e-12)


def test_members_who_all_leave_alike_do_not_decide_the_parameters_and_no_number_is_without_a_value(
    log: History,
) -> None:
    made = orders(lambda _: 0.12)
    log.take(
        *(log.order(who, f"{day}", f"{who}-{day}", spent) for who, days in made.items() for day, spent in days.items())
    )
    data = log.report("clv_predicted")
    assert data["identified"] is False
    assert data["holdout_days_actual"] > 0
    json.dumps(data, allow_nan=False)


def test_few_members_and_none_have_no_prediction_and_a_note(log: History) -> None:
    nothing: dict[str, Any] = {
        "members": 0, "repeat_days": 0, "sum_tx_days": 0, "sum_T_days": 0, "bgnbd": None, "identified": None,
        "log_likelihood": None, "p_alive_mean": None, "holdout_weeks": 13, "holdout_days_actual": None,
        "holdout_days_expected": None, "mae_model": None, "mae_naive": None, "gamma_gamma": None,
        "gg_log_likelihood": None, "gg_mean": None, "expected_order_mean": None, "corr_x_m": None, "corr_ok": None,
    }  # fmt: skip
    assert log.report("clv_predicted") == nothing
    log.take(log.order("ann", "2026-01-02", "o1", 1_000), log.order("ann", "2026-01-09", "o2", 3_000))
    alone = log.report("clv_predicted")
    assert Counter({name: alone[name] for name in ("members", "repeat_days", "sum_tx_days", "sum_T_days")}) == Counter(
        members=1, repeat_days=1, sum_tx_days=7, sum_T_days=8
    )
    assert alone["holdout_days_actual"] is alone["corr_x_m"] is None
