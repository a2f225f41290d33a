"""Engagement is what the log says, counted by hand."""

from __future__ import annotations

from datetime import date
from hashlib import sha256
from typing import Any

import pytest

from operations.report.periods import Every
from tests.operations.report.history import History
from tests.system.load import activate

pytestmark = pytest.mark.postgres

PROGRAMME = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
points: {validity: 3mo, liability_per_point: 0.01}
refunds: {window: 180d}
referral: {}
rules:
- {id: base, on: purchase, campaign: spring, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""


@pytest.fixture
def history(database_url: str) -> History:
    """Return a history of half a year.

    Ann buys for 100 points in January, and for 50 half an hour after February began by Berlin's clock. She spends 30 of
    January's, gets 10 back, and returns February's order; the other 80 lapse in April. Ben buys for 200 points, spends
    150 and returns the order: 50 are taken and 150 are owed; an order in May pays 40 of them.
    """
    made = History(database_url, PROGRAMME)
    made.joins("ann", "2026-01-05T09:00:00Z")
    made.buys("ann", "2026-01-10T09:00:00Z", "o1", 10_000)
    made.buys("ben", "2026-01-20T09:00:00Z", "o3", 20_000)
    made.buys("ann", "2026-01-31T23:30:00Z", "o2", 5_000)
    made.redeems("ann", "2026-02-10T09:00:00Z", "spend", "r1", 30)
    made.redeems("ben", "2026-02-20T09:00:00Z", "spend", "r2", 150)
    made.redeems("ann", "2026-03-05T09:00:00Z", "restore", "r1", 10)
    made.returns("ann", "2026-03-10T09:00:00Z", "o2")
    made.returns("ben", "2026-03-20T09:00:00Z", "o3")
    made.passes("2026-05-01T09:00:00Z")
    made.buys("ben", "2026-05-05T09:00:00Z", "o4", 4_000)
    made.shares("cat", "2026-07-10T09:00:00Z")
    made.visits("ann", "2026-07-11T09:00:00Z")
    return made


def outstanding(active: int, debt: int) -> dict[str, int]:
    return {"pending": 0, "active": active, "reserved": 0, "gross": active, "debt": debt, "net": active - debt}


def of(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def test_points_are_earned_burned_and_lapse_in_the_month_in_which_they_do(history: History) -> None:
    data = history.report("engagement")
    flows = {name: of(row, "points_earned", "points_burned", "points_expired") for name, row in data.items()}
    assert flows == {
        "2026-01": (300, 0, 0),
        "2026-02": (50, 180, 0),
        "2026-03": (-250, -10, 0),
        "2026-04": (0, 0, 80),
        "2026-05": (40, 0, 0),
        "2026-06": (0, 0, 0),
        "2026-07": (0, 0, 0),
        "all": (140, 170, 80),
    }
    assert of(data["2026-02"], "earn_burn", "burn_earn") == (50 / 180, 180 / 50)
    assert of(data["2026-01"], "earn_burn", "burn_earn") == (None, 0)
    assert of(data["2026-06"], "earn_burn", "burn_earn") == (None, None)
    cumulative = [data[name]["redemption_cumulative"] for name in ("2026-01", "2026-02", "2026-03", "2026-06", "all")]
    assert cumulative == [0, 180 / 350, 170 / 100, 170 / 140, 170 / 140]


def test_what_is_outstanding_is_what_stands_in_the_accounts_at_the_end_of_the_month(history: History) -> None:
    data = history.report("engagement")
    assert {name: row["outstanding"] for name, row in data.items()} == {
        "2026-01": outstanding(300, 0),
        "2026-02": outstanding(170, 0),
        "2026-03": outstanding(80, 150),
        "2026-04": outstanding(0, 150),
        "2026-05": outstanding(0, 110),
        "2026-06": outstanding(0, 110),
        "2026-07": outstanding(0, 110),
        "all": outstanding(0, 110),
    }


def test_members_are_counted_once_a_month_by_what_they_did(history: History) -> None:
    data = history.report("engagement")
    names = ("members", "active", "participants", "redeemers", "referrers")
    assert {name: of(row, *names) for name, row in data.items()} == {
        "2026-01": (2, 2, 2, 0, 0),
        "2026-02": (2, 2, 2, 2, 0),
        "2026-03": (2, 1, 0, 0, 0),
        "2026-04": (2, 0, 0, 0, 0),
        "2026-05": (2, 1, 1, 0, 0),
        "2026-06": (2, 0, 0, 0, 0),
        "2026-07": (3, 1, 0, 0, 2),
        "all": (3, 3, 2, 2, 2),
    }
    july, empty = data["2026-07"], data["2026-06"]
    assert of(july, "referrer_rate", "redeemer_rate", "participation_of_members") == (2.0, 0, 0)
    assert of(empty, "participation_of_members", "participation_of_active", "redeemer_rate") == (0, None, None)
    assert of(data["all"], "participation_of_members", "participation_of_active") == (2 / 3, 2 / 3)


def test_an_order_earns_in_the_month_of_the_order(history: History) -> None:
    data = history.report("engagement")
    names = ("orders", "orders_earning", "order_earning_rate")
    assert {name: of(row, *names) for name, row in data.items()} == {
        "2026-01": (2, 2, 1),
        "2026-02": (1, 1, 1),
        "2026-03": (0, 0, None),
        "2026-04": (0, 0, None),
        "2026-05": (1, 1, 1),
        "2026-06": (0, 0, None),
        "2026-07": (0, 0, None),
        "all": (4, 4, 1),
    }


def test_a_report_known_at_an_instant_is_the_report_that_was_made_then(history: History) -> None:
    known_at = history.now()
    before = history.report("engagement", until="2026-08-01"), history.report("redemption", until="2026-08-01")

    # all of it late: an order of January, what it brings, and the end of a member
    history.buys("dan", "2026-01-07T09:00:00Z", "o9", 7_000)
    history.redeems("dan", "2026-02-01T09:00:00Z", "spend", "r9", 20)
    history.returns("dan", "2026-03-02T09:00:00Z", "o9", 1_000)
    history.joins("dan", "2026-01-06T09:00:00Z")
    history.erases("cat", "2026-07-20T09:00:00Z")
    after = history.report("engagement", until="2026-08-01")
    assert of(after["2026-01"], "members", "points_earned") == (3, 370)
    assert after["2026-07"]["members"] == 3

    again = [history.report(name, until="2026-08-01", known_at=known_at) for name in ("engagement", "redemption")]
    assert again == list(before)


def test_a_visit_counts_for_the_owner_of_the_link_from_their_signup_on(database_url: str) -> None:
    history = History(database_url, PROGRAMME)
    history.visits("amy", "2026-01-10T09:00:00Z")
    before = history.now()
    history.joins("amy", "2026-01-09T09:00:00Z")
    assert history.report("engagement")["all"]["referrers"] == 1
    assert history.report("engagement", known_at=before)["all"]["referrers"] == 0


HELD = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
points: {validity: 12mo}
reserve_for: 60d
rules:
- {id: held, on: purchase, hold: 20d, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""


@pytest.fixture
def held(database_url: str) -> History:
    """Return a history of what else can happen to points.

    Fay's 100 points of January are held until 9 February; she reserves 40 and captures 30 of them. An operator adds 25
    and takes 5, brings Gus with 500 points from another system, and Gus is erased after his only review.
    """
    made = History(database_url, HELD)
    made.buys("fay", "2026-01-20T09:00:00Z", "o1", 10_000)
    made.redeems("fay", "2026-02-15T09:00:00Z", "reserve", "r1", 40)
    made.decides("fay", "2026-02-16T09:00:00Z", "adjust", 25)
    made.redeems("fay", "2026-03-05T09:00:00Z", "capture", "r1", 30)
    made.decides("fay", "2026-03-06T09:00:00Z", "adjust", -5)
    made.decides("gus", "2026-03-10T09:00:00Z", "opening", 500)
    made.does("gus", "2026-04-02T09:00:00Z")
    return made


def test_what_operators_decide_is_earned_and_what_is_erased_is_no_breakage(held: History) -> None:
    before = held.report("engagement", until="2026-05-01")
    held.erases("gus", "2026-05-10T09:00:00Z")
    data = held.report("engagement")
    flows = {name: of(row, "points_earned", "points_burned", "points_expired") for name, row in data.items()}
    assert flows == {
        "2026-01": (100, 0, 0),
        "2026-02": (25, 0, 0),
        "2026-03": (495, 30, 0),
        "2026-04": (0, 0, 0),
        "2026-05": (0, 0, 0),
        "all": (620, 30, 0),
    }
    standing = {name: of(row["outstanding"], "pending", "active", "reserved", "gross") for name, row in data.items()}
    assert standing == {
        "2026-01": (100, 0, 0, 100),
        "2026-02": (0, 85, 40, 125),
        "2026-03": (0, 590, 0, 590),
        "2026-04": (0, 590, 0, 590),
        "2026-05": (0, 90, 0, 90),
        "all": (0, 90, 0, 90),
    }

    # a decision makes no member, and who is erased was none at any time, but did what they did
    assert [row["members"] for row in before.values()] == [1, 1, 1, 2, 2]
    assert [row["members"] for row in data.values()] == [1, 1, 1, 1, 1, 1]
    assert [row["active"] for row in data.values()] == [1, 1, 1, 1, 0, 2]
    assert [row["participants"] for row in data.values()] == [1, 0, 1, 0, 0, 1]


TIERS = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: gold, from: 100}]}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: status, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""


