"""The report of customers, each number worked out by hand: orders, second orders, retention, scores and value."""

from __future__ import annotations

from datetime import date
from math import sqrt
from typing import Any

import pytest

from engine.live.batch import Batch
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from schemas.events import Activity, Erasure
from tests.operations.report.history import BASE, HEAD, History
from tests.system.batches import admitted, commit

pytestmark = pytest.mark.postgres


def first_part(to: History) -> list[Any]:
    """Return what was known at first: nothing of ann's first order, and nothing of eve's erasure."""
    return [
        to.signup("ann", "2026-01-02"),
        to.signup("eve", "2026-01-05"),
        to.order("ann", "2026-01-10", "o1", 10_000, gross=12_000, channel="web"),
        to.signup("bob", "2026-01-14"),
        to.order("bob", "2026-01-15", "o4", 2_000, channel="store"),
        to.order("eve", "2026-01-20", "o8", 6_000, channel="web"),
        to.order("ann", "2026-01-31T23:30:00Z", "o2", 5_000, channel="web"),  # on 1 February in Berlin
        to.redeem("ann", "2026-02-05", "spend", "s1", 50),
        to.order("cat", "2026-02-10", "o6", 0, gross=700),  # a free order
        to.order("bob", "2026-02-20", "o5", 3_000, channel="store"),
        to.refund("bob", "2026-03-02", "o4"),  # all of it
        to.signup("fay", "2026-03-10"),
        to.make(Activity, "2026-03-11", member_id="fay", kind="survey", score=3),
        to.order("dan", "2026-03-31T22:30:00Z", "o7", 4_000, channel="web"),  # on 1 April in Berlin
        to.signup("dan", "2026-04-02"),
        to.order("ann", "2026-04-05", "o3", 8_000, channel="store"),
    ]


def second_part(to: History) -> list[Any]:
    """Return what came later: a refund, an order of January, a restore, an erasure, and a survey of April."""
    scores = [10] * 17 + [9] + [8] * 6 + [0] * 6
    surveys = [
        to.make(Activity, "2026-04-20", member_id=f"s{number}", kind="survey", score=score)
        for number, score in enumerate(scores)
    ]
    return [
        to.refund("bob", "2026-04-10", "o5", 1_000),
        to.refund("bob", "2026-04-11", "o5", 2_500, "r2"),  # more than is left of it, so it lowers nothing
        to.order("ann", "2026-01-05", "o9", 1_500, channel="web"),
        to.redeem("ann", "2026-04-12", "restore", "s1", 20),
        to.make(Erasure, "2026-04-15", member_id="eve"),
        *surveys,
        to.make(Activity, "2026-04-19", member_id="s0", kind="survey", score=0),  # before their 10
        to.make(Activity, "2026-04-21", member_id="t1", kind="survey"),  # asked, and no answer
        to.make(Activity, "2026-04-21", member_id="t2", kind="survey", score=11),  # no score from 0 to 10
        to.make(Activity, "2026-05-02", member_id="fay", kind="review"),
    ]


PROGRAMME = HEAD + "points: {liability_per_point: 0.005}\nmargin: 25%\n" + BASE


@pytest.fixture
def log(database_url: str) -> History:
    return History(database_url, PROGRAMME)


@pytest.fixture
def whole(log: History) -> History:
    log.take(*first_part(log))
    log.take(*second_part(log))
    return log


NO_ANSWERS: dict[str, Any] = {
    "nps_n": 0, "nps_promoters": 0, "nps_detractors": 0, "nps_asked": 0, "nps": None, "se": None,
}  # fmt: skip
NOTHING: dict[str, Any] = {
    "orders": 0, "buyers": 0, "frequency": None, "amount": 0, "net": 0, "gross": 0, "refunds": 0,
    "orders_net_positive": 0, "gross_net_positive": 0, "aov_net": None, "aov_gross": None,
} | NO_ANSWERS  # fmt: skip


