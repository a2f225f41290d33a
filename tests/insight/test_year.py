"""Every report of a year equals an independent computation, to the unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from operations.report import frame
from operations.report.alerts.thresholds import Thresholds
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from tests.insight import costs, points, trial
from tests.insight.comparison import differences

if TYPE_CHECKING:
    from tests.insight.recorded_year import Year

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("insight year")]


def test_the_comparison_sees_each_kind_of_difference() -> None:
    expected = {"a": {"n": 1, "r": 0.5, "none": None, "l": [1, 2]}}
    assert not list(differences(expected, {"a": {"n": 1, "r": 0.5 + 1e-13, "none": None, "l": [1, 2], "more": 3}}))
    for wrong in ({"n": 2}, {"n": True}, {"r": 0.51}, {"none": 0}, {"l": [1, 3]}, {"l": [1]}):
        assert len(list(differences(expected, {"a": expected["a"] | wrong}))) == 1
    assert list(differences(expected, {})) == [".a is missing"]


def test_a_year_moves_everything_that_is_counted(a_year: Year) -> None:
    rewards = a_year.frames.rewards
    verbs = ("granted", "released", "reserved", "captured", "restored", "expired", "reversed", "settled", "adjusted")
    assert {f"points.{verb}" for verb in verbs} <= set(rewards["type"])
    assert {"coupon.issued", "coupon.expired", "coupon.revoked", "tier.changed"} <= set(rewards["type"])
    assert {"referral.attributed", "referral.qualified", "referral.rejected"} <= set(rewards["type"])
    assert {"insufficient", "refund_exceeds", "cohort_control"} <= set(rewards["reason"])


def test_engagement(a_year: Year) -> None:
    assert list(differences(a_year.orders.engagement(), a_year.data("engagement"))) == []


def test_redemption(a_year: Year) -> None:
    assert list(differences(points.redemption(a_year.frames), a_year.data("redemption"))) == []


def test_rewards(a_year: Year) -> None:
    assert list(differences(points.rewards(a_year.frames), a_year.data("rewards"))) == []


def test_customers(a_year: Year) -> None:
    assert list(differences(a_year.orders.customers(), a_year.data("customers"))) == []


def test_referrals(a_year: Year) -> None:
    assert list(differences(points.referrals(a_year.frames), a_year.data("referrals"))) == []


def test_campaigns(a_year: Year) -> None:
    expected = points.campaigns(a_year.frames, a_year.orders)
    assert list(differences(expected, a_year.data("campaigns"))) == []


@pytest.mark.parametrize("every", [Every.DAY, Every.WEEK, Every.QUARTER])
def test_rollups_say_what_the_logs_say(a_year: Year, every: Every, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(every=every)
    rolled = {name: report(a_year.url, name, asked) for name in ("customers", "engagement", "referrals")}
    assert [note for document in rolled.values() for note in document["notes"] if "logs" in note] == []
    monkeypatch.setattr(frame, "why_logs", lambda *_: "the logs are asked for")
    for name, document in rolled.items():
        assert report(a_year.url, name, asked)["data"] == document["data"]


def test_costs_and_budgets_of_campaigns(a_year: Year) -> None:
    expected = costs.costs(a_year.frames, a_year.orders)
    assert list(differences(expected, a_year.data("campaigns"))) == []
    assert expected["shares"]["cost_gifts"] > 0
    assert 0 < expected["baskets"]["cost_committed"] < expected["baskets"]["cost_face"]


def test_the_experiment(a_year: Year) -> None:
    expected = trial.experiment(a_year.frames, a_year.orders)
    assert list(differences(expected, a_year.data("experiments")["tried"])) == []
    assert min(arm["n"] for arm in expected["arms"].values()) > 30
    assert expected["cuped"]["theta"] != 0


def test_alerts(a_year: Year) -> None:
    least = 100
    thresholds = Thresholds(refunds=1, referrals=1, refusals=1, refusals_factor=1.0, budget_days=0, incentives=least)
    found = a_year.data("alerts", days=200, thresholds=thresholds)["alerts"]
    expected = costs.alerts(a_year.frames, a_year.orders, 200, least)
    assert list(differences(expected, found)) == []
    assert len({row["alert"] for row in expected}) >= 3


def test_the_liability_closes_for_every_month(a_year: Year) -> None:
    found = a_year.data("liability")
    expected = {"roll_forward": points.roll_forward(a_year.frames), "ageing": points.ageing(a_year.frames)}
    assert list(differences(expected, found)) == []
    assert sum(found["ageing"].values()) == found["roll_forward"]["all"]["closing_gross"]


def test_the_chain_ladder(a_year: Year) -> None:
    expected, found = points.chain_ladder(a_year.frames), a_year.data("liability")["methods"]["M2"]
    assert list(differences(expected["factors"], found["factors"])) == []
    ultimate = {name: row["ultimate"] for name, row in found["rows"].items()}
    assert list(differences(expected["ultimate"], ultimate)) == []