def test_orders_count_for_the_tier_before_them_and_members_for_their_tier_at_the_end(database_url: str) -> None:
    """Hal's second order makes him gold: the order was one of a basic member, and February ends with a gold one."""
    history = History(database_url, TIERS)
    history.buys("hal", "2026-01-10T09:00:00Z", "o1", 6_000)
    history.buys("hal", "2026-02-10T09:00:00Z", "o2", 6_000)
    history.buys("hal", "2026-03-10T09:00:00Z", "o3", 1_000)
    history.buys("ivy", "2026-03-12T09:00:00Z", "o4", 2_000)
    data = history.report("engagement", by="tier")
    names = ("members", "participants", "orders", "points_earned")
    assert {name: {tier: of(row, *names) for tier, row in rows.items()} for name, rows in data.items()} == {
        "2026-01": {"basic": (1, 1, 1, 60), "gold": (0, 0, 0, 0)},
        "2026-02": {"basic": (0, 0, 1, 60), "gold": (1, 1, 0, 0)},
        "2026-03": {"basic": (1, 1, 1, 20), "gold": (1, 1, 1, 10)},
        "all": {"basic": (1, 1, 3, 140), "gold": (1, 1, 1, 10)},
    }
    net = {name: {tier: row["outstanding"]["net"] for tier, row in rows.items()} for name, rows in data.items()}
    assert net == {
        "2026-01": {"basic": 60, "gold": 0},
        "2026-02": {"basic": 0, "gold": 120},
        "2026-03": {"basic": 20, "gold": 130},
        "all": {"basic": 20, "gold": 130},
    }


