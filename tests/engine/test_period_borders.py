"""An instant at midnight falls in the period that begins there, wherever a period or its end is computed."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st

from engine.programme.conditions import Duration, Every
from engine.programme.interpret.facts import period_of
from engine.programme.localtime import DAY_MS, DAY_ZERO, calendar_of
from engine.programme.periods import bounds_of
from engine.programme.rules.expiry import Expiry
from engine.programme.terms import RoundExpiry
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.engine.in_memory import balance, event, given, judged

if TYPE_CHECKING:
    from engine.programme.localtime import Calendar

ZONES = ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia")
CALENDAR_PERIODS = [every for every in Every if every is not Every.LIFETIME]
OF_ROUNDING = {RoundExpiry.DAY: Every.DAY, RoundExpiry.MONTH: Every.MONTH, RoundExpiry.YEAR: Every.YEAR}
days = st.integers((date(2000, 1, 1) - date(1970, 1, 1)).days, (date(2040, 1, 1) - date(1970, 1, 1)).days)


@settings(max_examples=200, deadline=None)
@given_by(st.sampled_from(ZONES), st.sampled_from(CALENDAR_PERIODS), days)
def test_a_period_holds_its_first_instant_and_not_the_one_of_the_next(zone: str, every: Every, day: int) -> None:
    calendar = calendar_of(zone)
    first, end = bounds_of(every, calendar.instant_of(day * DAY_MS), calendar)
    number = period_of(every, first, calendar)
    assert period_of(every, end, calendar) == number + 1
    assert period_of(every, end - 1, calendar) == number == period_of(every, first + 1, calendar)
    assert bounds_of(every, first, calendar) == bounds_of(every, end - 1, calendar) == (first, end)


@settings(max_examples=200, deadline=None)
@given_by(
    st.sampled_from(ZONES), st.sampled_from(list(OF_ROUNDING)), days, st.integers(0, DAY_MS - 1) | st.just(0),
    st.sampled_from((Duration(days=30), Duration(months=12), Duration(months=1), Duration(ms=3_600_000))),
)  # fmt: skip
def test_points_last_to_the_end_of_the_period_in_which_their_validity_ends(
    zone: str, rounding: RoundExpiry, day: int, clock_ms: int, validity: Duration
) -> None:
    calendar = calendar_of(zone)
    available_ms = calendar.instant_of(day * DAY_MS) + clock_ms
    ends_ms = calendar.after(available_ms, validity)
    expires_ms = Expiry(calendar, validity, rounding)(available_ms)
    assert expires_ms > ends_ms
    assert bounds_of(OF_ROUNDING[rounding], ends_ms, calendar)[1] == expires_ms
    assert Expiry(calendar, validity, RoundExpiry.NONE)(available_ms) == ends_ms


def start_of(calendar: Calendar, *day: int) -> str:
    """Return the local midnight at which a day begins."""
    return iso_from_instant(calendar.instant_of((date(*day).toordinal() - DAY_ZERO) * DAY_MS))


@pytest.mark.parametrize("zone", ZONES)
def test_an_order_at_midnight_counts_in_the_month_that_begins(zone: str) -> None:
    """A cap of a month, a tier of a year and a contest of a month are asked, each on both sides of a border."""
    calendar = calendar_of(zone)
    rules = """tiers: {metric: status, window: calendar_year, levels: [{id: basic, from: 0}, {id: gold, from: 10}]}
contests: [{id: buyers, metric: spend, period: month, winners: 1}]
rules:
- {id: base, on: purchase, give: [{points: 10}], limits: [{max: 10, per: member, every: month}]}
- {id: status, on: purchase, give: [{status: 5}]}
- {id: best, on: contest, give: [{points: 1}], limits: [{max: 1, per: member, every: month}]}
"""

    # two orders before midnight and two from it on
    border = instant_from_iso(start_of(calendar, 2027, 1, 1), "at")
    events = [
        event(at, "purchase", "ann", iso_from_instant(border + by), order_id=f"o{at}", currency="EUR", amount=100)
        for at, by in enumerate((-2, -1, 0, 1))
    ]
    document = judged(rules, events, start_of(calendar, 2027, 2, 2), timezone=zone)

    # the cap of each month lets its first order through
    assert [row["occurred_at"] for row in given(document, "ann", "points.granted") if row["amount"] == 10] == [
        iso_from_instant(border - 2), iso_from_instant(border)
    ]  # fmt: skip

    # each month has two orders of a winner, and the year two of gold
    ((_, first), (_, second)) = ((row["amount"], row["occurred_at"]) for row in given(document, "ann", "contest.won"))
    assert [first, second] == [start_of(calendar, 2027, 1, 1), start_of(calendar, 2027, 2, 1)]
    assert [row["amount"] for row in given(document, "ann", "contest.won")] == [200, 200]
    assert balance(document, "ann")["granted"] == 22, "each prize counts in the month that begins with it"
    assert [row["item"] for row in given(document, "ann", "tier.changed")] == ["gold"]
    assert document["tiers"][0]["qualifying"] == 10


@pytest.mark.parametrize(("until", "available"), [("2026-12-31T23:59:59Z", 10), ("2027-01-01T00:00:00Z", 0)])
def test_until_an_instant_takes_what_is_due_at_it(until: str, available: int) -> None:
    document = judged(
        "points: {validity: 1mo, round_expiry: year}\nrules:\n- {id: base, on: purchase, give: [{points: 10}]}\n",
        [event(1, "purchase", "ann", "2026-01-01T00:00:00Z", order_id="o", currency="EUR", amount=1)], until,
    )  # fmt: skip
    assert balance(document, "ann")["available"] == available
