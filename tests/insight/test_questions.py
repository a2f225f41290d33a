"""The questions of docs/analysts.md, asked of the year, have the answers that pandas gives."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import psycopg2
import pytest

from tests.insight.frames import ZONE
from tests.insight.orders import GRANTS
from tests.insight.points import ageing, lots
from tests.pages.test_analysts_page import QUESTIONS
from tests.pages.test_analysts_page import ZONE as SET_ZONE

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from tests.insight.frames import Frames
    from tests.insight.recorded_year import Year

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("insight year")]

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def answers(a_year: Year) -> dict[int, Rows]:
    """Return the rows of each question by its number, as an analyst of the year's shop reads them."""
    options = "-c role=guerdon_analyst -c search_path=reward -c default_transaction_read_only=on"
    with closing(psycopg2.connect(a_year.url, options=options)) as opened, opened, opened.cursor() as cursor:
        cursor.execute(SET_ZONE.replace("Europe/Berlin", ZONE))
        return {number: _asked(cursor, question) for number, question in enumerate(QUESTIONS, 1)}


@pytest.fixture(scope="module")
def frames(a_year: Year) -> Frames:
    return a_year.frames.to_the_end()


def _asked(cursor: Cursor, question: str) -> Rows:
    """Return the rows of a question with integers and floats for decimals."""
    cursor.execute(question)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, map(_number, row), strict=True)) for row in cursor.fetchall()]


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    return value


def monthly(values: pd.Series, months: pd.Series) -> dict[str, int]:
    """Return the sum of each month by its name, where there is one."""
    return {str(month): int(total) for month, total in values.groupby(months).sum().items()}


def by(rows: Rows, key: str, value: str) -> dict[str, Any]:
    return {row[key]: row[value] for row in rows}


def test_points_that_come_and_go(answers: dict[int, Rows], frames: Frames) -> None:
    points = frames.points
    amount, month, debit, credit = points["amount"], points["month"], points["debit"], points["credit"]
    flows = {
        "given": debit.eq("issued").astype(int),
        "taken_back": (credit.eq("reversed") & ~debit.eq("debt")).astype(int),
        "settled": credit.eq("debt").astype(int),
        "redeemed": credit.eq("spent").astype(int) - debit.eq("spent").astype(int),
        "expired": credit.eq("expired").astype(int) - debit.eq("expired").astype(int),
    }
    for name, sign in flows.items():
        assert by(answers[1], "month", name) == monthly(amount * sign, month), name
    outstanding = points["pending"] + points["active"] + points["reserved"]
    changes = monthly(outstanding, month)
    assert by(answers[1], "month", "change") == by(answers[6], "month", "change") == changes
    closings = pd.Series(changes).sort_index().cumsum()
    assert by(answers[6], "month", "closing") == closings.to_dict()
    assert answers[6][0]["opening"] == 0


def test_what_becomes_of_a_point(answers: dict[int, Rows], frames: Frames) -> None:
    table = lots(frames)
    month = table["month"]
    assert by(answers[2], "given_in", "issued") == monthly(table["issued"], month)
    assert by(answers[2], "given_in", "redeemed") == monthly(table["redeemed"], month)
    assert by(answers[2], "given_in", "expired") == monthly(table["expired"] + table["erased"], month)
    assert by(answers[2], "given_in", "taken_back") == monthly(table["reversed"], month)
    assert by(answers[2], "given_in", "still_there") == monthly(table["outstanding"], month)


def test_refusals(answers: dict[int, Rows], frames: Frames) -> None:
    refused = frames.rewards[frames.rewards["type"].eq("reward.refused")]
    iso = refused["local"].dt.isocalendar()
    week = iso["year"].astype(str) + "-W" + iso["week"].astype(str).str.zfill(2)
    groups = refused.groupby([week, "reason"])["member_id"]
    for name, counted in {"times": groups.size(), "members": groups.nunique()}.items():
        assert {(row["week"], row["reason"]): row[name] for row in answers[3]} == counted.to_dict()


def test_what_is_owed_and_when_it_lapses(answers: dict[int, Rows], frames: Frames) -> None:
    (row,) = [row for row in answers[4] if row["unit"] == "points"]
    sums = {name: int(frames.points[name].sum()) for name in ("pending", "active", "reserved")}
    gross, debt = sum(sums.values()), -int(frames.points["debt"].sum())
    assert row == {"unit": "points", **sums, "gross": gross, "debt": debt, "net": gross - debt}
    points = [row for row in answers[5] if row["unit"] == "points"]
    assert by(points, "lapses_in", "amount") == ageing(frames)


