"""What reports estimate from a year equals the published formulas over arrays, and another draw of members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from operations.report import frame
from operations.report.catalogue import report
from operations.report.frame import Asked
from tests.insight import estimates
from tests.insight.buying import HOLDOUT, Buying
from tests.insight.comparison import differences

if TYPE_CHECKING:
    from tests.insight.recorded_year import Year

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("insight year")]

LIKELY = 1e-3
"""Two programs agree on a likelihood to this, and not on the parameters of a flat one."""


@pytest.fixture(scope="module")
def buying(a_year: Year) -> Buying:
    return Buying(a_year.frames, a_year.orders)


@pytest.fixture(scope="module")
def lots_left(a_year: Year) -> estimates.Leaving:
    return estimates.leaving(a_year.frames)


def test_the_model_of_how_often_customers_buy(a_year: Year, buying: Buying) -> None:
    found = a_year.data("clv_predicted")
    model = tuple(found["bgnbd"].values())
    assert list(differences(buying.counts(), found)) == []
    assert found["log_likelihood"] == pytest.approx(buying.likelihood(model, buying.cut), abs=LIKELY)
    assert found["p_alive_mean"] == pytest.approx(buying.alive(model, buying.cut).mean(), rel=1e-9)
    assert found["identified"] == all(1e-4 <= each <= 1e4 for each in model)

    # another search finds nothing likelier
    likeliest = buying.likeliest(model, buying.cut)
    assert buying.likelihood(likeliest, buying.cut) < found["log_likelihood"] + LIKELY


def test_the_last_quarter(a_year: Year, buying: Buying) -> None:
    found = a_year.data("clv_predicted")
    model = buying.likeliest(tuple(found["bgnbd"].values()), buying.cut - HOLDOUT)
    expected = buying.held_out(model)
    for name in ("holdout_days_actual", "mae_naive"):
        assert list(differences({name: expected[name]}, found)) == []
    if found["holdout_days_expected"] is not None:
        # of a model that is fitted by another search
        for name in ("holdout_days_expected", "mae_model"):
            assert found[name] == pytest.approx(expected[name], rel=0.01), name


def test_the_model_of_how_much_customers_spend(a_year: Year, buying: Buying) -> None:
    found = a_year.data("clv_predicted")
    expected = buying.spending(**found["gamma_gamma"])
    assert found["gg_log_likelihood"] == pytest.approx(expected.pop("gg_log_likelihood"), abs=LIKELY)
    assert list(differences(expected, found)) == []


def test_every_method(a_year: Year, buying: Buying, lots_left: estimates.Leaving) -> None:
    model = tuple(a_year.data("clv_predicted")["bgnbd"].values())
    expected = estimates.methods(a_year.frames, lots_left, buying.alive(model, buying.cut).to_dict())
    assert list(differences(expected, a_year.data("liability")["methods"])) == []


def test_the_interval_of_lot_hazards(
    a_year: Year, lots_left: estimates.Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert a_year.data("liability")["methods"]["interval"] == {}, "sums by day know no member"
    monkeypatch.setattr(frame, "why_logs", lambda *_: "the logs are asked for")
    methods = report(a_year.url, "liability", Asked())["data"]["methods"]
    found, estimate = methods["interval"]["M3"], {key: methods[key]["M3"] for key in ("urr", "expected_redemptions")}
    for name, (low, high) in estimates.interval(lots_left).items():
        assert found[name]["low"] < estimate[name] < found[name]["high"]
        assert [found[name]["low"], found[name]["high"]] == pytest.approx([low, high], abs=0.2 * (high - low))


def test_the_split_of_sales(a_year: Year, lots_left: estimates.Leaving) -> None:
    expected = estimates.deferral(a_year.frames, lots_left, a_year.orders)
    assert list(differences(expected, a_year.data("liability")["deferral"])) == []
    assert 0 < expected["all"]["liability"] < expected["all"]["deferred"] < expected["all"]["net"]
