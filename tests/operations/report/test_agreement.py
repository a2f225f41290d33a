"""Reports agree with each other, with the balances, with an equal generation, and with what they said at the time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.cursor import one
from engine.store.database import transaction
from operations.replay.run import Request, replay
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from operations.report.split import OF_MEMBERS
from projections.runner import finish
from tests.engine.history.test_honoured import HALF, OLD
from tests.operations.report.history import History
from tests.strategies.replays import WITH_EVERYTHING, events, everything, repeated, work
from tests.system.load import activate

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

pytestmark = pytest.mark.postgres

REPORTS = {
    **dict.fromkeys(("engagement", "redemption", "campaigns", "customers"), (None, "tier")),
    **dict.fromkeys(("referrals", "alerts"), (None,)),
}
"""The reports of random logs, with what each is split by."""

OF_ENGAGEMENT = ("members", "active", "participants", "redeemers", "orders", "points_earned", "points_burned")
OF_ORDERS = ("orders", "amount", "net", "gross", "refunds", "orders_net_positive", "gross_net_positive", "nps_asked")


def ask(database_url: str, name: str, **asked: Any) -> Any:
    """Return the data of a report by days, of facts that have followed the log."""
    finish(database_url, threading.Event(), ("source",))
    return report(database_url, name, Asked(every=Every.DAY, **asked))["data"]


def all_reports(database_url: str, **asked: Any) -> dict[str, Any]:
    """Return every report, whole and by tier."""
    return {
        f"{name} by {by}": ask(database_url, name, by=by, **asked) for name, splits in REPORTS.items() for by in splits
    }


def now(database_url: str) -> datetime:
    with transaction(database_url) as cursor:
        (instant,) = one(cursor, "SELECT clock_timestamp()")
    return instant  # type: ignore[no-any-return]


def test_flows_balances_and_vintages_are_one_ledger(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch)
    data = ask(database_url, "engagement")
    whole, vintages = data["all"], ask(database_url, "redemption")["vintages"].values()

    # each day's flows lead from its beginning to its end; only erasures are no flow
    erased = sum(row["erased"] for row in vintages)
    assert (
        whole["points_earned"] - whole["points_burned"] - whole["points_expired"] - erased
        == (whole["outstanding"]["net"])
    )
    assert erased > 0
    days = [row for name, row in data.items() if name != "all"]
    assert sum(row["points_earned"] for row in days) == whole["points_earned"]
    assert days[-1]["outstanding"] == whole["outstanding"]

    # vintages are the same points, but for what is owed
    assert sum(row["outstanding"] for row in vintages) == whole["outstanding"]["gross"]
    assert sum(row["redeemed"] for row in vintages) == whole["points_burned"]
    assert sum(row["expired"] for row in vintages) == whole["points_expired"]
    assert sum(row["earned"] for row in vintages) == whole["points_earned"] + whole["outstanding"]["debt"]
    for row in vintages:
        assert row["earned"] == row["redeemed"] + row["expired"] + row["erased"] + row["outstanding"]

    # and so are the balances of another fold
    finish(database_url, threading.Event(), ("reward",))
    with transaction(database_url) as cursor:
        balances = one(
            cursor,
            """
            SELECT sum(pending), sum(active), sum(reserved), sum(debt), sum(spent)
            FROM reward.member_balance WHERE unit = 'points'
            """,
        )
    outstanding = whole["outstanding"]
    accounts = (outstanding["pending"], outstanding["active"], outstanding["reserved"], outstanding["debt"])
    assert tuple(map(int, balances)) == (*accounts, whole["points_burned"])


def test_the_values_of_a_split_add_up_to_the_whole(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 400)
    whole = ask(database_url, "engagement")
    for by in ("tier", "joined", "first_order"):
        for name, rows in ask(database_url, "engagement", by=by).items():
            for key in OF_ENGAGEMENT:
                assert sum(row[key] for row in rows.values()) == whole[name][key], (by, name, key)
            for key in ("pending", "active", "reserved", "debt"):
                assert sum(row["outstanding"][key] for row in rows.values()) == whole[name]["outstanding"][key]

    # a customer has one tier, and may buy through several channels
    periods = ask(database_url, "customers")["periods"]
    for by, keys in {**dict.fromkeys(OF_MEMBERS, (*OF_ORDERS, "buyers")), "channel": OF_ORDERS}.items():
        for name, rows in ask(database_url, "customers", by=by)["periods"].items():
            for key in keys:
                assert sum(row[key] for row in rows.values()) == periods[name][key], (by, name, key)


def test_the_periods_add_up_to_the_whole(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 400)
    for name, keys in {
        "customers": ("orders", "net", "refunds"),
        "referrals": ("shares", "touches", "signups", "attributed", "rejected", "signups_attributed"),
    }.items():
        periods = ask(database_url, name)["periods"]
        for key in keys:
            assert sum(row[key] for period, row in periods.items() if period != "all") == periods["all"][key]
    data = ask(database_url, "referrals")
    assert sum(data["channels"]["signup"].values()) == data["periods"]["all"]["signups"]
    assert sum(data["statuses"].values()) == data["periods"]["all"]["attributed"] + data["periods"]["all"]["rejected"]


def test_a_report_of_an_earlier_time_is_the_report_of_the_log_as_it_stood_then(database_url: str) -> None:
    activate(database_url, WITH_EVERYTHING)
    lines = events(400)
    then = []
    for begin in range(0, 400, 100):
        work(database_url, lines[begin : begin + 100], seed=begin)
        then.append((now(database_url), all_reports(database_url)))
    for name in ("engagement by None", "customers by None"):
        assert len({str(reports[name]) for _, reports in then}) == len(then)
    for known_at, reports in then:
        assert all_reports(database_url, known_at=known_at) == reports


def test_an_equal_generation_has_equal_reports(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 400)
    live = all_reports(database_url)
    assert live["customers by None"]["periods"]["all"]["refunds"] > 0
    assert all_reports(database_url, generation=repeated(database_url)["generation"]) == live


def test_a_redemption_that_was_honoured_is_earned_once_and_burned_once(database_url: str, tmp_path: Path) -> None:
    """A generation gives half: of 80 that were spent it has 50, lends 30, and the next 50 points pay them back."""
    history = History(database_url, OLD.replace("USD", "EUR"))
    history.buys("m1", "2026-01-10T09:00:00Z", "o1", 1_000)
    history.redeems("m1", "2026-01-11T09:00:00Z", "spend", "r1", 80)
    history.buys("m1", "2026-01-12T09:00:00Z", "o2", 1_000)
    file = tmp_path / "half.yaml"
    file.write_text(HALF.replace("USD", "EUR"), "utf-8")
    generation = replay(database_url, Request(file))["generation"]
    row = history.report("engagement", generation=generation)["all"]
    assert (row["points_earned"], row["points_burned"], row["outstanding"]["net"]) == (100, 80, 20)
    vintage = history.report("redemption", generation=generation)["vintages"]["2026-01"]
    names = ("issued", "reversed", "settled", "earned", "redeemed", "outstanding")
    assert [vintage[name] for name in names] == [130, 0, 30, 100, 80, 20]