def test_who_refers_whom(answers: dict[int, Rows], frames: Frames) -> None:
    attributed = frames.rewards[frames.rewards["type"].eq("referral.attributed")]
    signups = frames.events["signup"]
    steps = {
        "shares": frames.events["share"], "touches": frames.events["touch"],
        "signups": signups[signups["member_id"].isin(attributed["member_id"])],
    }  # fmt: skip
    for name, events in steps.items():
        counted = events.groupby([events["month"].astype(str), events["channel"].fillna("")]).size()
        found = {(str(row["month"])[:7], row["channel"] or ""): row[name] for row in answers[7]}
        assert {key: count for key, count in found.items() if count} == counted.to_dict(), name
    assert sum(row["first_purchases"] for row in answers[7]) > 0

    # those who were referred, and what they brought; the question ends with the day of the last movement
    rewards = frames.rewards
    qualified = rewards[rewards["type"].eq("referral.qualified")].groupby("item")["day"].min()
    ripe = attributed[attributed["day"] + pd.Timedelta(days=30) <= rewards["day"].max()]
    took = (ripe["member_id"].map(qualified) - ripe["day"]).dt.days
    assert by(answers[8], "month", "referred") == monthly(ripe["amount"] * 0 + 1, ripe["month"])
    assert by(answers[8], "month", "qualified_within_30d") == monthly((took <= 30).astype(int), ripe["month"])
    won = attributed[attributed["member_id"].isin(qualified.index)].groupby("item").size()
    assert [row["qualified"] for row in answers[9]] == sorted(won, reverse=True)[:10]


def test_tiers_and_campaigns(answers: dict[int, Rows], frames: Frames) -> None:
    changed = frames.rewards[frames.rewards["type"].eq("tier.changed")]
    rose = changed.groupby([changed["month"].astype(str), "item"]).size()
    found: dict[tuple[str, str], int] = {}
    for row in answers[10]:
        found[row["month"], row["tier"]] = found.get((row["month"], row["tier"]), 0) + row["members"]
    assert found == {key: int(n) for key, n in rose.items()}

    points = frames.points[frames.points["campaign"].notna()]
    given, back = points[points["debit"].eq("issued")], points[points["credit"].eq("reversed")]
    assert by(answers[11], "campaign", "points_given") == given.groupby("campaign")["amount"].sum().to_dict()
    assert {name: n for name, n in by(answers[11], "campaign", "points_taken_back").items() if n} == (
        back.groupby("campaign")["amount"].sum().to_dict()
    )
    assert by(answers[11], "campaign", "members") == points.groupby("campaign")["member_id"].nunique().to_dict()


def test_who_buys(answers: dict[int, Rows], frames: Frames, a_year: Year) -> None:
    deeds = pd.concat([frames.events[kind][["member_id", "month"]] for kind in ("purchase", "share", "activity")])
    active = deeds.groupby("month")["member_id"].nunique()
    found = by(answers[12], "month", "active")
    assert found == {str(month): int(n) for month, n in active.items() if str(month) in found}
    moved = frames.rewards[frames.rewards["type"].isin(["points.granted", "points.captured"])]
    assert by(answers[12], "month", "participants") == {
        month: int(n)
        for month, n in moved.groupby(moved["month"].astype(str))["member_id"].nunique().items()
        if month in found
    }

    orders = a_year.orders.orders
    month = orders["month"]
    assert by(answers[13], "month", "net") == monthly(orders["net"], month)
    assert by(answers[13], "month", "refunded") == monthly(orders["amount"] - orders["net"], month)
    assert by(answers[13], "month", "orders") == monthly(orders["net"] * 0 + 1, month)
    average = orders[orders["net"] > 0].groupby("month")["net"].mean()
    for row in answers[13]:
        assert row["average_order"] == pytest.approx(average[pd.Period(row["month"])], abs=0.5)


def test_who_comes_back(answers: dict[int, Rows], a_year: Year) -> None:
    months = a_year.orders.orders[["member_id", "month"]].drop_duplicates()
    cohort = months.groupby("member_id")["month"].min()
    later = [(then - first).n for then, first in zip(months["month"], months["member_id"].map(cohort), strict=True)]
    expected = months.assign(cohort=months["member_id"].map(cohort), later=later).groupby(["cohort", "later"]).size()
    assert {(str(row["cohort"])[:7], row["later"]): row["bought"] for row in answers[14]} == {
        (str(first), ago): int(n) for (first, ago), n in expected.items()
    }


def test_who_would_recommend_the_shop(answers: dict[int, Rows], frames: Frames) -> None:
    asked = frames.events["activity"]
    scored = asked[asked["kind"].eq("survey") & asked["score"].between(0, 10)].sort_values(["at", "event_id"])
    newest = scored.groupby("member_id")["score"].last()
    up, down = int((newest >= 9).sum()), int((newest <= 6).sum())
    (row,) = answers[15]
    assert (row["answers"], row["promoters"], row["detractors"]) == (len(newest), up, down)
    assert row["nps"] == pytest.approx(100 * (up - down) / len(newest), abs=0.05)


def test_what_orders_with_rewards_brought_in(answers: dict[int, Rows], frames: Frames, a_year: Year) -> None:
    paid = frames.rewards[frames.rewards["type"].isin(GRANTS) & frames.rewards["campaign"].notna()]
    bought = a_year.orders.orders.set_index("event_id")["net"]
    own = paid[["campaign", "event_id"]].drop_duplicates()
    own = own[own["event_id"].isin(bought.index)]
    net = own["event_id"].map(bought).groupby(own["campaign"])
    assert by(answers[16], "campaign", "orders") == net.size().to_dict()
    assert by(answers[16], "campaign", "net") == net.sum().to_dict()


def test_every_question_has_rows(answers: dict[int, Rows]) -> None:
    assert list(answers) == list(range(1, 17))
    assert all(answers.values())
