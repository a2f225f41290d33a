"""Early warnings: each at its threshold and not one below it, and only about the last days."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from engine.store.database import ANALYST, transaction
from operations.replay.run import Request, replay
from operations.report.alerts.report import KINDS
from operations.report.alerts.thresholds import Thresholds, thresholds_in
from operations.report.periods import midnight
from operations.rows import dictionaries
from operations.settings import load_settings
from schemas.events import Activity, Erasure
from tests.operations.report.history import HEAD, History

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

PROGRAMME = (
    HEAD + "points: {liability_per_point: 0.01}\nmargin: 20%\n"
    "referral: {block: [self]}\n"
    "rules:\n"
    "- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"
    "- {id: daily, on: activity, give: [{points: 1}], limits: [{times: 1, per: member, every: day}]}\n"
    "- {id: gift, on: signup, campaign: spring, give: [{points: 100}],"
    " limits: [{max: 3000, per: campaign, every: month}]}\n"
    "- {id: rich, on: purchase, when: {purchase.channel: rich}, give: [{cash: {amount: 30.00}}]}\n"
)


@pytest.fixture
def log(database_url: str) -> History:
    return History(database_url, PROGRAMME)


def spent_and_returned(log: History, who: str, day: str, order_id: str) -> list[Any]:
    """Return an order, the spending of its points, and the return of all of it, on one day."""
    return [
        log.order(who, f"{day}T08:00:00Z", order_id, 10_000),
        log.redeem(who, f"{day}T09:00:00Z", "spend", f"s-{order_id}", 100),
        log.refund(who, f"{day}T10:00:00Z", order_id),
    ]


def alerts(log: History, **thresholds: float) -> list[dict[str, Any]]:
    found = log.report("alerts", thresholds=Thresholds(**thresholds))["alerts"]  # type: ignore[arg-type]  # by name
    assert isinstance(found, list)
    return found


def test_returned_orders_whose_points_are_spent_are_counted_by_member(log: History) -> None:
    log.take(
        *spent_and_returned(log, "ann", "2026-03-01", "o1"),  # more than 30 days before the end
        *spent_and_returned(log, "bob", "2026-04-20", "o2"),
        *spent_and_returned(log, "ann", "2026-04-20", "o3"),
        *spent_and_returned(log, "ann", "2026-04-25", "o4"),
        *spent_and_returned(log, "eve", "2026-04-26", "o5"),
        *spent_and_returned(log, "eve", "2026-04-27", "o6"),
        log.make(Erasure, "2026-04-28", member_id="eve"),
        log.order("cat", "2026-04-29", "o7", 10_000),
        log.refund("cat", "2026-04-30", "o7"),  # whose points were still there
    )
    assert alerts(log) == [
        {
            "alert": "refunds_after_redemption", "threshold": 2, "value": 2, "member_id": "ann",
            "since": "2026-04-20T10:00:00Z",
        }
    ]  # fmt: skip
    assert [row["member_id"] for row in alerts(log, refunds=1)] == ["ann", "bob"]
    assert alerts(log, refunds=3) == []


def test_an_order_that_is_returned_in_parts_is_one(log: History) -> None:
    log.take(
        log.order("ann", "2026-04-20T08:00:00Z", "o1", 10_000),
        log.redeem("ann", "2026-04-20T09:00:00Z", "spend", "s1", 100),
        log.refund("ann", "2026-04-21", "o1", 4_000, refund_id="first"),
        log.refund("ann", "2026-04-22", "o1", 6_000, refund_id="second"),
    )
    assert alerts(log) == []
    assert [row["value"] for row in alerts(log, refunds=1)] == [1]


def test_members_who_name_one_referrer_within_an_hour_are_a_burst(log: History) -> None:
    log.take(log.signup("ann", "2026-04-01"), log.signup("bob", "2026-04-01"))
    minutes = ("00", "10", "20", "50", "59")
    log.take(
        *(log.signup(f"a{n}", f"2026-04-02T10:{minute}:00Z", referrer_id="ann") for n, minute in enumerate(minutes)),
        *(log.signup(f"b{n}", f"2026-04-02T1{n}:30:00Z", referrer_id="bob") for n in range(5)),
        log.signup("bob", "2026-04-02T10:59:00Z", referrer_id="bob"),  # rejected, and a claim all the same
    )
    burst = {"alert": "referral_burst", "threshold": 5, "value": 5, "member_id": "ann", "since": "2026-04-02T10:59:00Z"}
    assert alerts(log) == [burst]
    assert alerts(log, referrals=6) == []
    assert [(row["member_id"], row["value"]) for row in alerts(log, referrals=2)] == [("ann", 5), ("bob", 3)]

    # a referee who is erased was one all the same; about a referrer nobody is warned any more
    log.take(log.make(Erasure, "2026-04-03", member_id="a1"))
    assert alerts(log) == [burst]
    log.take(log.make(Erasure, "2026-04-03", member_id="ann"))
    assert alerts(log) == []


def test_refusals_of_the_last_day_are_compared_with_the_week_before(log: History) -> None:
    def twice(who: str, day: str) -> list[Any]:
        return [log.make(Activity, f"{day}T{hour}:00:00Z", member_id=who, kind="visit") for hour in ("08", "09")]

    log.take(*(each for day in range(1, 8) for each in twice("ann", f"2026-04-0{day}")))
    log.take(*twice("ann", "2026-04-08"), *twice("bob", "2026-04-08"), *twice("cat", "2026-04-08"))
    jump = {
        "alert": "refusals_jump", "threshold": 3.0, "value": 3, "reason": "limit_times",
        "since": "2026-04-07T22:00:00Z",
    }  # fmt: skip
    assert alerts(log, refusals=3) == [jump]
    assert alerts(log, refusals=4) == []
    assert alerts(log, refusals=3, refusals_factor=3.1) == []


def test_the_command_takes_thresholds_from_the_settings_and_ends_with_1_where_there_is_an_alert(
    log: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.take(*spent_and_returned(log, "ann", "2026-04-20", "o1"))
    monkeypatch.setenv("GUERDON_DATABASE_URL", log.database_url)
    words = ["report", "alerts", "--exit-code", "--json"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, words[:2]).stdout.endswith("nothing to report\n")
    monkeypatch.setenv("GUERDON_ALERT_REFUNDS", "1")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1
    assert [row["member_id"] for row in json.loads(result.stdout)["data"]["alerts"]] == ["ann"]
    assert CliRunner().invoke(app, words[:2]).exit_code == 0


def test_a_budget_that_ends_before_its_period_is_told_when_that_is_near(log: History) -> None:
    # the last seven days took 14 of 30 signups' worth: the 16 that are left last 8 days, and April 20 more
    log.take(*(log.signup(f"m{number}", f"2026-04-{4 + number // 2:02}") for number in range(14)))
    (alert,) = alerts(log, budget_days=8)
    assert alert == {
        "alert": "budget_ends_early", "threshold": 8, "value": pytest.approx(8), "campaign": "spring",
        "since": "2026-04-03T22:00:00Z",
    }  # fmt: skip
    assert alerts(log, budget_days=7.9) == []


def test_members_whose_rewards_cost_more_than_their_margin_are_told(log: History) -> None:
    log.take(
        log.order("ann", "2026-04-01", "o1", 10_000, channel="rich"),  # 31.00 of a margin of 20.00
        log.order("bob", "2026-04-01", "o2", 10_000),  # 1.00 of 20.00
        log.order("cat", "2026-04-02", "o3", 20_000, channel="rich"),  # 32.00 of 40.00, and of 0.00 when it is returned
        log.order("eve", "2026-04-02", "o4", 10_000, channel="rich"),
        log.make(Erasure, "2026-04-28", member_id="eve"),
    )
    ann = {
        "alert": "incentives_beyond_margin", "threshold": 2_000, "value": 3_100, "member_id": "ann",
        "since": "2026-04-01T12:00:00Z",
    }  # fmt: skip
    assert alerts(log) == [ann]
    assert [row["member_id"] for row in alerts(log, incentives_share=0.7)] == ["cat", "ann"]
    assert alerts(log, incentives=3_101) == []


def test_the_view_has_the_warnings_of_every_generation_as_the_report_does(log: History, tmp_path: Path) -> None:
    log.take(
        *(log.signup(f"m{n}", f"2026-04-18T10:{n:02}:00Z", referrer_id="ann" if n else None) for n in range(20)),
        log.signup("ann", "2026-04-18T11:00:00Z"),
        *spent_and_returned(log, "bob", "2026-04-19", "o1"),
        *spent_and_returned(log, "bob", "2026-04-19", "o2"),
        log.order("cat", "2026-04-19", "o3", 10_000, channel="rich"),
        *(log.make(Activity, f"2026-04-19T08:{n:02}:00Z", member_id="eve", kind="visit") for n in range(22)),
    )
    log.take(*(log.signup(f"a{n}", f"2026-04-19T12:{n:02}:00Z", referrer_id="cat") for n in range(5)))
    file = tmp_path / "poorer.yaml"
    file.write_text(PROGRAMME.replace("30.00", "5.00"), "utf-8")
    shadow = replay(log.database_url, Request(file))["generation"]

    with transaction(log.database_url, role=ANALYST) as cursor:
        rows = dictionaries(cursor, "SELECT * FROM reward.alert")
        cursor.execute("SELECT pg_get_viewdef('reward.alert'::regclass)")
        (definition,) = cursor.fetchone() or ()
    for generation in (1, shadow):
        found = [
            {key: value for key, value in row.items() if value is not None and key not in ("generation", "live")}
            for row in rows
            if row["generation"] == generation and row["live"] == (generation == 1)
        ]
        expected = log.report("alerts", generation=generation)["alerts"]
        assert sorted(found, key=str) == sorted(expected, key=str)
        kinds = {row["alert"] for row in expected}
        assert kinds == (set(KINDS) if generation == 1 else set(KINDS) - {"incentives_beyond_margin"})

    # the view has the thresholds of settings that nobody has changed
    (thresholds,) = re.findall(r"'({.*?})'", definition, re.DOTALL)
    assert Thresholds(**json.loads(thresholds)) == Thresholds() == thresholds_in(load_settings())


def test_a_local_day_begins_for_the_database_when_it_begins_for_reports(database_url: str) -> None:
    """Clocks skip midnight in Santiago, and repeat it in Havana and on the Azores."""
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
    zones = ("America/Santiago", "America/Havana", "Atlantic/Azores", "Europe/Berlin", "UTC")
    with transaction(database_url) as cursor:
        for zone in zones:
            cursor.execute("SELECT guerdon.local_midnight(day, %s) FROM unnest(%s) AS d (day)", (zone, days))
            assert [begun for (begun,) in cursor.fetchall()] == [midnight(day, zone) for day in days], zone


def test_an_empty_log_warns_of_nothing(log: History) -> None:
    assert alerts(log, refunds=1, referrals=1, refusals=1) == []