def test_orders_count_in_their_month_and_refunds_in_their_own(whole: History) -> None:
    periods = whole.report("customers")["periods"]
    assert list(periods) == ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "all"]
    # o1, o4, o8, o9; nothing is left of o4
    assert periods["2026-01"] == NOTHING | {
        "orders": 4, "buyers": 3, "frequency": 4 / 3, "amount": 19_500, "net": 17_500, "gross": 21_500,
        "orders_net_positive": 3, "gross_net_positive": 19_500, "aov_net": 17_500 / 3, "aov_gross": 6_500.0,
    }  # fmt: skip
    # o2, o5 less 1,000, and o6, which was free
    assert periods["2026-02"] == NOTHING | {
        "orders": 3, "buyers": 3, "frequency": 1.0, "amount": 8_000, "net": 7_000, "gross": 8_700,
        "orders_net_positive": 2, "gross_net_positive": 8_000, "aov_net": 3_500.0, "aov_gross": 4_000.0,
    }  # fmt: skip
    # no order, and the refund of o4
    survey = {"nps_n": 1, "nps_detractors": 1, "nps_asked": 1}
    assert periods["2026-03"] == NOTHING | survey | {"refunds": 2_000}
    # o3 and o7, and the first refund of o5
    assert periods["2026-04"] | NO_ANSWERS == NOTHING | {
        "orders": 2, "buyers": 2, "frequency": 1.0, "amount": 12_000, "net": 12_000, "gross": 12_000, "refunds": 1_000,
        "orders_net_positive": 2, "gross_net_positive": 12_000, "aov_net": 6_000.0, "aov_gross": 6_000.0,
    }  # fmt: skip
    assert periods["2026-05"] == NOTHING
    # a buyer of several months counts once
    assert periods["all"] | NO_ANSWERS == NOTHING | {
        "orders": 9, "buyers": 5, "frequency": 9 / 5, "amount": 39_500, "net": 36_500, "gross": 42_200,
        "refunds": 3_000,
        "orders_net_positive": 7, "gross_net_positive": 39_500, "aov_net": 36_500 / 7, "aov_gross": 39_500 / 7,
    }  # fmt: skip


def part(periods: dict[str, Any], name: str, value: str, *keys: str) -> tuple[Any, ...]:
    return tuple(periods[name][value][key] for key in keys)


def test_split_by_channel_an_order_counts_for_its_own_and_a_refund_for_that_of_its_order(whole: History) -> None:
    data = whole.report("customers", by="channel")
    periods = data["periods"]
    assert {tuple(rows) for rows in periods.values()} == {("", "store", "web")}
    keys = ("orders", "buyers", "net", "gross", "refunds", "orders_net_positive")
    assert part(periods, "2026-01", "web", *keys) == (3, 2, 17_500, 19_500, 0, 3)
    assert part(periods, "2026-01", "store", *keys) == (1, 1, 0, 2_000, 0, 0)
    assert part(periods, "2026-02", "", *keys) == (1, 1, 0, 700, 0, 0)
    assert part(periods, "2026-03", "store", *keys) == (0, 0, 0, 0, 2_000, 0)
    assert part(periods, "all", "web", *keys) == (5, 3, 26_500, 28_500, 0, 5)
    assert part(periods, "all", "store", *keys) == (3, 2, 10_000, 13_000, 3_000, 2)
    # a survey has no channel
    assert [part(periods, "all", value, "nps_asked", "nps_n") for value in ("", "store", "web")] == [
        (33, 31), (0, 0), (0, 0),
    ]  # fmt: skip
    # cohorts are not split
    assert data["clv"] == whole.report("customers")["clv"]


def test_split_by_the_month_of_joining_members_who_never_did_have_no_value(whole: History) -> None:
    periods = whole.report("customers", by="joined")["periods"]
    assert {value: row["orders"] for value, row in periods["all"].items()} == {
        "": 1, "2026-01": 7, "2026-03": 0, "2026-04": 1,
    }  # fmt: skip
    first = whole.report("customers", by="first_order")["periods"]
    assert {value: row["buyers"] for value, row in first["all"].items()} == {
        "": 0, "2026-01": 3, "2026-02": 1, "2026-04": 1,
    }  # fmt: skip


def test_split_by_tier_an_order_counts_for_the_tier_before_it_and_a_member_for_that_at_the_end(
    database_url: str,
) -> None:
    tiers = "tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: silver, from: 5}]}\n"
    log = History(database_url, HEAD + tiers + BASE + "- {id: status, on: purchase, give: [{status: 5}]}\n")
    log.take(
        log.order("ann", "2026-01-10", "o1", 1_000),  # by which ann becomes silver
        log.order("ann", "2026-01-20", "o2", 2_000),
        log.refund("ann", "2026-01-25", "o2", 500),
        log.make(Activity, "2026-01-31", member_id="cat", kind="survey", score=9),
        log.order("bob", "2026-02-01", "o3", 3_000),
    )
    periods = log.report("customers", by="tier")["periods"]
    keys = ("orders", "net", "refunds", "buyers", "nps_n")
    assert part(periods, "2026-01", "basic", *keys) == (1, 1_000, 0, 0, 1)
    assert part(periods, "2026-01", "silver", *keys) == (1, 1_500, 500, 1, 0)
    assert part(periods, "2026-02", "basic", *keys) == (1, 3_000, 0, 0, 0)
    assert part(periods, "all", "silver", *keys) == (1, 1_500, 500, 2, 0)


