"""Reports of random logs: equal in equal generations and at the same time, and split into parts that add up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from engine.store.cursor import one
from engine.store.database import transaction
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from operations.report.split import OF_MEMBERS
from projections.runner import finish
from tests.strategies.replays import WITH_EVERYTHING, events, everything, repeated, work
from tests.system.load import activate

if TYPE_CHECKING:
    from datetime import datetime

pytestmark = pytest.mark.postgres

NAMES = ("customers", "referrals", "alerts")


def ask(database_url: str, name: str, **asked: Any) -> dict[str, Any]:
    """Return the data of a report by weeks, of facts that have followed the log."""
    finish(database_url, threading.Event(), ("source",))
    data = report(database_url, name, Asked(every=Every.WEEK, **asked))["data"]
    assert isinstance(data, dict)
    return data


def all_reports(database_url: str, **asked: Any) -> dict[str, Any]:
    return {name: ask(database_url, name, **asked) for name in NAMES}


def now(database_url: str) -> datetime:
    with transaction(database_url) as cursor:
        (instant,) = one(cursor, "SELECT clock_timestamp()")
    return instant  # type: ignore[no-any-return]


def test_an_equal_generation_has_equal_reports(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 400)
    live = all_reports(database_url)
    assert live["customers"]["periods"]["all"]["refunds"] > 0
    assert all_reports(database_url, generation=repeated(database_url)["generation"]) == live


def test_a_report_of_an_earlier_time_is_the_report_of_the_log_as_it_stood_then(database_url: str) -> None:
    activate(database_url, WITH_EVERYTHING)
    lines = events(400)
    then = []
    for begin in range(0, 400, 100):
        work(database_url, lines[begin : begin + 100], seed=begin)
        then.append((now(database_url), all_reports(database_url)))
    assert len({str(reports["customers"]) for _, reports in then}) == len(then)
    for known_at, reports in then:
        assert all_reports(database_url, known_at=known_at) == reports


def test_the_parts_of_a_split_add_up_to_the_whole(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 400)
    whole = ask(database_url, "customers")["periods"]
    sums = ("orders", "amount", "net", "gross", "refunds", "orders_net_positive", "gross_net_positive", "nps_asked")
    for by, keys in {**dict.fromkeys(OF_MEMBERS, (*sums, "buyers")), "channel": sums}.items():
        for name, rows in ask(database_url, "customers", by=by)["periods"].items():
            assert {key: sum(row[key] for row in rows.values()) for key in keys} == {
                key: whole[name][key] for key in keys
            }, (by, name)


def test_periods_of_any_length_add_up_to_the_whole(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
