"""The liability report says what was worked out by hand, closes for every period, and never moves a closed month."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from engine.store.cursor import one
from engine.store.database import snapshot, transaction
from operations.report.arithmetic.lot_hazards import Hazards
from operations.report.catalogue import report
from operations.report.frame import Asked, frame
from operations.report.liability.activity import expected_redemptions
from operations.report.liability.close import close_month, closed_months
from operations.report.liability.report import problem
from operations.report.periods import Every
from projections.runner import finish
from schemas.errors import AnswerIsNo, InputError
from tests.operations.report.books import (
    FROM_JULY,
    IN_AUGUST,
    PROGRAMME,
    TO_JUNE,
    bought,
    come_to,
    commit,
    honour,
)
from tests.system.load import activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

UNTIL = date(2024, 9, 1)


@pytest.fixture
def books(database_url: str) -> str:
    """Return a database with the whole history; May and June were closed before the rest came."""
    activate(database_url, PROGRAMME)
    commit(database_url, TO_JUNE)
    come_to(database_url, "2024-06-30T22:00")
    close_month(database_url, "2024-05", "fin", "books of May")
    close_month(database_url, "2024-06", "fin", "books of June")
    commit(database_url, FROM_JULY[:4], "2024-07-08T00:00")
    commit(database_url, FROM_JULY[4:])
    honour(database_url, "2024-07-20T10:00", 25)
    come_to(database_url, "2024-07-31T22:00")
    commit(database_url, IN_AUGUST)
    come_to(database_url, "2024-08-31T22:00")
    return database_url


def liability(database_url: str, **asked: Any) -> dict[str, Any]:
    data: dict[str, Any] = report(database_url, "liability", Asked(**{"until": UNTIL} | asked))["data"]
    assert problem(data) is None
    return data


def moved(row: dict[str, Any]) -> dict[str, int]:
    """Return what is not 0 in a row of the roll-forward."""
    return {name: value for name, value in row.items() if value and name not in {"closes", "liability_face"}}


def test_every_row_of_the_roll_forward_is_the_one_worked_out_by_hand(books: str) -> None:
    rows = liability(books)["roll_forward"]
    assert list(rows) == ["2024-05", "2024-06", "2024-07", "2024-08", "all"]
    assert moved(rows["2024-05"]) == {
        "granted": 140, "opening": 200, "captured": 20, "restored": 5, "closing_gross": 325, "closing_net": 325,
    }  # fmt: skip
    assert moved(rows["2024-06"]) == {
        "opening_gross": 325, "opening_net": 325, "adjusted": 10, "reversed": 47, "reversed_from_lots": 47,
        "adjusted_minus": 7, "closing_gross": 288, "closing_net": 288,
    }  # fmt: skip
    assert moved(rows["2024-07"]) == {
        "opening_gross": 288, "opening_net": 288, "granted": 950, "honoured": 25, "expired": 98, "reversed": 960,
        "reversed_from_lots": 900, "reversed_from_expired": 45, "reversed_to_debt": 15, "settled_debt": 10,
        "prior_periods": 20, "closing_gross": 275, "closing_debt": 5, "closing_net": 270,
    }  # fmt: skip
    assert moved(rows["2024-08"]) == {
        "opening_gross": 275, "opening_debt": 5, "opening_net": 270, "granted": 80, "erased": 210,
        "closing_gross": 145, "closing_debt": 5, "closing_net": 140,
    }  # fmt: skip
    assert moved(rows["all"]) == {
        "granted": 1170, "adjusted": 10, "honoured": 25, "opening": 200, "captured": 20, "restored": 5,
        "expired": 98, "erased": 210, "reversed": 1007, "reversed_from_lots": 947, "reversed_from_expired": 45,
        "reversed_to_debt": 15, "adjusted_minus": 7, "settled_debt": 10, "prior_periods": 20, "closing_gross": 145,
        "closing_debt": 5, "closing_net": 140,
    }  # fmt: skip
    assert all(row["closes"] is True for row in rows.values())
    assert [row["liability_face"] for row in rows.values()] == [162.5, 144, 137.5, 72.5, 72.5]


def test_net_outstanding_is_what_was_earned_less_redeemed_expired_and_erased(books: str) -> None:
    whole = liability(books)["roll_forward"]["all"]
    earned = (
        sum(whole[row] for row in ("granted", "adjusted", "honoured", "opening")) + whole["prior_periods"]
        - whole["reversed"]
    )  # fmt: skip
    expired = whole["expired"] - whole["reversed_from_expired"]
    assert whole["closing_net"] == earned - (whole["captured"] - whole["restored"]) - expired - whole["erased"]


def test_what_is_outstanding_lapses_in_the_months_of_the_lots(books: str) -> None:
    """Cid's 40 were released on 15 July at 00:30 in Berlin, so they lapse on 15 September; dan's 25 never do."""
    assert liability(books)["ageing"] == {"2024-09": 40, "2024-10": 80, "never": 25}
    assert liability(books, until=date(2024, 7, 1))["ageing"] == {"2024-07": 78, "2024-08": 10, "2025-01": 200}


def test_each_method_says_what_its_formula_says_of_numbers_by_hand(books: str) -> None:
    """May earned 268 (360 issued, 92 reversed) and redeemed 15 at once; June 10 and 0; July 65, August 80."""
    found = liability(books)["methods"]
    assert found["M1"] == {"closed_vintages": 2, "urr": 15 / 278}
    assert found["M2"]["factor_sums"] == [[15, 15], [15, 15], [15, 15]]
    assert found["M2"]["factors"] == [1, 1, 1]
    assert [(row["redeemed"], row["earned"]) for row in found["M2"]["rows"].values()] == [
        (15, 268), (0, 10), (0, 65), (0, 80),
    ]  # fmt: skip
    assert found["M2"]["rows"]["2024-05"]["redeemed_by_age"] == [15, 15, 15, 15]

    # M3: ann's 20 at 9 days, less the 5 restored; a reversal out of expired leaves at the expiry's age; fay's 80 are
    # 7 days old, so they were at risk at ages 0 to 6
    rate = 515 / 1425 * 15 / 435
    assert found["M3"].pop("left_by") == {"red": 15, "exp": 263, "rev": 1002}
    assert found["M3"] == pytest.approx(
        {
            "ages": 91, "at_risk_0": 1425,
            "ultimate_redemption_rate": rate, "expected_redemptions": 80 * 15 / 435,
            "urr_of_outstanding": 80 * 15 / 435 / 145,
        }
    )  # fmt: skip

    assert found["M4"] == {"rho_0": 15 / 278, "rho_0_of": "M1"}
    urr = {"M1": 15 / 278, "M2": 15 / 423, "M3": rate, "M4": 15 / 423, "M5": None}
    expected = {"M1": 145 * 15 / 278, "M2": 0, "M3": 80 * 15 / 435, "M4": 0, "M5": None}
    cost = {name: None if points is None else points / 2 for name, points in expected.items()} | {"face": 72.5}
    assert found["urr"] == pytest.approx(urr)
    assert found["expected_redemptions"] == pytest.approx(expected)
    assert found["liability_at_cost"] == pytest.approx(cost)
    assert found["one_point"] == {"expected_redemptions": 1.45, "liability_at_cost": 0.725}
    assert found["interval"] == {}  # of six members


def test_by_activity_points_of_members_who_may_have_left_count_less(books: str) -> None:
    """At the end of June gus has 30 points of three orders in eight days; nobody else has bought more than once."""
    commit(books, [bought(f"2024-06-0{day}T10:00", "gus", f"g{day}", 1_000) for day in (1, 5, 9)])
    finish(books, threading.Event())
    asked = Asked(until=date(2024, 7, 1))
    model = report(books, "clv_predicted", asked)["data"]["bgnbd"]
    r, alpha, a, b = (model[name] for name in ("r", "alpha", "a", "b"))
    alive = 1 / (1 + a / (b + 1) * ((alpha + 30 / 7) / (alpha + 8 / 7)) ** (r + 2))
    assert 0 < alive < 0.999

    everything = Hazards(survival=(1.0,) * 99, cumulative=(0.0,) * 98 + (1.0,))  # every point will be redeemed
    with snapshot(books) as cursor:
        expected = expected_redemptions(frame(cursor, asked), everything)
    assert expected == pytest.approx(288 + 20 + 30 * alive)  # eve's 20 came late


def test_what_was_expected_at_a_close_stands_beside_what_has_happened(books: str) -> None:
    """Of the 325 of May's end 40 and 7 and 45 were reversed, 33 lapsed, and 200 went with the erasure."""
    found = liability(books)["estimates"]
    assert list(found) == ["2024-05", "2024-06"]
    figures = ("outstanding", "redeemed_since", "expired_since", "reversed_since", "still_outstanding")
    assert [found["2024-05"][name] for name in figures] == [325, 0, 233, 92, 0]
    assert [found["2024-06"][name] for name in figures] == [288, 0, 243, 45, 0]

    # at the end of May the one vintage had earned 340; 15 were redeemed at 9 days, and only ann's lot was older
    assert found["2024-05"]["methods"]["M1"] == {"urr": None, "expected_redemptions": None}
    assert found["2024-05"]["methods"]["M3"]["urr"] == pytest.approx(15 / 340)


