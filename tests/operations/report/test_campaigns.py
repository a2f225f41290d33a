"""Campaigns give points in orders, at a cost, counted by hand."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from engine.intake.own_events import own_id
from engine.store.cursor import one
from engine.store.database import transaction
from operations.report import frame
from operations.report.campaigns.influence import FORWARDED_ID
from operations.report.rewards import USES_UNKNOWN
from tests.operations.report.history import History
from tests.operations.report.test_engagement import history

__all__ = ["history"]  # a fixture

pytestmark = pytest.mark.postgres

HEAD = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
"""


def test_a_campaign_costs_what_its_points_do(history: History) -> None:
    """A point costs a cent; of January's 250 points, which are all gone, 170 were redeemed."""
    spring = history.report("campaigns")["spring"]
    assert spring == {
        "points_granted": 390,
        "points_earned": 140,
        "points_redeemed": 170,
        "points_expired": 80,
        "cash_earned": 0,
        "orders_influenced": 4,
        "revenue_influenced": 14_000,
        "cost_face": 140,
        "cost_committed": pytest.approx(140 * 170 / 250),
        "cost_realised": 170,
        "cost_gifts": 0,
        "cost_coupons": 0,
        "cost_total_committed": pytest.approx(140 * 170 / 250),
        "cost_total_realised": 170,
        "give_back_rate": pytest.approx(140 / 14_000),
    }


def test_a_part_of_the_time_has_its_own_orders_and_flows_and_the_rate_of_all_time(history: History) -> None:
    part = history.report("campaigns", until="2026-06-01", since=date(2026, 2, 15))["spring"]
    names = ("orders_influenced", "revenue_influenced", "points_earned", "points_redeemed", "points_expired")
    assert tuple(part[name] for name in names) == (1, 4_000, 40 - 250, 150 - 10, 80)
    assert part["cost_committed"] == pytest.approx((40 - 250) * 170 / 250)


def test_an_order_in_two_campaigns_counts_in_both_and_once_in_all(database_url: str) -> None:
    history = History(
        database_url,
        HEAD
        + """\
referral: {}
rules:
- {id: base, on: purchase, campaign: spring, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: back, on: purchase, campaign: web, when: {purchase.channel: web},
   give: [{cash: {rate: 5%, of: purchase.amount}}]}
- {id: friend, on: referral, campaign: friends, when: {referral.event: purchase}, give: [{points: 30}]}
- {id: review, on: activity, campaign: reviews, give: [{points: 5}]}
""",
    )
    history.joins("lea", "2026-01-01T09:00:00Z")
    history.joins("max", "2026-01-02T09:00:00Z", referral_code=history.code_of("lea"))
    history.buys("max", "2026-01-10T09:00:00Z", "o1", 10_000, channel="web")
    history.buys("max", "2026-01-11T09:00:00Z", "o2", 2_000)
    history.buys("lea", "2026-01-12T09:00:00Z", "o1", 1_000)
    history.returns("max", "2026-02-12T09:00:00Z", "o1", 4_000)
    history.passes("2026-02-13T09:00:00Z")
    data = history.report("campaigns", until="2026-02-01")
    names = ("orders_influenced", "revenue_influenced", "points_granted", "points_earned", "cash_earned")
    assert {name: tuple(row[each] for each in names) for name, row in data.items()} == {
        "all": (3, 9_000, 190, 190, 500),
        "friends": (2, 8_000, 60, 60, 0),
        "reviews": (0, 0, 0, 0, 0),
        "spring": (3, 9_000, 130, 130, 0),
        "web": (1, 6_000, 0, 0, 500),
    }
    assert (data["spring"]["cost_face"], data["spring"]["cost_committed"]) == (None, None)

    by_channel = history.report("campaigns", until="2026-02-01", by="channel")["spring"]
    assert {name: tuple(row[each] for each in names) for name, row in by_channel.items()} == {
        "": (2, 3_000, 30, 30, 0),
        "web": (1, 6_000, 100, 100, 0),
    }
    assert any("liability_per_point" in note for note in history.document("campaigns")["notes"])


def test_gifts_and_cash_are_a_cost_beside_points(database_url: str) -> None:
    """Of three mugs one comes back with its order; nobody knows what a bag costs, and so what the campaign costs."""
    history = History(
        database_url,
        HEAD
        + """\
costs: {gift: {mug: 3.20}}
rules:
- {id: mug, on: purchase, campaign: mugs, give: [{gift: mug}]}
- {id: back, on: purchase, campaign: mugs, give: [{cash: {rate: 5%, of: purchase.amount}}]}
- {id: bag, on: activity, campaign: bags, give: [{gift: bag}]}
""",
    )
    for number in (1, 2, 3):
        history.buys("qin", f"2026-01-1{number}T09:00:00Z", f"o{number}", 1_000)
    history.returns("qin", "2026-01-14T09:00:00Z", "o3")
    history.does("qin", "2026-01-15T09:00:00Z")
    document = history.document("campaigns")
    names = ("cost_gifts", "cost_coupons", "cost_total_committed", "cost_total_realised", "cash_earned")
    assert {name: tuple(row[each] for each in names) for name, row in document["data"].items()} == {
        "all": (None, 0, None, None, 100),
        "bags": (None, 0, None, None, 0),
        "mugs": (640, 0, 740, 640, 100),
    }
    assert any("costs.gift.bag" in note for note in document["notes"])