def test_other_lengths_of_periods_have_the_same_orders(whole: History) -> None:
    weeks = whole.report("customers", every=Every.WEEK)["periods"]
    assert {name: row["net"] for name, row in weeks.items() if row["orders"]} == {
        "2026-W02": 11_500, "2026-W03": 0, "2026-W04": 6_000, "2026-W05": 5_000, "2026-W07": 0, "2026-W08": 2_000,
        "2026-W14": 12_000, "all": 36_500,
    }  # fmt: skip
    quarters = whole.report("customers", every=Every.QUARTER)["periods"]
    assert {name: row["net"] for name, row in quarters.items()} == {"2026-Q1": 24_500, "2026-Q2": 12_000, "all": 36_500}
    assert {name: row["buyers"] for name, row in quarters.items()} == {"2026-Q1": 4, "2026-Q2": 2, "all": 5}


def test_a_score_counts_the_latest_answer_of_each_member_and_is_hidden_below_thirty(whole: History) -> None:
    periods = whole.report("customers")["periods"]
    april = {name: periods["2026-04"][name] for name in NO_ANSWERS}
    assert april["nps"] == pytest.approx(40, rel=1e-12)
    assert april["se"] == pytest.approx(100 * sqrt(0.64 / 30), rel=1e-12)
    counts = {name: april[name] for name in ("nps_n", "nps_promoters", "nps_detractors", "nps_asked")}
    assert counts == {"nps_n": 30, "nps_promoters": 18, "nps_detractors": 6, "nps_asked": 32}
    assert (periods["2026-03"]["nps_n"], periods["2026-03"]["nps"], periods["2026-03"]["se"]) == (1, None, None)
    assert (periods["all"]["nps_n"], periods["all"]["nps_detractors"], periods["all"]["nps_asked"]) == (31, 7, 33)


def test_second_orders_are_counted_for_cohorts_whose_window_is_over(whole: History) -> None:
    # the report ends with 2 May: 30 days after February and 90 days after January are over, and no others.
    # ann came back after 5 days, bob after 36, eve and cat never
    assert whole.report("customers")["repurchase"] == {
        "30d": {
            "2026-01": {"customers": 3, "repeated": 1, "rate": 1 / 3},
            "2026-02": {"customers": 1, "repeated": 0, "rate": 0.0},
        },
        "90d": {"2026-01": {"customers": 3, "repeated": 2, "rate": 2 / 3}},
    }
    # a day earlier the window of January is not over
    assert whole.report("customers", until="2026-05-01")["repurchase"]["90d"] == {}


def test_a_second_order_on_the_day_of_the_first_is_a_second_order(log: History) -> None:
    log.take(
        log.order("ann", "2026-01-10T08:00:00Z", "o1", 100),
        log.order("ann", "2026-01-10T09:00:00Z", "o2", 100),
        log.order("bob", "2026-01-10", "o3", 100),
        log.order("bob", "2026-02-09T22:30:00Z", "o4", 100),  # at 23:30 on the thirtieth day after
        log.order("cat", "2026-01-10", "o5", 100),
        log.order("cat", "2026-02-09T23:30:00Z", "o6", 100),  # on the day after it
        log.make(Activity, "2026-03-03", member_id="ann", kind="review"),
    )
    assert log.report("customers")["repurchase"]["30d"]["2026-01"] == {"customers": 3, "repeated": 2, "rate": 2 / 3}


def cells(*pairs: tuple[int, int], of: int) -> list[dict[str, Any]]:
    return [
        {"k": k, "retained": retained, "rate": retained / of, "rolling": rolling, "rolling_rate": rolling / of}
        for k, (retained, rolling) in enumerate(pairs)
    ]