def test_in_money_each_close_goes_on_from_the_one_before(books: str) -> None:
    """A point is worth half a cent. May granted 340 at a rate of 15 in 340, June 10 at 15 in 350; May redeemed 15."""
    found = liability(books)["money"]
    names = ("opening", "deferred", "recognised_on_redemption", "recognised_on_expiry", "change_of_estimate", "closing")
    assert [found["2024-05"][name] for name in names] == pytest.approx([0, 7.5, 7.5, 0, 0, 0])
    assert [found["2024-06"][name] for name in names] == pytest.approx([0, 5 * 15 / 350, 0, 0, -5 * 15 / 350, 0])
    assert liability(books, every=Every.QUARTER)["money"] == {}


def test_a_closed_month_is_what_it_was_when_it_was_closed(books: str) -> None:
    """Eve's purchase of May came after May and June were closed: it counts in July, and only there."""
    assert [(row["month"], row["closing_gross"]) for row in closed_months(books)] == [
        ("2024-05", 325),
        ("2024-06", 288),
    ]
    rows = liability(books, until=date(2024, 7, 1))["roll_forward"]
    assert [rows[month]["closing_gross"] for month in ("2024-05", "2024-06", "all")] == [325, 288, 288]


def test_what_was_known_at_an_instant_is_what_the_report_said_then(books: str) -> None:
    with transaction(books) as cursor:
        known_at: datetime = one(cursor, "SELECT closed_at FROM guerdon.month_close WHERE month = '2024-06-01'")[0]
    rows = liability(books, until=date(2024, 8, 1), known_at=known_at)["roll_forward"]
    assert moved(rows["2024-07"]) == {
        "opening_gross": 288, "opening_net": 288, "closing_gross": 288, "closing_net": 288,
    }  # fmt: skip