def test_members_are_split_by_the_month_in_which_they_joined_or_first_bought(history: History) -> None:
    joined = history.report("engagement", by="joined")["all"]
    assert {month: of(row, "members", "orders", "points_earned") for month, row in joined.items()} == {
        "": (2, 2, 40),
        "2026-01": (1, 2, 100),
    }
    bought = history.report("engagement", by="first_order")["all"]
    assert {month: of(row, "members", "orders", "points_earned") for month, row in bought.items()} == {
        "": (1, 0, 0),
        "2026-01": (2, 4, 140),
    }


ONE_SALT = """\
schema: guerdon/1
programme: p
timezone: Europe/Berlin
currency: EUR
rules:
- {id: base, on: purchase, give: [{points: 1}]}
- {id: double, on: purchase, when: {purchase.channel: app}, cohort: {salt: spring, treat: 50%}, give: [{points: 20}]}
- {id: review, on: activity, cohort: {salt: spring, treat: 50%}, give: [{points: 100}]}
"""
TWO_SALTS = ONE_SALT + "- {id: mug, on: share, cohort: {salt: summer, treat: 100%}, give: [{points: 3}]}\n"


def arm(member_id: str) -> str:
    """Return the arm of a member by the definition in the language's pages."""
    number = int.from_bytes(sha256(b"spring\0" + member_id.encode()).digest()[:8], "big") % 10_000
    return "treated" if number < 5_000 else "control"