def test_what_coupons_cost_is_unknown_while_the_log_does_not_say_which_were_used(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign without coupons has its costs all the same."""
    history = History(
        database_url,
        HEAD
        + """\
costs: {gift: {mug: 3.20}, coupon: {coffee: 1.50}}
rules:
- {id: mug, on: purchase, campaign: mugs, give: [{gift: mug}]}
- {id: coffee, on: activity, campaign: drinks, give: [{coupon: {template: coffee, valid: 30d}}]}
""",
    )
    costs = ("cost_coupons", "cost_total_committed", "cost_total_realised")

    def found() -> dict[str, tuple[Any, ...]]:
        return {name: tuple(row[each] for each in costs) for name, row in history.report("campaigns").items()}

    history.buys("qin", "2026-01-11T09:00:00Z", "o1", 1_000)
    history.passes("2026-01-12T09:00:00Z")
    assert found() == {"all": (0, 320, 320), "drinks": (0, 0, 0), "mugs": (0, 320, 320)}
    assert history.report("rewards") == {"coupons_issued": 0, "coupons_used": 0, "reward_usage": None}

    # coupons that somebody may have used
    history.does("qin", "2026-01-15T09:00:00Z")
    assert found() == {"all": (None, None, None), "drinks": (None, None, None), "mugs": (0, 320, 320)}
    assert USES_UNKNOWN in history.document("campaigns")["notes"]
    rewards = history.document("rewards")
    assert rewards["data"] == {"coupons_issued": 1, "coupons_used": None, "reward_usage": None}
    assert USES_UNKNOWN in rewards["notes"]

    # and one of which the log says so
    history.uses_coupons()
    monkeypatch.setattr(frame, "why_logs", lambda *_: "the log alone has what no event brought")
    assert found() == {"all": (150, 470, 470), "drinks": (150, 150, 150), "mugs": (0, 320, 320)}
    assert history.report("rewards") == {"coupons_issued": 1, "coupons_used": 1, "reward_usage": 1}


def test_what_an_operator_takes_back_belongs_to_no_campaign(database_url: str) -> None:
    history = History(
        database_url,
        HEAD
        + """\
rules:
- {id: base, on: purchase, campaign: spring, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
""",
    )
    history.buys("nia", "2026-01-10T09:00:00Z", "o1", 10_000)
    history.decides("nia", "2026-01-11T09:00:00Z", "adjust", -30)
    history.returns("nia", "2026-01-12T09:00:00Z", "o1", 5_000)
    assert history.report("campaigns")["spring"]["points_earned"] == 50
    assert history.report("engagement")["all"]["points_earned"] == 20


BUDGETS = (
    HEAD
    + """\
rules:
- id: base
  on: purchase
  campaign: spring
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]
  limits: [{max: 1000, per: campaign, every: month}]
- {id: mug, on: purchase, campaign: gifts, give: [{gift: {sku: mug}}], limits: [{times: 10, per: campaign}]}
"""
)


def test_a_budget_says_what_is_left_and_when_it_ends_as_it_went_in_the_last_week(database_url: str) -> None:
    """300 points of February's 1,000 are left when 12 days are over; 350 went in the last 7 of them, 50 a day."""
    history = History(database_url, BUDGETS)
    history.buys("oli", "2026-01-31T09:00:00Z", "o0", 40_000)
    history.buys("oli", "2026-02-01T09:00:00Z", "o1", 45_000)
    history.buys("pia", "2026-02-07T09:00:00Z", "o2", 25_000)
    history.buys("oli", "2026-02-12T22:59:00Z", "o3", 10_000)
    history.returns("oli", "2026-02-12T22:59:30Z", "o1", 10_000)
    data = history.report("campaigns")
    assert data["spring"]["budget"] == {
        "limit": 1_000, "used": 700, "left": 300, "ends_at": "2026-02-18T23:00:00+00:00", "unit": "points",
        "every": "month",
    }  # fmt: skip
    assert data["gifts"]["budget"] == {
        "limit": 10, "used": 4, "left": 6, "ends_at": "2026-03-05T23:00:00+00:00", "unit": "times", "every": "lifetime",
    }  # fmt: skip

    # it is what the live path has counted
    with transaction(database_url) as cursor:
        cursor.execute("SELECT budget, amount, times FROM guerdon.budget ORDER BY period DESC, budget")
        assert {(budget, amount or times) for budget, amount, times in cursor.fetchall()} >= {
            ("points:month:campaign:spring", 700), ("times:lifetime:campaign:gifts", 4),
        }  # fmt: skip

    # at this rate nothing ends in a month that is new
    fresh = history.report("campaigns", until="2026-03-10")["spring"]["budget"]
    assert (fresh["used"], fresh["left"], fresh["ends_at"]) == (0, 1_000, None)


@pytest.mark.parametrize(
    ("source", "event_id"),
    [
        ("default", "e1"),
        ("till", "é" * 50),
        ("a:b", "c"),
        ("a", "b:c"),
        ("s", "x" * 188),
        ("s", "x" * 189),
        ("ä:", "ö"),
    ],
)
def test_the_name_of_a_forwarded_event_is_the_same_in_sql(database_url: str, source: str, event_id: str) -> None:
    with transaction(database_url) as cursor:
        (name,) = one(
            cursor,
            f"SELECT {FORWARDED_ID} FROM (SELECT %s::text AS source, %s::text AS event_id) p",
            (source, event_id),
        )
    assert name == own_id("forwarded", source, event_id)