def test_other_reports_say_the_same_of_the_same_points(books: str) -> None:
    data = liability(books)
    asked = Asked(until=UNTIL)
    row = data["roll_forward"]["2024-08"]
    engagement = report(books, "engagement", asked)["data"]["2024-08"]["outstanding"]
    assert (engagement["gross"], engagement["debt"]) == (row["closing_gross"], row["closing_debt"])

    redemption = report(books, "redemption", asked)["data"]
    assert redemption["closed_vintages"] == data["methods"]["M1"]["closed_vintages"]
    assert sum(each["outstanding"] for each in redemption["vintages"].values()) == row["closing_gross"]
    for month, each in redemption["vintages"].items():
        ladder = data["methods"]["M2"]["rows"][month]
        assert (each["earned"], each["redeemed_by_age"]) == (ladder["earned"], ladder["redeemed_by_age"])


def test_a_report_that_begins_later_opens_with_all_that_was_before(books: str) -> None:
    rows = liability(books, since=date(2024, 7, 11))["roll_forward"]
    assert rows["2024-07"]["opening_gross"] == 303  # 288, cid's 40 and eve's 20, less ann's 45
    assert rows["2024-07"]["closing_gross"] == 275


@pytest.mark.parametrize(("every", "last"), [(Every.DAY, "2024-08-31"), (Every.QUARTER, "2024-Q3")])
def test_other_periods_close_as_well(books: str, every: Every, last: str) -> None:
    rows = liability(books, every=every)["roll_forward"]
    assert list(rows)[-2] == last
    assert rows[last]["closing_gross"] == 145


# Closing


def test_a_month_is_closed_by_somebody_for_a_reason_and_only_once(books: str) -> None:
    row = close_month(books, "2024-07", "fin", "books of July")
    assert (row["month"], row["actor"], row["reason"]) == ("2024-07", "fin", "books of July")
    assert (row["closing_gross"], row["closing_debt"], row["zone"]) == (275, 5, "Europe/Berlin")
    with pytest.raises(AnswerIsNo, match=r"2024-07 is closed already, since .* by fin"):
        close_month(books, "2024-07", "fin", "again")


@pytest.mark.parametrize(
    ("month", "said"),
    [
        ("2024-04", "lies before 2024-07, the first month that is open"),
        ("2024-08", "2024-07 is still open: close it first"),
        ("2024-09", "2024-07 is still open: close it first"),
        ("2999-01", "is not over before"),
    ],
)
def test_a_month_is_closed_in_its_turn_and_after_its_end(books: str, month: str, said: str) -> None:
    with pytest.raises(AnswerIsNo, match=said):
        close_month(books, month, "fin", "too early or too late")