def test_members_are_split_by_their_arm_and_rules_with_one_salt_are_one_experiment(database_url: str) -> None:
    history = History(database_url, ONE_SALT)
    names = [f"m{number}" for number in range(8)]
    treated, control = ([name for name in names if arm(name) == each][:2] for each in ("treated", "control"))
    for number, name in enumerate((*treated, *control)):
        history.buys(name, "2026-01-10T09:00:00Z", f"o{number}", 1_000, channel="app")
        history.does(name, "2026-01-11T09:00:00Z")
    history.buys("zoe", "2026-01-12T09:00:00Z", "o9", 1_000)
    rows = history.report("engagement", by="arm")["all"]
    assert {arm: of(row, "members", "points_earned") for arm, row in rows.items()} == {
        "": (1, 1),
        "control": (2, 2),
        "treated": (2, 2 * 121),
    }

    # with a second salt, each member is in one arm of each experiment that they have entered
    activate(database_url, TWO_SALTS)
    history.shares(treated[0], "2030-01-01T09:00:00Z")
    rows = history.report("engagement", by="arm")["all"]
    assert {arm: row["members"] for arm, row in rows.items()} == {
        "": 1, "spring:control": 2, "spring:treated": 1, "spring:treated, summer:treated": 1,
    }  # fmt: skip


def test_what_operators_brought_is_outstanding_before_any_event_has_come(database_url: str) -> None:
    history = History(database_url, PROGRAMME)
    history.decides("kai", "2026-01-10T09:00:00Z", "opening", 70)
    assert history.report("engagement")["all"]["outstanding"] == outstanding(70, 0)


def test_a_part_of_the_time_has_its_own_flows_and_what_all_the_time_before_left(history: History) -> None:
    data = history.report("engagement", until="2026-03-15", since=date(2026, 2, 15))
    assert list(data) == ["2026-02", "2026-03", "all"]
    assert {name: of(row, "points_earned", "points_burned") for name, row in data.items()} == {
        "2026-02": (0, 150),
        "2026-03": (-50, -10),
        "all": (-50, 140),
    }
    assert data["2026-02"]["redemption_cumulative"] == 180 / 350
    assert data["all"]["outstanding"] == outstanding(130, 0)
    assert of(data["all"], "members", "active") == (2, 2)


def test_periods_may_be_days_weeks_quarters_and_years(history: History) -> None:
    for every, names in {
        Every.QUARTER: ["2026-Q1", "2026-Q2", "2026-Q3", "all"],
        Every.YEAR: ["2026", "all"],
    }.items():
        assert list(history.report("engagement", every=every)) == names
    quarters = history.report("engagement", every=Every.QUARTER)
    assert [row["outstanding"]["net"] for row in quarters.values()] == [-70, -110, -110, -110]
    weeks = history.report("engagement", every=Every.WEEK, until="2026-01-19")
    assert {name: of(row, "orders", "members") for name, row in weeks.items()} == {
        "2026-W02": (1, 1),
        "2026-W03": (0, 1),
        "all": (1, 1),
    }
    days = history.report("engagement", every=Every.DAY, until="2026-01-12")
    assert {name: of(row, "orders", "members") for name, row in days.items() if name >= "2026-01-09"} == {
        "2026-01-09": (0, 1),
        "2026-01-10": (1, 1),
        "2026-01-11": (0, 1),
        "all": (1, 1),
    }


def test_an_empty_log_and_a_single_member_have_reports(database_url: str) -> None:
    history = History(database_url, PROGRAMME)
    empty = history.report("engagement")
    assert list(empty) == ["all"]
    assert of(empty["all"], "members", "active", "earn_burn", "order_earning_rate") == (0, 0, None, None)
    assert history.report("redemption") == {
        "vintages": {}, "breakage_realised": None, "closed_vintages": 0, "closed_earned": 0, "closed_expired": 0,
    }  # fmt: skip

    history.does("jo", "2026-01-10T09:00:00Z")
    assert of(history.report("engagement")["2026-01"], "members", "active", "participation_of_active") == (1, 1, 0)