def test_retention_has_whole_months_only(whole: History) -> None:
    retention = whole.report("customers")["retention"]
    # ann bought in January, February and April, bob in January and February, eve in January
    january = {"members": 3, "cells": cells((3, 3), (2, 2), (0, 1), (1, 1), of=3)}
    dan = {"members": 1, "cells": cells((1, 1), of=1)}
    assert retention["by_first_order"] == {
        "2026-01": january,
        "2026-02": {"members": 1, "cells": cells((1, 1), (0, 0), (0, 0), of=1)},
        "2026-04": dan,
    }
    assert retention["by_signup"] == {
        "2026-01": january,
        "2026-03": {"members": 1, "cells": cells((0, 0), (0, 0), of=1)},
        "2026-04": dan,
    }


def value_cells(*rows: tuple[int, int], of: int) -> list[dict[str, Any]]:
    return [
        {
            "k": k, "revenue": revenue, "points_redeemed": redeemed, "reward_cost": redeemed / 2,
            "revenue_mean": revenue / of, "clv_mean": pytest.approx((revenue / 4 - redeemed / 2) / of, rel=1e-12),
        }
        for k, (revenue, redeemed) in enumerate(rows)
    ]  # fmt: skip


def test_value_adds_up_by_whole_months_and_points_cost_what_the_programme_says(whole: History) -> None:
    # a point costs half a cent, and a quarter of sales is left. Ann redeemed 50 in February, and got 20 back in April
    assert whole.report("customers")["clv"] == {
        "2026-01": {"members": 3, "cells": value_cells((17_500, 0), (24_500, 50), (24_500, 50), (32_500, 30), of=3)},
        "2026-02": {"members": 1, "cells": value_cells((0, 0), (0, 0), (0, 0), of=1)},
        "2026-04": {"members": 1, "cells": value_cells((4_000, 0), of=1)},
    }


def test_what_the_programme_does_not_say_is_null_with_a_note(database_url: str) -> None:
    log = History(database_url)
    log.take(log.order("ann", "2026-01-10", "o1", 10_000), log.order("ann", "2026-02-10", "o2", 10_000))
    document = report(database_url, "customers", Asked())
    (cell,) = document["data"]["clv"]["2026-01"]["cells"]
    assert (cell["revenue_mean"], cell["reward_cost"], cell["clv_mean"]) == (10_000, None, None)
    assert ["liability_per_point" in note or "margin" in note for note in document["notes"]] == [True, True]


def test_a_note_says_how_far_the_facts_are_behind(whole: History) -> None:
    assert report(whole.database_url, "customers", Asked())["notes"] == []
    commit(whole.database_url, Batch([admitted(whole.order("ann", "2026-05-02", "o10", 100))]))
    behind = report(whole.database_url, "customers", Asked())
    assert behind["data"]["periods"]["2026-05"]["orders"] == 0
    assert ["the newest 1 source events" in note for note in behind["notes"]] == [True, False]
    assert "the sums by day lack the newest" in behind["notes"][1]

    # the points of each month stand in the reward log alone, and who joined when in the facts
    (lacking,) = report(whole.database_url, "redemption", Asked())["notes"]
    assert "the sums by day lack the newest" in lacking
    (facts,) = report(whole.database_url, "redemption", Asked(by="joined"))["notes"]
    assert "the newest 1 source events" in facts


def test_every_report_is_as_the_log_stood_at_that_instant(log: History) -> None:
    history = [*first_part(log), *second_part(log)]
    then = []
    for first in range(0, len(history), 9):
        known_at = log.take(*history[first : first + 9])
        then.append((known_at, log.report("customers")))
    assert len({str(data) for _, data in then}) == len(then)
    for known_at, data in then:
        assert log.report("customers", known_at=known_at) == data


def test_an_empty_log_and_a_single_member_divide_by_nothing(log: History) -> None:
    assert log.report("customers") == {
        "periods": {"all": NOTHING},
        "repurchase": {"30d": {}, "90d": {}},
        "retention": {"by_signup": {}, "by_first_order": {}},
        "clv": {},
    }
    log.take(log.signup("ann", "2026-01-02"))
    alone = log.report("customers")
    assert alone["periods"] == {"2026-01": NOTHING, "all": NOTHING}
    assert alone["retention"] == {"by_signup": {"2026-01": {"members": 1, "cells": []}}, "by_first_order": {}}


def test_a_report_that_begins_later_knows_who_bought_before(whole: History) -> None:
    since = whole.report("customers", since=date(2026, 2, 1))
    assert list(since["periods"]) == ["2026-02", "2026-03", "2026-04", "2026-05", "all"]
    assert since["periods"]["all"]["net"] == 19_000
    assert {name: row["members"] for name, row in since["retention"]["by_first_order"].items()} == {
        "2026-02": 1, "2026-04": 1,
    }  # fmt: skip