def test_a_month_is_not_closed_before_the_clocks_have_come_to_its_end(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    with pytest.raises(AnswerIsNo, match="no points have moved yet"):
        close_month(database_url, "2024-05", "fin", "-")
    commit(database_url, [bought("2024-05-02T10:00", "ann", "o1", 100)])
    with pytest.raises(AnswerIsNo, match="no clock has moved yet"):
        close_month(database_url, "2024-05", "fin", "-")
    come_to(database_url, "2024-05-31T21:59")
    with pytest.raises(AnswerIsNo, match="the clocks stand at 2024-05-31T21:59"):
        close_month(database_url, "2024-05", "fin", "-")
    come_to(database_url, "2024-05-31T22:00")
    assert close_month(database_url, "2024-05", "fin", "-")["closing_gross"] == 1


@pytest.mark.parametrize(
    ("month", "actor", "reason", "said"),
    [
        ("2024-5", "fin", "-", "is no month; write it as 2026-03"),
        ("2024-13", "fin", "-", "is no month"),
        ("2024-05", " ", "-", "--actor is empty"),
        ("2024-05", "fin", "", "--why is empty"),
        ("2024-05", "fin", "x" * 501, "--why: write one line"),
        ("2024-05", "fin\n", "-", "--actor: write one line"),
    ],
)
def test_words_that_cannot_be_recorded_are_refused(
    database_url: str, month: str, actor: str, reason: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        close_month(database_url, month, actor, reason)


def pretend_closed(database_url: str, **row: Any) -> None:
    """Record a close of July that published 999 points."""
    values = {
        "month": "2024-07-01", "zone": "Europe/Berlin", "closed_at": datetime.now(UTC), "actor": "fin", "reason": "-",
        "generation": 1, "closing_gross": 999, "closing_debt": 5,
    } | row  # fmt: skip
    with transaction(database_url) as cursor:
        cursor.execute("INSERT INTO guerdon.month_close VALUES %s", (tuple(values.values()),))


def test_a_month_that_is_not_what_was_published_does_not_close(books: str) -> None:
    pretend_closed(books)
    data = report(books, "liability", Asked(until=UNTIL))["data"]
    assert [row["closes"] for row in data["roll_forward"].values()] == [True, True, False, True, True]
    assert problem(data) == (
        "the roll-forward of 2024-07 does not close: its rows and what lies in the accounts, or what was published, "
        "differ by -724 points; run `guerdon verify`"
    )
    with pytest.raises(AnswerIsNo, match="2024-08 cannot be closed: the roll-forward of 2024-07 does not close"):
        close_month(books, "2024-08", "fin", "-")


@pytest.mark.parametrize("other", [{"generation": 7}, {"zone": "UTC"}])
def test_what_another_generation_or_zone_published_is_a_note(books: str, other: dict[str, Any]) -> None:
    pretend_closed(books, **other)
    document = report(books, "liability", Asked(until=UNTIL))
    assert problem(document["data"]) is None
    (note,) = (note for note in document["notes"] if note.startswith("2024-07"))
    assert "999 points outstanding and 5 owed; this report has 275 and 5" in note


def test_the_commands_close_list_and_end_with_a_code(
    books: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", books)

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words))

    assert isinstance(run("close").exception, InputError)
    assert isinstance(run("close", "2024-07").exception, InputError)
    assert isinstance(run("close", "--list", "--why", "-").exception, InputError)
    closed = run("close", "2024-07", "--why", "books of July", "--actor", "fin", "--json")
    assert json.loads(closed.stdout)["closing_gross"] == 275
    months = [row["month"] for row in json.loads(run("close", "--list", "--json").stdout)]
    assert months == ["2024-05", "2024-06", "2024-07"]
    page = tmp_path / "liability.html"
    assert run("report", "liability", "--to", "2024-09", "--html", str(page)).exit_code == 0
    assert all(words in page.read_text("utf-8") for words in ("prior periods", "+20", "ultimate_redemption_rate"))
    assert "145" in run("report", "liability", "--to", "2024-09").stdout
    pretend_closed(books, month="2024-08-01")
    assert isinstance(run("report", "liability", "--to", "2024-09").exception, AnswerIsNo)


def test_nobody_can_change_a_close_or_an_estimate(books: str) -> None:
    for statement in (
        "UPDATE guerdon.month_close SET actor = 'x'",
        "DELETE FROM guerdon.estimate",
        "TRUNCATE guerdon.month_close CASCADE",
    ):
        with pytest.raises(Exception, match=r"append-only|permission denied"), transaction(books) as cursor:
            cursor.execute(statement)


def test_an_empty_log_has_a_row_of_nothing(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    data = report(database_url, "liability", Asked())["data"]
    assert list(data["roll_forward"]) == ["all"]
    assert moved(data["roll_forward"]["all"]) == {}
    assert data["ageing"] == {}
    assert data["methods"]["urr"] == dict.fromkeys(("M1", "M2", "M3", "M4", "M5"))
    assert problem(data) is None
